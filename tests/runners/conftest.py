from __future__ import annotations

from pathlib import Path

import caffe2env
import pytest


@pytest.fixture(scope="session")
def caffe2_python() -> Path:
    return caffe2env.interpreter()
