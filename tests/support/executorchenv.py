"""An interpreter that has ExecuTorch: it is no dependency, not even of the tests, for it takes 1.5 GB."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LACKING = (
    "executorch is not installed: pip install 'aibenchd[executorch]' in a virtual environment, and name its interpreter in"
    " AIBENCHD_EXECUTORCH_PYTHON"
)


def interpreter() -> Path:
    """The one of AIBENCHD_EXECUTORCH_PYTHON, else this one; skips, where it has no ExecuTorch."""
    python = os.environ.get("AIBENCHD_EXECUTORCH_PYTHON") or sys.executable
    looked = subprocess.run([python, "-c", "import torch, executorch.extension.pybindings._C"], capture_output=True, check=False)
    if looked.returncode:
        pytest.skip(LACKING)
    return Path(python)
