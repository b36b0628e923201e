"""What a network gives for an input, computed in float64: what the frameworks' outputs are compared with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from neural import graph

Array = npt.NDArray[np.float64]


def run(network: graph.Graph, data: graph.Array) -> graph.Array:
    """The output, rounded to float32.

    The order in which a machine's BLAS adds may show in the last digit: compare, do not digest.
    """
    values: dict[str, Array] = {network.input.name: data.astype(np.float64)}
    for node in network.nodes:
        values[node.output.name] = _result(node, values)
    return values[network.output.name].astype(np.float32)


def _result(node: graph.Node, values: dict[str, Array]) -> Array:
    match node:
        case graph.Conv():
            return _activated(_conv(values[node.input.name], node), node.activation)
        case graph.Pool():
            return _pool(values[node.input.name], node)
        case graph.GlobalAverage():
            return _mean(values[node.input.name], (2, 3))
        case graph.Shuffle():
            x = values[node.input.name]
            return x.reshape(node.groups, -1, *x.shape[2:]).swapaxes(0, 1).reshape(x.shape)
        case graph.Concat():
            return _activated(np.concatenate([values[x.name] for x in node.inputs], axis=1), node.activation)
        case graph.Add():
            return _activated(values[node.first.name] + values[node.second.name], node.activation)
        case graph.Dense():
            return values[node.input.name] @ _array(node.weight).T + _array(node.bias)
        case graph.LayerNorm():
            return _layer_norm(values[node.input.name], node)
        case graph.Gelu():
            return _gelu(values[node.input.name])
        case graph.SplitHeads():
            _, heads, length, depth = node.output.shape
            return values[node.input.name].reshape(1, length, heads, depth).swapaxes(1, 2)
        case graph.JoinHeads():
            return values[node.input.name].swapaxes(1, 2).reshape(node.output.shape)
        case graph.MatMul():
            second = values[node.second.name]
            return values[node.first.name] @ (second.swapaxes(2, 3) if node.transposed else second)
        case graph.MeanOverSequence():
            return _mean(values[node.input.name], (1,))
        case graph.Softmax():
            x = values[node.input.name]
            powers = np.exp(x - x.max(axis=-1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _array(weight: graph.Weight) -> Array:
    return weight.array().astype(np.float64)


def _activated(x: Array, activation: str) -> Array:
    match activation:
        case "relu":
            return np.maximum(x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case _:
            return x


def _conv(x: Array, node: graph.Conv) -> Array:
    weight = _array(node.weight).reshape(node.groups, -1, *node.weight.shape[1:])  # (groups, out, in, size, size)
    total = np.zeros((node.groups, weight.shape[1], math.prod(node.output.shape[2:])))
    for row, column, window in _windows(x, node):
        total += weight[:, :, :, row, column] @ window.reshape(node.groups, weight.shape[2], -1)
    return total.reshape(node.output.shape) + _array(node.bias).reshape(1, -1, 1, 1)


def _pool(x: Array, node: graph.Pool) -> Array:
    stacked = np.stack([window for _, _, window in _windows(x, node)])
    return _mean(stacked, (0,)) if node.mean else np.maximum.reduce(stacked)


def _windows(x: Array, node: graph.Conv | graph.Pool) -> list[tuple[int, int, Array]]:
    """For each row and column of a window, what of the image lies there in all windows."""
    around = (node.padding, node.padding)
    padded = np.pad(x, ((0, 0), (0, 0), around, around))
    height, width = (node.stride * side for side in node.output.shape[2:])
    places = [(row, column) for row in range(node.size) for column in range(node.size)]
    return [
        (row, column, padded[:, :, row : row + height : node.stride, column : column + width : node.stride])
        for row, column in places
    ]


def _layer_norm(x: Array, node: graph.LayerNorm) -> Array:
    centred = x - _mean(x, (-1,))[..., None]
    deviation = np.sqrt(_mean(centred * centred, (-1,)) + node.epsilon)
    return centred / deviation[..., None] * _array(node.scale) + _array(node.shift)


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    mean: Array = np.add.reduce(x, axis=axes) / math.prod(x.shape[axis] for axis in axes)
    return mean


def _gelu(x: Array) -> Array:
    shares = np.fromiter((0.5 + 0.5 * math.erf(one / math.sqrt(2)) for one in x.flat), np.float64, x.size)
    return x * shares.reshape(x.shape)
