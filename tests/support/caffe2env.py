"""An interpreter that has Caffe2: made once for this user, and kept."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "specifications/frameworks/caffe2/make_caffe2.sh"
MISSING = 2  # the script's exit status
TIMEOUT = 1800  # s; it takes half a minute, and the download of 800 MB


def interpreter() -> Path:
    """The one of AIBENCHD_CAFFE2_PYTHON, else that of an environment in the cache; skips, where this machine lacks a part."""
    given = os.environ.get("AIBENCHD_CAFFE2_PYTHON")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "aibenchd/caffe2-1.8.1"
    made = subprocess.run([SCRIPT, directory], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if made.returncode == MISSING:
        pytest.skip(f"Caffe2 cannot be had here: {made.stderr.strip().splitlines()[-1]}")
    assert made.returncode == 0, made.stderr
    return directory / "bin/python"
