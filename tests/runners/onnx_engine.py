"""Small networks for the runners of ONNX files, as a watched repository would make them."""

import tempfile
from pathlib import Path

import numpy as np
import onnxfile
from onnxfile import Node

NODES = [Node("Conv", ["x", "w"], ["c"]), Node("Relu", ["c"], ["y"])]
WEIGHT = np.linspace(-1, 1, 4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)


def net() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return Path(path(directory)).read_bytes()


def path(directory: str = "") -> str:
    where = Path(directory or tempfile.gettempdir()) / "net.onnx"
    return str(onnxfile.write(where, NODES, {"x": ("float32", [1, 3, 8, 8])}, ["y"], {"w": WEIGHT}))


def no_graph() -> bytes:
    return b"no\ngraph"


def number() -> int:
    return 3


def failing() -> bytes:
    raise RuntimeError("weights are missing")
