"""ONNX: one file. Numbers are those of onnx.proto."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from neural import graph
from neural.protobuf import Message

IR_VERSION, OPSET = 9, 20
FLOAT, INT64 = 1, 7  # TensorProto.DataType
Attribute = int | float | Sequence[int]


def parts(network: graph.Graph) -> list[bytes]:
    """The file, piece by piece."""
    writer = _Writer()
    for node in network.nodes:
        writer.add(node)
    body = (
        Message()
        .messages(1, writer.nodes)
        .text(2, network.name)
        .messages(5, writer.constants)
        .message(11, _described(network.input))
        .message(12, _described(network.output))
    )
    opset = Message().text(1, "").integer(2, OPSET)
    return Message().integer(1, IR_VERSION).text(2, "aibenchd").message(7, body).message(8, opset).parts


class _Writer:
    """Nodes and constants of one graph."""

    def __init__(self) -> None:
        self.nodes: list[Message] = []
        self.constants: list[Message] = []

    def add(self, node: graph.Node) -> None:
        name = node.output.name
        match node:
            case graph.Conv():
                inputs = (node.input.name, self._weight(node.weight), self._weight(node.bias))
                with_group = {"group": node.groups, **_window(node)}
                self._node("Conv", inputs, self._before(node.activation, name), **with_group)
                self._activate(node.activation, name)
            case graph.Pool():
                self._node("AveragePool" if node.mean else "MaxPool", (node.input.name,), name, **_window(node))
            case graph.GlobalAverage():
                self._node("GlobalAveragePool", (node.input.name,), f"{name}_pixel")
                self._node("Flatten", (f"{name}_pixel",), name, axis=1)
            case graph.Shuffle():
                _, channels, height, width = node.output.shape
                rows = (1, node.groups, channels // node.groups, height, width)
                self._reshape(node.input.name, f"{name}_rows", rows)
                self._node("Transpose", (f"{name}_rows",), f"{name}_columns", perm=(0, 2, 1, 3, 4))
                self._reshape(f"{name}_columns", name, node.output.shape)
            case graph.Concat():
                self._node("Concat", [x.name for x in node.inputs], self._before(node.activation, name), axis=1)
                self._activate(node.activation, name)
            case graph.Add():
                self._node("Add", (node.first.name, node.second.name), self._before(node.activation, name))
                self._activate(node.activation, name)
            case graph.Dense():
                transposed = self._float(node.weight.name, np.ascontiguousarray(node.weight.array().T))
                self._node("MatMul", (node.input.name, transposed), f"{name}_product")
                self._node("Add", (f"{name}_product", self._weight(node.bias)), name)
            case graph.LayerNorm():
                inputs = (node.input.name, self._weight(node.scale), self._weight(node.shift))
                self._node("LayerNormalization", inputs, name, axis=-1, epsilon=node.epsilon)
            case graph.Gelu():
                self._node("Gelu", (node.input.name,), name)
            case graph.SplitHeads():
                _, heads, length, depth = node.output.shape
                self._reshape(node.input.name, f"{name}_parts", (1, length, heads, depth))
                self._node("Transpose", (f"{name}_parts",), name, perm=(0, 2, 1, 3))
            case graph.JoinHeads():
                self._node("Transpose", (node.input.name,), f"{name}_parts", perm=(0, 2, 1, 3))
                self._reshape(f"{name}_parts", name, node.output.shape)
            case graph.MatMul(transposed=True):
                self._node("Transpose", (node.second.name,), f"{name}_turned", perm=(0, 1, 3, 2))
                self._node("MatMul", (node.first.name, f"{name}_turned"), name)
            case graph.MatMul():
                self._node("MatMul", (node.first.name, node.second.name), name)
            case graph.MeanOverSequence():
                self._node("ReduceMean", (node.input.name, self._whole(f"{name}_axes", (1,))), name, keepdims=0)
            case graph.Softmax():
                self._node("Softmax", (node.input.name,), name, axis=-1)

    def _before(self, activation: str, name: str) -> str:
        return f"{name}_linear" if activation else name

    def _activate(self, activation: str, name: str) -> None:
        match activation:
            case "relu":
                self._node("Relu", (f"{name}_linear",), name)
            case "relu6":
                limits = (self._float(f"{name}_least", np.float32(0)), self._float(f"{name}_most", np.float32(6)))
                self._node("Clip", (f"{name}_linear", *limits), name)

    def _reshape(self, source: str, name: str, shape: graph.Shape) -> None:
        self._node("Reshape", (source, self._whole(f"{name}_shape", shape)), name)

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Attribute) -> None:
        node = Message().texts(1, inputs).text(2, output).text(3, output).text(4, kind)
        self.nodes.append(node.messages(5, _attributes(attributes)))

    def _weight(self, weight: graph.Weight) -> str:
        return self._float(weight.name, weight.array())

    def _float(self, name: str, values: graph.Array | np.float32) -> str:
        return self._constant(name, FLOAT, values.shape, values.astype("<f4").tobytes())

    def _whole(self, name: str, values: Sequence[int]) -> str:
        return self._constant(name, INT64, (len(values),), np.array(values, "<i8").tobytes())

    def _constant(self, name: str, kind: int, shape: graph.Shape, data: bytes) -> str:
        self.constants.append(Message().integers(1, shape).integer(2, kind).text(8, name).data(9, data))
        return name


def _window(node: graph.Conv | graph.Pool) -> dict[str, Attribute]:
    return {"kernel_shape": (node.size,) * 2, "strides": (node.stride,) * 2, "pads": (node.padding,) * 4}


def _attributes(attributes: dict[str, Attribute]) -> Iterator[Message]:
    for name, value in attributes.items():
        attribute = Message().text(1, name)
        if isinstance(value, int):
            yield attribute.integer(3, value).integer(20, 2)
        elif isinstance(value, float):
            yield attribute.float32(2, value).integer(20, 1)
        else:
            yield attribute.integers(8, value).integer(20, 7)


def _described(value: graph.Value) -> Message:
    shape = Message().messages(1, (Message().integer(1, size) for size in value.shape))
    return Message().text(1, value.name).message(2, Message().message(1, Message().integer(1, FLOAT).message(2, shape)))
