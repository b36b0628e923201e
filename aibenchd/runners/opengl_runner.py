#!/usr/bin/env python3
"""Computes the network of an ONNX file by OpenGL's compute shaders, and times that.

    opengl_runner.py --model net.onnx --warmup 3 --iterations 20 --operators

Needs common.py, onnx_file.py, onnx_model.py and opengl_operators.py beside it, moderngl, and an OpenGL 4.3 that EGL finds; no
display. Options, what is printed, and the exit status: see common.py and onnx_model.py. A run dispatches one shader or more for
each operator, and waits until all are done. The evidence names the renderer; Mesa's llvmpipe is software, and has as many threads
as ``--threads`` or else OMP_NUM_THREADS says. Drivers keep compiled shaders in a cache of the user's, so the first run ever takes
longer than that of a later process.

All numbers are float32. Which operators there are: see opengl_operators.py.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from typing import NamedTuple

import numpy as np

MYPY = False
if MYPY:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

    from aibenchd.runners import common, onnx_file, onnx_model, opengl_operators
else:
    import common
    import onnx_file
    import onnx_model
    import opengl_operators

NAME = "opengl_runner"
BACKEND = "opengl"
GROUP = 64  # invocations that OpenGL starts together
GROUPS = 65535  # the most of them along one dimension that OpenGL promises
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "SwiftShader")  # renderers that are no GPU
GOOD = "GL_NO_ERROR"

BUFFER = "layout(std430, binding = %d) buffer Buffer%d { %s %s[]; };\n"
MAIN = """
void main() {
    int i = int(gl_GlobalInvocationID.x) + ACROSS * int(gl_GlobalInvocationID.y);
    if (i >= COUNT) return;
    %s
}
"""


def main(argv: list[str] | None = None) -> int:
    return onnx_model.main(NAME, "Times a network in OpenGL's compute shaders.", (BACKEND,), load, argv)


def load(options: argparse.Namespace, inputs: list[np.ndarray]) -> OpenGlNetwork:
    """Sets LP_NUM_THREADS, where nobody has: Mesa's renderer on the CPU reads it as the context is made."""
    graph = onnx_model.graph_of(onnx_model.model_of(options))
    os.environ.setdefault("LP_NUM_THREADS", str(common.threads(options)))
    return OpenGlNetwork(context(), graph, inputs)


def context() -> Any:
    """An OpenGL that needs no display.

    Raises:
        OtherBackendError: there is none.
    """
    try:
        return importlib.import_module("moderngl").create_context(standalone=True, backend="egl", require=430)
    except Exception as error:
        raise common.OtherBackendError(f"there is no OpenGL 4.3 through EGL here: {common.first_line(error)}") from error


class Value(NamedTuple):
    """A tensor in OpenGL's memory."""

    shape: tuple[int, ...]
    buffer: Any


class Dispatch(NamedTuple):
    """One shader with what it reads and writes, in the order of its bindings, and how many groups of invocations it takes."""

    shader: Any
    buffers: Sequence[Any]
    groups: tuple[int, int]


class OpenGlNetwork(common.Network):
    """A graph as shaders, in the order of its nodes."""

    def __init__(self, gl: Any, graph: onnx_file.Graph, inputs: Sequence[np.ndarray]) -> None:
        self._gl = gl
        self._graph = graph
        self._shaders: dict[str, Any] = {}
        self._values: dict[str, Value] = {}
        self._steps: list[tuple[str, list[Dispatch]]] = []  # of each node, by its operator
        self._give(inputs)
        for node in graph.nodes:
            self._compile(node)
        self._results = {name: self.value(name) for name in graph.outputs}

    # ------------------------------------------------------------ what is measured

    def run(self) -> None:
        for _, dispatches in self._steps:
            self._dispatch(dispatches)
        self._gl.finish()
        if self._gl.error != GOOD:
            raise RuntimeError("OpenGL reports an error of what was dispatched, such as memory that ran out")

    def outputs(self) -> Mapping[str, np.ndarray]:
        return {name: np.frombuffer(one.buffer.read(), np.float32).reshape(one.shape) for name, one in self._results.items()}

    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        renderer, version = self._gl.info["GL_RENDERER"], self._gl.info["GL_VERSION"]
        kind = "software" if renderer.startswith(SOFTWARE) else "hardware"
        count = sum(len(dispatches) for _, dispatches in self._steps)
        return {BACKEND: {f"shader in {kind}, on {renderer}, OpenGL {version},": count}}

    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        found: dict[tuple[int, str], list[float]] = {}
        for _ in range(iterations):
            for index, (operator, dispatches) in enumerate(self._steps):
                started = time.perf_counter_ns()
                self._dispatch(dispatches)
                self._gl.finish()
                found.setdefault((index, operator), []).append((time.perf_counter_ns() - started) / 1000)
        return found

    def _dispatch(self, dispatches: Sequence[Dispatch]) -> None:
        for shader, buffers, groups in dispatches:
            for binding, buffer in enumerate(buffers):
                buffer.bind_to_storage_buffer(binding)
            shader.run(*groups)
            self._gl.memory_barrier()

    # ------------------------------------------------------------ for who makes shaders of nodes

    @property
    def version(self) -> int:
        """Of ONNX's operators that the graph is made of."""
        return self._graph.version

    def value(self, name: str) -> Value:
        """An input, a weight, or what an earlier node gave."""
        if name not in self._values:
            self._values[name] = self.upload(self.constant(name))
        return self._values[name]

    def constant(self, name: str) -> np.ndarray:
        """A weight, on this side of OpenGL.

        Raises:
            UnusableError: it is computed by the network.
        """
        if name not in self._graph.weights:
            raise common.UnusableError(f"{name} is expected to be a weight, and is none")
        return self._graph.weights[name]

    def upload(self, values: np.ndarray) -> Value:
        """In the order of C, as float32 whatever they were."""
        content = np.ascontiguousarray(values, np.float32).tobytes()
        return Value(values.shape, self._gl.buffer(content or bytes(4)))

    def alias(self, name: str, source: Value, shape: Sequence[int]) -> None:
        """Nothing is computed: the same numbers in another shape."""
        if math.prod(shape) != math.prod(source.shape):
            raise common.UnusableError(f"{name}: the shape {list(source.shape)} cannot become {list(shape)}")
        self._values[name] = Value(tuple(shape), source.buffer)

    def reserve(self, name: str, shape: Sequence[int]) -> Value:
        """Memory for what a shader will give, of float32; from now on ``name`` stands for it."""
        self._values[name] = Value(tuple(shape), self._gl.buffer(reserve=4 * max(1, math.prod(shape))))
        return self._values[name]

    def add(self, body: str, count: int, values: Sequence[Value], target: Value, **names: float | str) -> None:
        """A shader of the present node's: ``body`` for each ``i`` below ``count``, from ``a``, ``b``, ``c`` to ``y``.

        Args:
            names: what names in the body stand for. ``VECTOR`` is the type of the elements of ``b`` and ``c``.
        """
        groups = max(1, -(-count // GROUP))
        across = min(groups, GROUPS)
        defined = {"VECTOR": "float", **names, "ACROSS": across * GROUP, "COUNT": count}
        source = "".join(
            [
                opengl_operators.HEAD.format(GROUP),
                *(f"#define {name} {value}\n" for name, value in defined.items()),
                *(BUFFER % (place, place, "VECTOR" if place else "float", "abc"[place]) for place in range(len(values))),
                BUFFER % (len(values), len(values), "float", "y"),
                MAIN % body,
            ]
        )
        if source not in self._shaders:
            self._shaders[source] = self._gl.compute_shader(source)
        buffers = [*(value.buffer for value in values), target.buffer]
        self._steps[-1][1].append(Dispatch(self._shaders[source], buffers, (across, -(-groups // across))))

    # ------------------------------------------------------------

    def _give(self, inputs: Sequence[np.ndarray]) -> None:
        """Put the inputs into OpenGL's memory, where no shader writes to them."""
        expected = list(self._graph.inputs)
        if len(inputs) != len(expected):
            raise common.UnusableError(f"the network takes {len(expected)} inputs ({', '.join(expected)}), not {len(inputs)}")
        for name, value in zip(expected, inputs):  # noqa: B905  Python 3.9
            if value.dtype != np.float32:
                raise common.UnusableError(f"its input {name} is {value.dtype}; here all numbers are float32")
            self._values[name] = self.upload(value)

    def _compile(self, node: onnx_file.Node) -> None:
        """Add what computes a node; nothing where only its shape changes."""
        self._steps.append((node.operator, []))
        try:
            opengl_operators.compile(self, node)
        except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            problem = f"{type(error).__name__}: {common.first_line(error)}"
            raise common.UnusableError(f"the node {node.name!r} is not what ONNX has as {node.operator}: {problem}") from error
        if not self._steps[-1][1]:
            self._steps.pop()


if __name__ == "__main__":
    sys.exit(main())
