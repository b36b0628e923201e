"""An engine on ONNX Runtime, which writes the network that this runs."""

from __future__ import annotations

from collections.abc import Sequence

from aibenchd import model
from aibenchd.demo import history

GRAPH = '''"""Writes a network as ONNX has it, which is a Protocol Buffers message."""


class Graph:
    """Nodes and weights, in the order in which they are added."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, values):
        """The name of a weight. Whole numbers are sizes and places; all else is float32."""
        whole = values.dtype.kind == "i"
        name = f"weight{len(self.weights)}"
        sizes = b"".join(field(1, size) for size in values.shape)
        content = values.astype("<i8" if whole else "<f4").tobytes()
        self.weights.append(sizes + field(2, 7 if whole else 1) + field(8, name) + field(9, content))
        return name

    def add(self, operator, *inputs, **attributes):
        """The name of what a node gives."""
        return self.split(operator, 1, *inputs, **attributes)[0]

    def split(self, operator, count, *inputs, **attributes):
        """The names of all that a node gives."""
        names = [f"value{len(self.nodes)}_{place}" for place in range(count)]
        node = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in names)
        given = b"".join(field(5, attribute(name, value)) for name, value in attributes.items())
        self.nodes.append(node + field(4, operator) + given)
        return names

    def file(self, source, shape, result):
        """The bytes of a file: the network takes ``source``, and gives ``result``."""
        sizes = b"".join(field(1, field(1, size)) for size in shape)
        graph = b"".join(field(1, node) for node in self.nodes) + field(2, "engine")
        graph += b"".join(field(5, weight) for weight in self.weights)
        graph += field(11, field(1, source) + field(2, field(1, field(1, 1) + field(2, sizes))))
        graph += field(12, field(1, result) + field(2, field(1, field(1, 1))))
        return field(1, 9) + field(7, graph) + field(8, field(1, "") + field(2, 20))


def attribute(name, value):
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    return field(1, name) + b"".join(field(8, one) for one in value) + field(20, 7)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
'''

NETWORK = '''"""A SqueezeNet, layer by layer."""

import numpy

from engine.graph import Graph

FIRES = (
    ((64, 16, 64), (128, 16, 64)),
    ((128, 32, 128), (256, 32, 128)),
    ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
)
END = 2**31 - 1


class Network:
    def __init__(self):
        self.graph, self.random = Graph(), numpy.random.default_rng(1)

    def convolution(self, x, inputs, outputs, kernel, stride=1):
        deviation = (2 / (inputs * kernel * kernel)) ** 0.5
        weight = self.random.standard_normal((outputs, inputs, kernel, kernel)) * deviation
        scale, shift = self.random.random((outputs, 1, 1)) + 0.5, self.random.standard_normal((outputs, 1, 1)) * 0.1
        x = self.convolve(x, weight, stride)
        x = self.graph.add("Mul", x, self.graph.weight(scale))
        x = self.graph.add("Add", x, self.graph.weight(shift))
        return self.graph.add("Relu", x)

    def convolve(self, x, weight, stride):
        kernel = weight.shape[-1]
        x = self.graph.add("Pad", x, self.graph.weight(numpy.array([0, 0, kernel // 2, kernel // 2] * 2)))
        places = [(row, column) for row in range(kernel) for column in range(kernel)]
        return self.graph.add("Sum", *(self.part(x, weight, stride, *place) for place in places))

    def part(self, x, weight, stride, row, column):
        ends = [place - weight.shape[-1] + 1 or END for place in (row, column)]
        cut = [self.graph.weight(numpy.array(numbers)) for numbers in ((row, column), ends, (2, 3), (stride, stride))]
        return self.graph.add("Conv", self.graph.add("Slice", x, *cut), self.graph.weight(weight[:, :, row, column, None, None]))

    def fire(self, x, inputs, squeezed, expanded):
        x = self.convolution(x, inputs, squeezed, 1)
        sides = [self.convolution(x, squeezed, expanded, kernel) for kernel in (1, 3)]
        return self.graph.add("Concat", *sides, axis=1)


def squeezenet():
    network = Network()
    graph = network.graph
    x = network.convolution("picture", 3, 64, 3, 2)
    for stage in FIRES:
        x = graph.add("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2))
        for shape in stage:
            x = network.fire(x, *shape)
    x = graph.add("GlobalAveragePool", network.convolution(x, 512, 1000, 1))
    return graph.file("picture", (1, 3, 96, 96), graph.add("Softmax", graph.add("Flatten", x), axis=1))
'''

README = "# engine\n\nRuns a SqueezeNet on ONNX Runtime.\n"

COMMITS: Sequence[history.Commit] = (
    history.Commit(
        "Run a SqueezeNet",
        (
            history.Edit("engine/graph.py", "", GRAPH),
            history.Edit("engine/__init__.py", "", NETWORK),
            history.Edit("README.md", "", README),
        ),
        None,
    ),
    history.Commit(
        "Say what the engine needs",
        (history.Edit("README.md", "on ONNX Runtime.\n", "on ONNX Runtime; else it needs numpy.\n"),),
        model.Verdict.IDENTICAL,
    ),
    history.Commit(
        "Give the fire modules a name that says what they do",
        (
            history.Edit("engine/__init__.py", "def fire(self,", "def squeeze_expand(self,"),
            history.Edit("engine/__init__.py", "network.fire(", "network.squeeze_expand("),
        ),
        model.Verdict.UNCHANGED,
    ),
    history.Commit(
        "Refuse a number that no file can hold",
        (
            history.Edit(
                "engine/graph.py",
                "def varint(value):\n",
                "def varint(value):\n"
                "    if not 0 <= value < 2**64:\n"
                '        raise ValueError(f"expected a number of 64 bits, not {value}")\n',
            ),
        ),
        model.Verdict.UNCHANGED,
    ),
    history.Commit(
        "Keep each channel of a layer in a place of its own",
        (
            history.Edit(
                "engine/__init__.py",
                'return self.graph.add("Relu", x)\n',
                'return self.collected(self.graph.add("Relu", x), outputs)\n\n'
                "    def collected(self, x, channels):\n"
                '        places = self.graph.split("Split", channels, x, axis=1, num_outputs=channels)\n'
                '        return self.graph.add("Concat", *places, axis=1)\n',
            ),
        ),
        model.Verdict.REGRESSED,
    ),
    history.Commit(
        "Leave convolution and memory to the library",
        (
            history.Edit(
                "engine/__init__.py",
                'return self.collected(self.graph.add("Relu", x), outputs)\n\n'
                "    def collected(self, x, channels):\n"
                '        places = self.graph.split("Split", channels, x, axis=1, num_outputs=channels)\n'
                '        return self.graph.add("Concat", *places, axis=1)\n',
                'return self.graph.add("Relu", x)\n',
            ),
            history.Edit(
                "engine/__init__.py",
                "        kernel = weight.shape[-1]\n"
                '        x = self.graph.add("Pad", x, self.graph.weight(numpy.array([0, 0, kernel // 2, kernel // 2] * 2)))\n'
                "        places = [(row, column) for row in range(kernel) for column in range(kernel)]\n"
                '        return self.graph.add("Sum", *(self.part(x, weight, stride, *place) for place in places))\n\n'
                "    def part(self, x, weight, stride, row, column):\n"
                "        ends = [place - weight.shape[-1] + 1 or END for place in (row, column)]\n"
                "        cut = [self.graph.weight(numpy.array(numbers))"
                " for numbers in ((row, column), ends, (2, 3), (stride, stride))]\n"
                '        return self.graph.add("Conv", self.graph.add("Slice", x, *cut),'
                " self.graph.weight(weight[:, :, row, column, None, None]))\n",
                "        edges = [weight.shape[-1] // 2] * 4\n"
                '        return self.graph.add("Conv", x, self.graph.weight(weight), pads=edges, strides=(stride, stride))\n',
            ),
            history.Edit("engine/__init__.py", "END = 2**31 - 1\n", ""),
        ),
        model.Verdict.IMPROVED,
    ),
    history.Commit(
        "Call the stages stages",
        (
            history.Edit("engine/__init__.py", "FIRES = (", "STAGES = ("),
            history.Edit("engine/__init__.py", "for stage in FIRES:", "for stage in STAGES:"),
        ),
        model.Verdict.UNCHANGED,
    ),
    history.Commit(
        "Tell how to run it",
        (history.Edit("README.md", "needs numpy.\n", "needs numpy.\n\n    from engine import squeezenet\n"),),
        model.Verdict.IDENTICAL,
    ),
)

ONNXRUNTIME = history.Engine(
    "onnxruntime",
    COMMITS,
    "{program} --module engine:squeezenet --input-dims 1,3,96,96 --warmup {warmup} --iterations {iter} --threads 1",
    60,
)
