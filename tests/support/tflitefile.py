"""Small networks in files of TensorFlow Lite. Needs ai-edge-litert, whose schema it writes them by."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHAPE = (1, 8, 8, 3)
OF_TWO = ("ADD", "FLOOR_MOD")  # operators that take two inputs


def write(path: Path, operators: Sequence[str], kind: str = "FLOAT32", inputs: Sequence[str] = ("input",)) -> Path:
    """A chain of operators of TensorFlow Lite's names, from the first input to an output called ``output``.

    Operators of two inputs take the network's last one beside the chain, which is the first where there is one alone.
    """
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    network, graph = schema.ModelT(), schema.SubGraphT()
    network.version, network.subgraphs, network.buffers = 3, [graph], [schema.BufferT()]
    network.operatorCodes, graph.tensors, graph.operators, graph.name = [], [], [], "main"

    def tensor(name: str) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(SHAPE), getattr(schema.TensorType, kind)
        if kind in ("INT8", "UINT8"):
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [0.5], [0]
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    graph.inputs = [tensor(name) for name in inputs]
    last = graph.inputs[0]
    for index, name in enumerate(operators):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2 if kind == "INT8" else 1
        network.operatorCodes.append(code)
        operator.opcodeIndex = index
        operator.inputs = [last, graph.inputs[-1]] if name in OF_TWO else [last]
        last = tensor("output" if index == len(operators) - 1 else f"{name}_{index}")
        operator.outputs = [last]
        graph.operators.append(operator)
    graph.outputs = [last]
    builder = importlib.import_module("flatbuffers").Builder(1024)
    builder.Finish(network.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path
