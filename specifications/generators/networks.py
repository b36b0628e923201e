#!/usr/bin/env python3
"""Writes a network with seeded weights in a framework's own format: the same bytes on every machine.

    networks.py NETWORK FORMAT PATH

The weights are drawn from SHAKE-256 and scaled by operations that IEEE 754 fixes, so that every format of a network holds the
same numbers, and a digest can be stated before the file is there. `input` is what every runner makes for itself, and `output`
what must come of it. The last digits of a computation depend on the machine, so `output` is the file that is kept beside this
program, and `computed` is for whoever makes it anew. Needs Python 3.11 and numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

sys.dont_write_bytecode = True  # specifications may be read-only, and are watched for changes

import numpy as np  # noqa: E402
from neural import architectures, caffe2, graph, onnx, reference, tflite, torchscript  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"

Piece = bytes | bytearray | memoryview


def main() -> int:
    parser = argparse.ArgumentParser(prog="networks.py", description="Writes a network with seeded weights.")
    parser.add_argument("network", choices=architectures.NETWORKS)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("path", type=Path, help="of the file to write")
    chosen = parser.parse_args()
    pieces = FORMATS[chosen.format](architectures.NETWORKS[chosen.network]())
    try:
        with chosen.path.open("wb") as file:
            file.writelines(pieces)
    except OSError as error:
        sys.stderr.write(f"networks.py: {chosen.path}: cannot be written: {error.strerror}\n")
        return 1
    return 0


def seeded(shape: graph.Shape) -> graph.Array:
    """The input that every runner makes of this shape: in [-1, 1), in steps of 2^-15."""
    stream = hashlib.shake_256(f"aibenchd 0 0 {list(shape)} float32".encode())
    numbers = np.frombuffer(stream.digest(2 * math.prod(shape)), dtype="<i2")
    return (numbers.astype(np.float32) / np.float32(32768)).reshape(shape)


def nchw(network: graph.Graph) -> list[bytes]:
    return npy(seeded(network.input.shape))


def nhwc(network: graph.Graph) -> list[bytes]:
    values = seeded(network.input.shape)
    return npy(values.transpose(0, 2, 3, 1) if values.ndim == 4 else values)


def golden(network: graph.Graph) -> list[bytes]:
    return [(GOLDEN / f"{network.name}.npy").read_bytes()]


def computed(network: graph.Graph) -> list[bytes]:
    return npy(reference.run(network, seeded(network.input.shape)))


def npy(values: graph.Array) -> list[bytes]:
    """The file of an array. numpy's own writer pads the header by its version."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {values.shape}, }}"
    padded = header + " " * (-(len(header) + 11) % 64) + "\n"
    return [b"\x93NUMPY\x01\x00", len(padded).to_bytes(2, "little"), padded.encode(), values.astype("<f4").tobytes()]


FORMATS: Mapping[str, Callable[[graph.Graph], Iterable[Piece]]] = {
    "onnx": onnx.parts,
    "tflite": tflite.parts,
    "caffe2-init": caffe2.init_parts,
    "caffe2-predict": caffe2.predict_parts,
    "torchscript": torchscript.parts,
    "input": nchw,
    "input-nhwc": nhwc,
    "output": golden,
    "computed": computed,
}

if __name__ == "__main__":
    sys.exit(main())
