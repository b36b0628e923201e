"""A small network for Hexagon: its sources in ``tests/data/hexagon``, what builds and runs it, and what numpy makes of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "data" / "hexagon"
BUILD = ROOT / "specifications" / "frameworks" / "generic" / "hexagon" / "build.sh"
PACKAGES = {"qemu-hexagon": "qemu-user", "clang": "clang", "ld.lld": "lld", "make": "make"}
CHANNELS, SIDE = 8, 16
METRICS: list[dict[str, Any]] = [
    {"pattern": r"^(?P<type>NET|ID_\w+): (?P<value>\d+) packets$", "metric": "latency", "unit": "packets"},
    {"pattern": r"^(?P<metric>checksum): (?P<value>\d+)$", "type": "OUTPUT"},
    {"pattern": r"^backend (?P<text>\w+)$", "type": "NET", "metric": "backend"},
]
DEVICE: dict[str, Any] = {
    "name": "hexagon",
    "kind": "vendor",
    "platform": "hexagon",
    "backends": ["dsp"],
    "run": ["qemu-hexagon", "{program}", "{arguments}"],
    "metrics": METRICS,
    "minimum_free": "1MiB",
}

_lacking = sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None)
needed = pytest.mark.skipif(bool(_lacking), reason=f"not installed: {' '.join(_lacking)} (apt-get install {' '.join(_lacking)})")


def build(directory: Path) -> Path:
    """The program, built from a copy of its sources."""
    source, program = directory / "source", directory / "network"
    shutil.copytree(SOURCES, source)
    subprocess.run([BUILD, source, program], check=True, capture_output=True)
    return program


def write_arrays(directory: Path, seed: int = 7) -> tuple[Path, Path, npt.NDArray[np.int32]]:
    """Files of weights and of an input, drawn from the seed, and the output that they must give, shape (channels, side, side)."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (CHANNELS, CHANNELS, 3, 3), dtype=np.int8)
    given = np.zeros((CHANNELS, SIDE + 2, SIDE + 2), dtype=np.int8)
    given[:, 1:-1, 1:-1] = rng.integers(-128, 128, (CHANNELS, SIDE, SIDE), dtype=np.int8)
    weights.tofile(directory / "weights.bin")
    given.tofile(directory / "input.bin")
    windows = np.lib.stride_tricks.sliding_window_view(given.astype(np.int32), (3, 3), axis=(1, 2))
    output = np.maximum(np.einsum("oirc,iyxrc->oyx", weights.astype(np.int32), windows), 0)
    return directory / "weights.bin", directory / "input.bin", output.astype(np.int32)
