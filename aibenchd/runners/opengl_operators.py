"""ONNX's operators as OpenGL's compute shaders: for each a body in GLSL, and how many invocations of it there are.

The names in capitals that a body has are given with it. Attributes that no shader heeds are refused, but for those whose value
asks for nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

MYPY = False
if MYPY:
    from collections.abc import Callable, Sequence

    from aibenchd.runners import common, onnx_file
    from aibenchd.runners.opengl_runner import OpenGlNetwork, Value
else:
    import common

PIXELS = 4  # of one row that an invocation of the convolution computes
ROWS = 4  # of one column that an invocation of the product of matrices computes
MOST = 3.4e38  # near the largest float32

# GLSL has no error function: Abramowitz and Stegun's 7.1.26, within 1.5e-7.
HEAD = """#version 430
layout(local_size_x = {}) in;
float error_function(float v) {{
    float t = 1.0 / (1.0 + 0.3275911 * abs(v));
    float sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(v) * (1.0 - sum * exp(-v * v));
}}
"""

CONVOLUTION = """
    int ox = i % COLUMNS * PIXELS, oy = i / COLUMNS % HEIGHT;
    int block = i / (COLUMNS * HEIGHT) % BLOCKS, image = i / (COLUMNS * HEIGHT * BLOCKS);
    int first = (image * CHANNELS + block * LANES / OF_GROUP * TAKEN) * IN_HEIGHT * IN_WIDTH;
    VECTOR sums[PIXELS];
    for (int p = 0; p < PIXELS; p++) sums[p] = c[block];
    for (int k = 0; k < TAKEN; k++)
        for (int r = 0; r < KERNEL_Y; r++) {
            int row = oy * STRIDE_Y + r * DILATION_Y - PAD_Y;
            if (row < 0 || row >= IN_HEIGHT) continue;
            for (int s = 0; s < KERNEL_X; s++) {
                VECTOR weight = b[((block * TAKEN + k) * KERNEL_Y + r) * KERNEL_X + s];
                for (int p = 0; p < PIXELS; p++) {
                    int column = (ox + p) * STRIDE_X + s * DILATION_X - PAD_X;
                    if (column < 0 || column >= IN_WIDTH) continue;
                    sums[p] += a[first + (k * IN_HEIGHT + row) * IN_WIDTH + column] * weight;
                }
            }
        }
    for (int p = 0; p < PIXELS && ox + p < WIDTH; p++)
        for (int lane = 0; lane < LANES; lane++)
            y[(((image * BLOCKS + block) * LANES + lane) * HEIGHT + oy) * WIDTH + ox + p] = SUM;
"""

POOL = """
    int ox = i % WIDTH, oy = i / WIDTH % HEIGHT, plane = i / (WIDTH * HEIGHT), count = 0;
    float result = START;
    for (int r = 0; r < KERNEL_Y; r++)
        for (int s = 0; s < KERNEL_X; s++) {
            int row = oy * STRIDE_Y + r * DILATION_Y - PAD_Y, column = ox * STRIDE_X + s * DILATION_X - PAD_X;
            if (row < 0 || row >= IN_HEIGHT || column < 0 || column >= IN_WIDTH) continue;
            float value = a[(plane * IN_HEIGHT + row) * IN_WIDTH + column];
            result = JOINED;
            count++;
        }
    y[i] = RESULT;
"""

PRODUCT = """
    int column = i % WIDTH, first = i / WIDTH % BLOCKS * ROWS, batch = i / (WIDTH * BLOCKS);
    float sums[ROWS];
    for (int r = 0; r < ROWS; r++) sums[r] = 0.0;
    for (int k = 0; k < LENGTH; k++) {
        float right = b[((SECOND) * LENGTH + k) * WIDTH + column];
        for (int r = 0; r < ROWS; r++) sums[r] += a[((FIRST) * HEIGHT + min(first + r, HEIGHT - 1)) * LENGTH + k] * right;
    }
    for (int r = 0; r < ROWS && first + r < HEIGHT; r++) y[(batch * HEIGHT + first + r) * WIDTH + column] = sums[r];
"""

# Of a line of LENGTH numbers that lie INNER apart, from `base` on.
BASE = "int base = i / INNER * LENGTH * INNER + i % INNER;"
MEAN = """
    float sum = 0.0;
    for (int k = 0; k < LENGTH; k++) sum += a[base + k * INNER];
    y[i] = sum / float(LENGTH);
"""
SOFTMAX = """
    float most = a[base], sum = 0.0;
    for (int k = 1; k < LENGTH; k++) most = max(most, a[base + k * INNER]);
    for (int k = 0; k < LENGTH; k++) sum += exp(a[base + k * INNER] - most);
    for (int k = 0; k < LENGTH; k++) y[base + k * INNER] = exp(a[base + k * INNER] - most) / sum;
"""
LAYER_NORMALIZATION = """
    float mean = 0.0, square = 0.0;
    for (int k = 0; k < LENGTH; k++) mean += a[base + k] / float(LENGTH);
    for (int k = 0; k < LENGTH; k++) square += (a[base + k] - mean) * (a[base + k] - mean) / float(LENGTH);
    for (int k = 0; k < LENGTH; k++) y[base + k] = (a[base + k] - mean) * inversesqrt(square + EPSILON) * b[k] + c[k];
"""

ELEMENT = "float v = a[i]; y[i] = RESULT;"
PAIR = "float v = a[FIRST], w = b[SECOND]; y[i] = RESULT;"
COPY = "y[TO] = a[FROM];"
CHANNEL = "int channel = i / PLANE % CHANNELS; y[i] = a[i] * b[channel] + c[channel];"

ELEMENTS = {
    "Relu": "max(v, 0.0)",
    "Sigmoid": "1.0 / (1.0 + exp(-v))",
    "Tanh": "tanh(v)",
    "Erf": "error_function(v)",
    "Gelu": "0.5 * v * (1.0 + error_function(v * 0.70710678))",
    "HardSwish": "v * clamp(v / 6.0 + 0.5, 0.0, 1.0)",
    "Exp": "exp(v)",
    "Sqrt": "sqrt(v)",
    "Neg": "-v",
    "Abs": "abs(v)",
}
PAIRS = {"Add": "v + w", "Sub": "v - w", "Mul": "v * w", "Div": "v / w"}


def compile(network: OpenGlNetwork, node: onnx_file.Node) -> None:  # noqa: A001  what it does
    """Add the shaders of a node to a network.

    Raises:
        UnusableError: there are none for it.
    """
    if node.operator not in OPERATORS:
        raise common.UnusableError(f"there is no shader for {node.operator}; there are {', '.join(sorted(OPERATORS))}")
    operator = OPERATORS[node.operator]
    for name, value in node.attributes.items():
        if name not in operator.attributes.split() and (name not in NOTHING or value != NOTHING[name]):
            raise common.UnusableError(f"there is no shader for {node.operator} with {name} = {value}")
    operator.make(network, node)


# ---------------------------------------------------------------- element by element


def element(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    _element(network, node, ELEMENTS[node.operator])


def clip(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Its bounds are attributes, or inputs that must be weights."""
    least, most = node.attributes.get("min", -MOST), node.attributes.get("max", MOST)
    least, most = (
        float(network.constant(name).reshape(())) if name else default
        for name, default in zip([*node.inputs[1:], "", ""], (least, most))  # noqa: B905  Python 3.9
    )
    _element(network, node, f"clamp(v, float({least}), float({most}))")


def _element(network: OpenGlNetwork, node: onnx_file.Node, result: str) -> None:
    x = network.value(node.inputs[0])
    network.add(ELEMENT, math.prod(x.shape), [x], network.reserve(node.outputs[0], x.shape), RESULT=result)


def pair(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Broadcast as NumPy does it; ValueError where the shapes do not allow that."""
    first, second = (network.value(name) for name in node.inputs)
    shape = np.broadcast_shapes(first.shape, second.shape)
    network.add(
        PAIR,
        math.prod(shape),
        [first, second],
        network.reserve(node.outputs[0], shape),
        FIRST=_place(shape, _stretched(first.shape, shape)),
        SECOND=_place(shape, _stretched(second.shape, shape)),
        RESULT=PAIRS[node.operator],
    )


def batch_normalization(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """What is learned and what is known of the data becomes one factor and one summand for each channel."""
    x = network.value(node.inputs[0])
    scale, shift, mean, variance = (network.constant(name) for name in node.inputs[1:])
    factor = scale / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5)))
    network.add(
        CHANNEL,
        math.prod(x.shape),
        [x, network.upload(factor), network.upload(shift - mean * factor)],
        network.reserve(node.outputs[0], x.shape),
        PLANE=math.prod(x.shape[2:]),
        CHANNELS=x.shape[1],
    )


# ---------------------------------------------------------------- windows


def convolution(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """An invocation computes PIXELS neighbours in one or four channels, so that a number that is read serves more than once."""
    x, weight = network.value(node.inputs[0]), network.constant(node.inputs[1])
    groups = node.attributes.get("group", 1)
    if weight.ndim != 4 or len(x.shape) != 4 or x.shape[1] != weight.shape[1] * groups:
        raise common.UnusableError(f"there is no shader for a kernel {list(weight.shape)} over {list(x.shape)}")
    outputs, taken = weight.shape[:2]
    lanes = 1 if outputs // groups % 4 else 4
    packed = weight.reshape(outputs // lanes, lanes, *weight.shape[1:]).transpose(0, 2, 3, 4, 1)
    bias = network.value(node.inputs[2]) if len(node.inputs) > 2 else network.upload(np.zeros(outputs))
    moves, (height, width) = _window(node, x.shape, weight.shape[2:])
    columns = -(-width // PIXELS)
    network.add(
        CONVOLUTION,
        x.shape[0] * outputs // lanes * height * columns,
        [x, network.upload(packed), bias],
        network.reserve(node.outputs[0], (x.shape[0], outputs, height, width)),
        **moves,
        PIXELS=PIXELS,
        COLUMNS=columns,
        BLOCKS=outputs // lanes,
        CHANNELS=x.shape[1],
        OF_GROUP=outputs // groups,
        TAKEN=taken,
        LANES=lanes,
        VECTOR="vec4" if lanes == 4 else "float",
        SUM="sums[p][lane]" if lanes == 4 else "sums[p]",
    )


def max_pool(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    _pool(network, node, START=-MOST, JOINED="max(result, value)", RESULT="result")


def average_pool(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Over what lies in the picture, and over padding too with ``count_include_pad``."""
    count = "(KERNEL_Y * KERNEL_X)" if node.attributes.get("count_include_pad") else "count"
    _pool(network, node, START=0.0, JOINED="result + value", RESULT=f"result / float({count})")


def _pool(network: OpenGlNetwork, node: onnx_file.Node, **result: float | str) -> None:
    x = network.value(node.inputs[0])
    if len(x.shape) != 4 or len(node.outputs) != 1:
        raise common.UnusableError(f"there is no shader for {node.operator} over {list(x.shape)} to {len(node.outputs)} outputs")
    moves, size = _window(node, x.shape, node.attributes["kernel_shape"])
    target = network.reserve(node.outputs[0], (*x.shape[:2], *size))
    network.add(POOL, math.prod(target.shape), [x], target, **moves, **result)


def _window(node: onnx_file.Node, shape: Sequence[int], kernel: Sequence[int]) -> tuple[dict[str, int], tuple[int, int]]:
    """How a kernel moves over a picture, by the names that shaders have for it; the height and width that come of it."""
    strides, dilations = (node.attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
    pads = node.attributes.get("pads", [0, 0, 0, 0])
    height, width = (
        (shape[2 + axis] + pads[axis] + pads[2 + axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        for axis in (0, 1)
    )
    names = {"IN_HEIGHT": shape[2], "IN_WIDTH": shape[3], "HEIGHT": height, "WIDTH": width}
    for name, (of_rows, of_columns, *_) in {"KERNEL": kernel, "STRIDE": strides, "DILATION": dilations, "PAD": pads}.items():
        names[f"{name}_Y"], names[f"{name}_X"] = of_rows, of_columns
    return names, (height, width)


# ---------------------------------------------------------------- products of matrices


def matmul(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Of matrices, or of stacks of them, which are broadcast; UnusableError for vectors."""
    _product(network, node.inputs, node.outputs[0])


def gemm(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Any summand that can be broadcast; factors other than 1 are refused before."""
    names = list(node.inputs[:2])
    for place, flag in enumerate(("transA", "transB")):
        if node.attributes.get(flag):
            matrix = network.value(names[place])
            names[place] = f"{node.outputs[0]}, turned {place}"
            _rearrange(network, matrix, network.reserve(names[place], matrix.shape[::-1]), (1, matrix.shape[1]))
    if len(node.inputs) == 2:
        _product(network, names, node.outputs[0])
        return
    summand = f"{node.outputs[0]}, product"
    _product(network, names, summand)
    pair(network, node._replace(operator="Add", inputs=[summand, node.inputs[2]]))


def _product(network: OpenGlNetwork, names: Sequence[str], target: str) -> None:
    """An invocation computes ROWS numbers of a column."""
    first, second = (network.value(name) for name in names)
    if min(len(first.shape), len(second.shape)) < 2 or first.shape[-1] != second.shape[-2]:
        raise common.UnusableError(f"there is no shader for the product of {list(first.shape)} and {list(second.shape)}")
    (height, length), width = first.shape[-2:], second.shape[-1]
    batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    blocks = -(-height // ROWS)
    network.add(
        PRODUCT,
        math.prod(batch) * blocks * width,
        [first, second],
        network.reserve(target, (*batch, height, width)),
        ROWS=ROWS,
        HEIGHT=height,
        WIDTH=width,
        LENGTH=length,
        BLOCKS=blocks,
        FIRST=_place(batch, _stretched(first.shape[:-2], batch), "batch"),
        SECOND=_place(batch, _stretched(second.shape[:-2], batch), "batch"),
    )


# ---------------------------------------------------------------- lines


def global_average_pool(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    shape = network.value(node.inputs[0]).shape
    _line(network, node, MEAN, range(2, len(shape)), (*shape[:2], *[1] * (len(shape) - 2)))


def reduce_mean(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Axes are an attribute, or from version 18 of the operators on an input that must be a weight; they must be neighbours."""
    shape = network.value(node.inputs[0]).shape
    given = network.constant(node.inputs[1]).tolist() if len(node.inputs) > 1 else node.attributes.get("axes")
    axes = sorted(axis % len(shape) for axis in given or range(len(shape)))
    kept = [1] if node.attributes.get("keepdims", 1) else []
    result = [one for axis, size in enumerate(shape) for one in (kept if axis in axes else [size])]
    _line(network, node, MEAN, axes, result)


def softmax(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Up to version 12 of the operators, over all axes from the one that is named on."""
    shape = network.value(node.inputs[0]).shape
    old = network.version < 13
    first = node.attributes.get("axis", 1 if old else -1) % len(shape)
    _line(network, node, SOFTMAX, range(first, len(shape) if old else first + 1), shape)


def layer_normalization(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """Over all axes from the one that is named on; UnusableError where mean or deviation are outputs too."""
    shape = network.value(node.inputs[0]).shape
    first = node.attributes.get("axis", -1) % len(shape)
    names = [*node.inputs, ""][1:3]
    scale = network.value(names[0])
    shift = network.value(names[1]) if names[1] else network.upload(np.zeros(scale.shape))
    epsilon = node.attributes.get("epsilon", 1e-5)
    _line(network, node, LAYER_NORMALIZATION, range(first, len(shape)), shape, scale, shift, EPSILON=epsilon)


def _line(
    network: OpenGlNetwork,
    node: onnx_file.Node,
    body: str,
    axes: Sequence[int],
    shape: Sequence[int],
    *values: Value,
    **names: float,
) -> None:
    """An invocation computes all that comes of one line along ``axes``, which follow one another."""
    x = network.value(node.inputs[0])
    if list(axes) != list(range(axes[0], axes[-1] + 1)) or len(node.outputs) != 1:
        raise common.UnusableError(
            f"there is no shader for {node.operator} over axes {list(axes)} to {len(node.outputs)} outputs"
        )
    length, inner = math.prod(x.shape[axes[0] : axes[-1] + 1]), math.prod(x.shape[axes[-1] + 1 :])
    count = math.prod(x.shape) // length
    network.add(BASE + body, count, [x, *values], network.reserve(node.outputs[0], shape), LENGTH=length, INNER=inner, **names)


# ---------------------------------------------------------------- shapes


def concat(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    values = [network.value(name) for name in node.inputs]
    axis = node.attributes["axis"] % len(values[0].shape)
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    target, before = network.reserve(node.outputs[0], shape), 0
    for value in values:
        to = f"{before * math.prod(shape[axis + 1 :])} + {_place(value.shape, _strides(shape))}"
        network.add(COPY, math.prod(value.shape), [value], target, TO=to, FROM="i")
        before += value.shape[axis]


def transpose(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    x = network.value(node.inputs[0])
    order = node.attributes.get("perm", range(len(x.shape))[::-1])
    strides = _strides(x.shape)
    target = network.reserve(node.outputs[0], [x.shape[axis] for axis in order])
    _rearrange(network, x, target, [strides[axis] for axis in order])


def _rearrange(network: OpenGlNetwork, source: Value, target: Value, strides: Sequence[int]) -> None:
    network.add(COPY, math.prod(target.shape), [source], target, TO="i", FROM=_place(target.shape, strides))


def reshape(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """To a shape that must be a weight: 0 keeps the size of an axis, -1 takes what is left. Nothing is computed."""
    x = network.value(node.inputs[0])
    wanted = network.constant(node.inputs[1]).tolist()
    shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in shape:
        shape[shape.index(-1)] = math.prod(x.shape) // max(1, -math.prod(shape))
    network.alias(node.outputs[0], x, shape)


def flatten(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    """To two axes: those before the one that is named, and those from it on. Nothing is computed."""
    x = network.value(node.inputs[0])
    axis = node.attributes.get("axis", 1)
    network.alias(node.outputs[0], x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def identity(network: OpenGlNetwork, node: onnx_file.Node) -> None:
    x = network.value(node.inputs[0])
    network.alias(node.outputs[0], x, x.shape)


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _stretched(shape: Sequence[int], to: Sequence[int]) -> list[int]:
    """Strides of a tensor that is broadcast: 0 along axes of size 1 and those that it lacks."""
    own = [0 if size == 1 else stride for size, stride in zip(shape, _strides(shape))]  # noqa: B905  Python 3.9
    return [0] * (len(to) - len(shape)) + own


def _place(shape: Sequence[int], strides: Sequence[int], index: str = "i") -> str:
    """GLSL for where the element lies that is number ``index`` of ``shape``, in memory with ``strides``."""
    if list(strides) == _strides(shape):
        return index
    below = _strides(shape)
    terms = [f"{index} / {below[axis]} % {shape[axis]} * {stride}" for axis, stride in enumerate(strides) if stride]
    return " + ".join(terms) or "0"


class Operator(NamedTuple):
    """What makes its shaders, and the attributes that this heeds."""

    make: Callable[[OpenGlNetwork, onnx_file.Node], None]
    attributes: str = ""


NOTHING = {  # attributes that ask for nothing, where they have these values
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "storage_order": 0,
    "approximate": "none",
    "allowzero": 0,
    "alpha": 1.0,
    "beta": 1.0,
    "training_mode": 0,
    "spatial": 1,
    "noop_with_empty_axes": 0,
    "stash_type": 1,
}
OPERATORS = {
    **dict.fromkeys(ELEMENTS, Operator(element)),
    **dict.fromkeys(PAIRS, Operator(pair)),
    "AveragePool": Operator(average_pool, "kernel_shape strides pads dilations count_include_pad"),
    "BatchNormalization": Operator(batch_normalization, "epsilon momentum"),
    "Clip": Operator(clip, "min max"),
    "Concat": Operator(concat, "axis"),
    "Conv": Operator(convolution, "kernel_shape strides pads dilations group"),
    "Flatten": Operator(flatten, "axis"),
    "Gemm": Operator(gemm, "transA transB"),
    "GlobalAveragePool": Operator(global_average_pool),
    "Identity": Operator(identity),
    "LayerNormalization": Operator(layer_normalization, "axis epsilon"),
    "MatMul": Operator(matmul),
    "MaxPool": Operator(max_pool, "kernel_shape strides pads dilations"),
    "ReduceMean": Operator(reduce_mean, "axes keepdims"),
    "Reshape": Operator(reshape),
    "Softmax": Operator(softmax, "axis"),
    "Transpose": Operator(transpose, "perm"),
}
