"""TensorFlow Lite: one file, images as NHWC. Numbers are those of its schema.fbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neural import flatbuffer, graph
from neural.flatbuffer import Data, Integers, Scalar, Table, Tables, Text

SCHEMA = 3
FLOAT32, INT32 = 0, 2  # TensorType
SAME, VALID = 0, 1  # Padding
ACTIVATIONS = {"": 0, "relu": 1, "relu6": 3}  # ActivationFunctionType

# BuiltinOperator, the operator's version that is needed, and BuiltinOptions
OPERATORS: Mapping[str, tuple[int, int, int]] = {
    "add": (0, 1, 11),
    "average_pool": (1, 1, 5),
    "concatenation": (2, 1, 10),
    "conv": (3, 1, 1),
    "depthwise_conv": (4, 1, 2),
    "fully_connected": (9, 5, 8),
    "max_pool": (17, 1, 5),
    "mul": (18, 1, 21),
    "relu": (19, 1, 0),
    "reshape": (22, 1, 17),
    "softmax": (25, 1, 9),
    "pad": (34, 1, 22),
    "transpose": (39, 1, 26),
    "mean": (40, 1, 27),
    "sub": (41, 1, 28),
    "rsqrt": (76, 1, 0),
    "squared_difference": (99, 1, 0),
    "batch_matmul": (126, 1, 101),
    "gelu": (150, 1, 121),
}
Options = Mapping[int, Scalar | Integers]


def parts(network: graph.Graph) -> list[bytes | bytearray]:
    """The file, piece by piece."""
    writer = _Writer()
    writer.variable(network.input.name, _nhwc(network.input.shape))
    for node in network.nodes:
        writer.add(node)
    return [flatbuffer.packed(writer.model(network), b"TFL3")]


class _Writer:
    """Tensors, buffers and operators of one subgraph."""

    def __init__(self) -> None:
        self._buffers = [Table({})]  # the first is that of all tensors without constants
        self._tensors: list[Table] = []
        self._places: dict[str, int] = {}
        self._operators: list[Table] = []
        self._codes: list[str] = []

    def model(self, network: graph.Graph) -> Table:
        ends = {1: Integers([self._places[network.input.name]]), 2: Integers([self._places[network.output.name]])}
        subgraph = Table({0: Tables(self._tensors), **ends, 3: Tables(self._operators), 4: Text(network.name)})
        codes = Tables([_code(name) for name in self._codes])
        return Table({0: Scalar("I", SCHEMA), 1: codes, 2: Tables([subgraph]), 3: Text("aibenchd"), 4: Tables(self._buffers)})

    def variable(self, name: str, shape: graph.Shape) -> None:
        self._tensor(name, shape, FLOAT32, 0)

    def add(self, node: graph.Node) -> None:
        output, shape = node.output.name, _nhwc(node.output.shape)
        match node:
            case graph.Conv():
                self._conv(node, shape)
            case graph.Pool():
                source, padding = self._padded(node)
                options = {**_strides(padding, node.stride), 3: Scalar("i", node.size), 4: Scalar("i", node.size)}
                self._operator("average_pool" if node.mean else "max_pool", [source], output, shape, options)
            case graph.GlobalAverage():
                self._mean(node.input.name, output, shape, axes=(1, 2), kept=False)
            case graph.Shuffle():
                _, height, width, channels = shape
                few = channels // node.groups
                self._reshape(node.input.name, f"{output}_rows", (1, height, width, node.groups, few))
                self._transpose(f"{output}_rows", f"{output}_columns", (1, height, width, few, node.groups), (0, 1, 2, 4, 3))
                self._reshape(f"{output}_columns", output, shape)
            case graph.Concat(activation=""):
                self._operator("concatenation", [x.name for x in node.inputs], output, shape, {0: Scalar("i", 3)})
            case graph.Concat():
                self._operator("concatenation", [x.name for x in node.inputs], f"{output}_linear", shape, {0: Scalar("i", 3)})
                self._operator(node.activation, [f"{output}_linear"], output, shape)
            case graph.Add():
                activation = {0: Scalar("b", ACTIVATIONS[node.activation])}
                self._operator("add", [node.first.name, node.second.name], output, shape, activation)
            case graph.Dense():
                inputs = [node.input.name, self._weight(node.weight), self._weight(node.bias)]
                self._operator("fully_connected", inputs, output, shape, {2: Scalar("b", 1)})
            case graph.LayerNorm():
                self._layer_norm(node)
            case graph.Gelu():
                self._operator("gelu", [node.input.name], output, shape)
            case graph.SplitHeads():
                _, heads, length, depth = node.output.shape
                self._reshape(node.input.name, f"{output}_parts", (1, length, heads, depth))
                self._transpose(f"{output}_parts", output, node.output.shape, (0, 2, 1, 3))
            case graph.JoinHeads():
                _, heads, length, depth = node.input.shape
                self._transpose(node.input.name, f"{output}_parts", (1, length, heads, depth), (0, 2, 1, 3))
                self._reshape(f"{output}_parts", output, node.output.shape)
            case graph.MatMul():
                turned = {1: Scalar("b", int(node.transposed))}
                self._operator("batch_matmul", [node.first.name, node.second.name], output, node.output.shape, turned)
            case graph.MeanOverSequence():
                self._mean(node.input.name, output, shape, axes=(1,), kept=False)
            case graph.Softmax():
                self._operator("softmax", [node.input.name], output, node.output.shape, {0: Scalar("f", 1.0)})

    def _conv(self, node: graph.Conv, shape: graph.Shape) -> None:
        source, padding = self._padded(node)
        depthwise = node.groups == node.input.shape[1]
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        weight = self._float(node.weight.name, np.ascontiguousarray(node.weight.array().transpose(order)))
        activation = Scalar("b", ACTIVATIONS[node.activation])
        # A depthwise convolution's options have its multiplier, 1, before the activation.
        options = {3: Scalar("i", 1), 4: activation} if depthwise else {3: activation}
        inputs = [source, weight, self._weight(node.bias)]
        name = "depthwise_conv" if depthwise else "conv"
        self._operator(name, inputs, node.output.name, shape, {**_strides(padding, node.stride), **options})

    def _padded(self, node: graph.Conv | graph.Pool) -> tuple[str, int]:
        """The image to take windows of, and how to pad it: SAME is what we mean by padding only where the stride is 1."""
        if node.padding == 0:
            return node.input.name, VALID
        if node.stride == 1 and node.size == 2 * node.padding + 1:
            return node.input.name, SAME
        name = f"{node.output.name}_padded"
        _, height, width, channels = _nhwc(node.input.shape)
        sides = np.array([[0, 0], [node.padding] * 2, [node.padding] * 2, [0, 0]], "<i4")
        shape = (1, height + 2 * node.padding, width + 2 * node.padding, channels)
        self._operator("pad", [node.input.name, self._whole(f"{name}_sides", sides)], name, shape)
        return name, VALID

    def _layer_norm(self, node: graph.LayerNorm) -> None:
        x, name, shape = node.input.name, node.output.name, node.output.shape
        one = (*shape[:-1], 1)
        epsilon = self._float(f"{name}_epsilon", np.array([node.epsilon], "<f4"))
        self._mean(x, f"{name}_mean", one, axes=(len(shape) - 1,), kept=True)
        self._operator("squared_difference", [x, f"{name}_mean"], f"{name}_squares", shape)
        self._mean(f"{name}_squares", f"{name}_variance", one, axes=(len(shape) - 1,), kept=True)
        self._operator("add", [f"{name}_variance", epsilon], f"{name}_positive", one)
        self._operator("rsqrt", [f"{name}_positive"], f"{name}_inverse", one)
        self._operator("sub", [x, f"{name}_mean"], f"{name}_centred", shape)
        self._operator("mul", [f"{name}_centred", f"{name}_inverse"], f"{name}_normal", shape)
        self._operator("mul", [f"{name}_normal", self._weight(node.scale)], f"{name}_scaled", shape)
        self._operator("add", [f"{name}_scaled", self._weight(node.shift)], name, shape)

    def _mean(self, source: str, name: str, shape: graph.Shape, *, axes: Sequence[int], kept: bool) -> None:
        over = self._whole(f"{name}_axes", np.array(axes, "<i4"))
        self._operator("mean", [source, over], name, shape, {0: Scalar("b", int(kept))})

    def _reshape(self, source: str, name: str, shape: graph.Shape) -> None:
        wanted = self._whole(f"{name}_shape", np.array(shape, "<i4"))
        self._operator("reshape", [source, wanted], name, shape, {0: Integers(shape)})

    def _transpose(self, source: str, name: str, shape: graph.Shape, order: Sequence[int]) -> None:
        self._operator("transpose", [source, self._whole(f"{name}_order", np.array(order, "<i4"))], name, shape)

    def _operator(
        self, kind: str, inputs: Sequence[str], output: str, shape: graph.Shape, options: Options | None = None
    ) -> None:
        self.variable(output, shape)
        if kind not in self._codes:
            self._codes.append(kind)
        fields: dict[int, flatbuffer.Field] = {
            0: Scalar("I", self._codes.index(kind)),
            1: Integers([self._places[name] for name in inputs]),
            2: Integers([self._places[output]]),
        }
        union = OPERATORS[kind][2]
        if union:
            fields |= {3: Scalar("B", union), 4: Table(options or {})}
        self._operators.append(Table(fields))

    def _weight(self, weight: graph.Weight) -> str:
        return self._float(weight.name, weight.array())

    def _float(self, name: str, values: graph.Array) -> str:
        return self._constant(name, values.shape, FLOAT32, values.astype("<f4").tobytes())

    def _whole(self, name: str, values: np.ndarray) -> str:
        return self._constant(name, values.shape, INT32, values.tobytes())

    def _constant(self, name: str, shape: graph.Shape, kind: int, data: bytes) -> str:
        self._buffers.append(Table({0: Data(data)}))
        self._tensor(name, shape, kind, len(self._buffers) - 1)
        return name

    def _tensor(self, name: str, shape: graph.Shape, kind: int, buffer: int) -> None:
        self._places[name] = len(self._tensors)
        self._tensors.append(Table({0: Integers(shape), 1: Scalar("b", kind), 2: Scalar("I", buffer), 3: Text(name)}))


def _code(name: str) -> Table:
    builtin, version, _ = OPERATORS[name]
    return Table({0: Scalar("b", min(builtin, 127)), 2: Scalar("i", version), 3: Scalar("i", builtin)})


def _strides(padding: int, stride: int) -> dict[int, Scalar]:
    return {0: Scalar("b", padding), 1: Scalar("i", stride), 2: Scalar("i", stride)}


def _nhwc(shape: graph.Shape) -> graph.Shape:
    if len(shape) != 4:
        return shape
    batch, channels, height, width = shape
    return (batch, height, width, channels)
