"""A network as a list of operators, in terms that all formats share. Images are NCHW here; a format turns them where it must."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]

STEPS = 32768  # a weight is a whole number of this many parts of its bound


@dataclass(frozen=True, slots=True)
class Value:
    """What flows between operators: float32."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Weight:
    """Constants of a network: evenly spread in [middle - bound, middle + bound), and the same wherever they are made.

    Attributes:
        seed: what tells them from those of other networks.
        name: what tells them from others of the same network.
        bound: exact in IEEE arithmetic, so that the values are: a square root, but never a logarithm or a power.
    """

    seed: str
    name: str
    shape: Shape
    bound: float
    middle: float = 0.0

    def array(self) -> Array:
        """The values, from SHAKE-256 of seed, name and shape; one rounding for each product and sum."""
        stream = hashlib.shake_256(f"{self.seed} {self.name} {list(self.shape)}".encode())
        numbers = np.frombuffer(stream.digest(2 * math.prod(self.shape)), dtype="<i2").astype(np.float32)
        scaled = numbers * np.float32(self.bound / STEPS) + np.float32(self.middle)
        return scaled.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution over (1, C, H, W) with ``weight`` (out, in / groups, size, size), padded by zeros on all four sides."""

    input: Value
    output: Value
    weight: Weight
    bias: Weight
    stride: int
    padding: int
    groups: int
    activation: str

    @property
    def size(self) -> int:
        return self.weight.shape[2]


@dataclass(frozen=True, slots=True)
class Pool:
    """The largest, or where ``mean`` the average, of each square window of an image.

    Only what is not negative is padded, and only to look for the largest: then zeros around it change nothing. Frameworks do
    not agree on what a padded average is.
    """

    input: Value
    output: Value
    size: int
    stride: int
    padding: int
    mean: bool


@dataclass(frozen=True, slots=True)
class GlobalAverage:
    """(1, C, H, W) to (1, C)."""

    input: Value
    output: Value


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Channels in ``groups`` rows, read by columns."""

    input: Value
    output: Value
    groups: int


@dataclass(frozen=True, slots=True)
class Concat:
    """Channels of several images, one after another."""

    inputs: tuple[Value, ...]
    output: Value
    activation: str


@dataclass(frozen=True, slots=True)
class Add:
    first: Value
    second: Value
    output: Value
    activation: str


@dataclass(frozen=True, slots=True)
class Dense:
    """Rows of (…, in) times ``weight`` (out, in), transposed, and ``bias``."""

    input: Value
    output: Value
    weight: Weight
    bias: Weight


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Over the last axis, by the variance of the whole population."""

    input: Value
    output: Value
    scale: Weight
    shift: Weight
    epsilon: float


@dataclass(frozen=True, slots=True)
class Gelu:
    """The exact one, by the error function."""

    input: Value
    output: Value


@dataclass(frozen=True, slots=True)
class SplitHeads:
    """(1, T, heads * d) to (1, heads, T, d)."""

    input: Value
    output: Value


@dataclass(frozen=True, slots=True)
class JoinHeads:
    """(1, heads, T, d) to (1, T, heads * d)."""

    input: Value
    output: Value


@dataclass(frozen=True, slots=True)
class MatMul:
    """Of the last two axes, for each head; the second transposed where ``transposed``."""

    first: Value
    second: Value
    output: Value
    transposed: bool


@dataclass(frozen=True, slots=True)
class MeanOverSequence:
    """(1, T, D) to (1, D)."""

    input: Value
    output: Value


@dataclass(frozen=True, slots=True)
class Softmax:
    """Over the last axis."""

    input: Value
    output: Value


Node = (
    Conv
    | Pool
    | GlobalAverage
    | Shuffle
    | Concat
    | Add
    | Dense
    | LayerNorm
    | Gelu
    | SplitHeads
    | JoinHeads
    | MatMul
    | MeanOverSequence
    | Softmax
)


@dataclass(frozen=True, slots=True)
class Graph:
    """A network of one input and one output, its operators in an order that can be executed."""

    name: str
    input: Value
    output: Value
    nodes: tuple[Node, ...]


def weights(node: Node) -> tuple[Weight, ...]:
    """The constants of an operator."""
    match node:
        case Conv() | Dense():
            return (node.weight, node.bias)
        case LayerNorm():
            return (node.scale, node.shift)
        case _:
            return ()


class Builder:
    """Makes operators one by one; each method returns the new operator's output, named after it.

    Weights are bounded so that values keep their size through a network: ``gain`` 1 does, and less makes a branch that
    corrects rather than replaces what it is added to.
    """

    def __init__(self, network: str, shape: Shape) -> None:
        self._network = network
        self.input = Value("data", shape)
        self._nodes: list[Node] = []

    def graph(self, output: Value) -> Graph:
        return Graph(self._network, self.input, output, tuple(self._nodes))

    def conv(
        self,
        x: Value,
        name: str,
        channels: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: str = "relu",
        gain: float = 1.0,
    ) -> Value:
        _, before, height, width = x.shape
        shape = (channels, before // groups, size, size)
        output = Value(name, (1, channels, *(_windows(side, size, stride, padding) for side in (height, width))))
        weight, bias = self._linear(name, shape, gain * (math.sqrt(2) if activation else 1.0))
        self._nodes.append(Conv(x, output, weight, bias, stride, padding, groups, activation))
        return output

    def max_pool(self, x: Value, name: str, *, padding: int = 0) -> Value:
        return self._pool(x, name, 3, padding, mean=False)

    def average_pool(self, x: Value, name: str) -> Value:
        return self._pool(x, name, 2, 0, mean=True)

    def global_average(self, x: Value, name: str) -> Value:
        output = Value(name, x.shape[:2])
        self._nodes.append(GlobalAverage(x, output))
        return output

    def shuffle(self, x: Value, name: str, groups: int) -> Value:
        output = Value(name, x.shape)
        self._nodes.append(Shuffle(x, output, groups))
        return output

    def concat(self, inputs: tuple[Value, ...], name: str, activation: str = "") -> Value:
        channels = sum(x.shape[1] for x in inputs)
        output = Value(name, (1, channels, *inputs[0].shape[2:]))
        self._nodes.append(Concat(inputs, output, activation))
        return output

    def add(self, first: Value, second: Value, name: str, activation: str = "") -> Value:
        output = Value(name, first.shape)
        self._nodes.append(Add(first, second, output, activation))
        return output

    def dense(self, x: Value, name: str, size: int, *, gain: float = 1.0) -> Value:
        output = Value(name, (*x.shape[:-1], size))
        weight, bias = self._linear(name, (size, x.shape[-1]), gain)
        self._nodes.append(Dense(x, output, weight, bias))
        return output

    def layer_norm(self, x: Value, name: str) -> Value:
        scale = self._weight(f"{name}_scale", x.shape[-1:], 0.25, 1.0)
        shift = self._weight(f"{name}_shift", x.shape[-1:], 0.25)
        output = Value(name, x.shape)
        self._nodes.append(LayerNorm(x, output, scale, shift, 1e-5))
        return output

    def gelu(self, x: Value, name: str) -> Value:
        output = Value(name, x.shape)
        self._nodes.append(Gelu(x, output))
        return output

    def split_heads(self, x: Value, name: str, heads: int) -> Value:
        _, length, depth = x.shape
        output = Value(name, (1, heads, length, depth // heads))
        self._nodes.append(SplitHeads(x, output))
        return output

    def join_heads(self, x: Value, name: str) -> Value:
        _, heads, length, depth = x.shape
        output = Value(name, (1, length, heads * depth))
        self._nodes.append(JoinHeads(x, output))
        return output

    def matmul(self, first: Value, second: Value, name: str, *, transposed: bool = False) -> Value:
        columns = second.shape[-2] if transposed else second.shape[-1]
        output = Value(name, (*first.shape[:-1], columns))
        self._nodes.append(MatMul(first, second, output, transposed))
        return output

    def mean_over_sequence(self, x: Value, name: str) -> Value:
        output = Value(name, (x.shape[0], x.shape[2]))
        self._nodes.append(MeanOverSequence(x, output))
        return output

    def softmax(self, x: Value, name: str) -> Value:
        output = Value(name, x.shape)
        self._nodes.append(Softmax(x, output))
        return output

    def _pool(self, x: Value, name: str, size: int, padding: int, *, mean: bool) -> Value:
        stride = 2
        sides = (_windows(side, size, stride, padding) for side in x.shape[2:])
        output = Value(name, (*x.shape[:2], *sides))
        self._nodes.append(Pool(x, output, size, stride, padding, mean))
        return output

    def _linear(self, name: str, shape: Shape, gain: float) -> tuple[Weight, Weight]:
        inputs = math.prod(shape[1:])
        return self._weight(f"{name}_w", shape, gain * math.sqrt(3 / inputs)), self._weight(f"{name}_b", shape[:1], 0.125)

    def _weight(self, name: str, shape: Shape, bound: float, middle: float = 0.0) -> Weight:
        return Weight(f"aibenchd {self._network}", name, shape, bound, middle)


def _windows(side: int, size: int, stride: int, padding: int) -> int:
    """How many windows fit, of one side of an image."""
    return (side + 2 * padding - size) // stride + 1
