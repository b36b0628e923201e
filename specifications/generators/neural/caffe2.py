"""Caffe2: a net that makes the weights, and a net that uses them. Numbers are those of caffe2.proto."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from neural import graph
from neural.protobuf import Message

Argument = int | float | str | Sequence[int]


def init_parts(network: graph.Graph) -> list[bytes]:
    """``init_net.pb``, piece by piece."""
    every = [weight for node in network.nodes for weight in graph.weights(node)]
    return _net(f"{network.name}_init", map(_fill, every), (), [weight.name for weight in every]).parts


def predict_parts(network: graph.Graph) -> list[bytes]:
    """``predict_net.pb``, piece by piece."""
    names = [weight.name for node in network.nodes for weight in graph.weights(node)]
    operators = (operator for node in network.nodes for operator in _operators(node))
    return _net(network.name, operators, [network.input.name, *names], [network.output.name]).parts


def _net(name: str, operators: Iterable[Message], inputs: Iterable[str], outputs: Iterable[str]) -> Message:
    return Message().text(1, name).messages(2, operators).texts(7, inputs).texts(8, outputs)


def _fill(weight: graph.Weight) -> Message:
    values = Message().text(1, "values").data(5, weight.array().astype("<f4").tobytes())  # packed
    return _operator("GivenTensorFill", (), (weight.name,), shape=weight.shape).message(5, values)


def _operators(node: graph.Node) -> Iterator[Message]:
    name = node.output.name
    match node:
        case graph.Conv():
            inputs = (node.input.name, node.weight.name, node.bias.name)
            yield _operator("Conv", inputs, (name,), group=node.groups, **_window(node))
            yield from _activation(node.activation, name)
        case graph.Pool():
            yield _operator("AveragePool" if node.mean else "MaxPool", (node.input.name,), (name,), **_window(node))
        case graph.GlobalAverage():
            yield _operator("AveragePool", (node.input.name,), (f"{name}_pixel",), global_pooling=1, order="NCHW")
            yield _operator("Flatten", (f"{name}_pixel",), (name,), axis=1)
        case graph.Shuffle():
            yield _operator("ChannelShuffle", (node.input.name,), (name,), group=node.groups, kernel=1, order="NCHW")
        case graph.Concat():
            yield _operator("Concat", [x.name for x in node.inputs], (name, f"{name}_sizes"), axis=1)
            yield from _activation(node.activation, name)
        case graph.Add():
            yield _operator("Add", (node.first.name, node.second.name), (name,))
            yield from _activation(node.activation, name)
        case graph.Dense():
            inputs = (node.input.name, node.weight.name, node.bias.name)
            yield _operator("FC", inputs, (name,), axis=len(node.input.shape) - 1)
        case graph.LayerNorm():
            inputs = (node.input.name, node.scale.name, node.shift.name)
            outputs = (name, f"{name}_mean", f"{name}_deviation")
            yield _operator("LayerNorm", inputs, outputs, axis=2, epsilon=node.epsilon, elementwise_affine=1)
        case graph.Gelu():
            yield _operator("Gelu", (node.input.name,), (name,))
        case graph.SplitHeads():
            _, heads, length, depth = node.output.shape
            yield _reshape(node.input.name, f"{name}_parts", (1, length, heads, depth))
            yield _operator("Transpose", (f"{name}_parts",), (name,), axes=(0, 2, 1, 3))
        case graph.JoinHeads():
            yield _operator("Transpose", (node.input.name,), (f"{name}_parts",), axes=(0, 2, 1, 3))
            yield _reshape(f"{name}_parts", name, node.output.shape)
        case graph.MatMul():
            yield _operator("BatchMatMul", (node.first.name, node.second.name), (name,), trans_b=int(node.transposed))
        case graph.MeanOverSequence():
            yield _operator("ReduceMean", (node.input.name,), (name,), axes=(1,), keepdims=0)
        case graph.Softmax():
            yield _operator("Softmax", (node.input.name,), (name,), axis=len(node.output.shape) - 1)


def _activation(activation: str, name: str) -> Iterator[Message]:
    """In place, as Caffe2's own networks have it."""
    match activation:
        case "relu":
            yield _operator("Relu", (name,), (name,))
        case "relu6":
            yield _operator("Clip", (name,), (name,), min=0.0, max=6.0)


def _reshape(source: str, name: str, shape: graph.Shape) -> Message:
    return _operator("Reshape", (source,), (name, f"{name}_before"), shape=shape)


def _window(node: graph.Conv | graph.Pool) -> dict[str, Argument]:
    return {"kernel": node.size, "stride": node.stride, "pad": node.padding, "order": "NCHW"}


def _operator(kind: str, inputs: Iterable[str], outputs: Iterable[str], **arguments: Argument) -> Message:
    operator = Message().texts(1, inputs).texts(2, outputs).text(3, "").text(4, kind)
    return operator.messages(5, (_argument(name, value) for name, value in arguments.items()))


def _argument(name: str, value: Argument) -> Message:
    argument = Message().text(1, name)
    match value:
        case int():
            return argument.integer(3, value)
        case float():
            return argument.float32(2, value)
        case str():
            return argument.text(4, value)
        case _:
            return argument.integers(6, value)
