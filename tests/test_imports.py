"""What is not imported where it would cost: at the daemon's start, and each time a person asks it something."""

import subprocess
import sys

import pytest

HEAVY = {"adbutils", "aiohttp", "alembic", "asyncssh", "httpx", "jinja2", "matplotlib", "numpy", "torch"}


def imported(module: str) -> set[str]:
    """The modules that a new interpreter imports for ``module``; not those that it starts with."""
    loaded, at_start = _imported(f"import {module}"), _imported("")
    return loaded - at_start


def _imported(code: str) -> set[str]:
    """As ``-X importtime`` tells, which also shows what was imported and dropped."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], check=True, capture_output=True, text=True)
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("module", ["aibenchd.daemon", "aibenchd.cli"])
def test_the_daemon_imports_nothing_heavy(module: str) -> None:
    found = imported(module)
    assert module in found
    assert not packages(found) & HEAVY


@pytest.mark.parametrize("module", ["aibenchd.daemon", "aibenchd.cli", "aibenchd.report.screen"])
def test_rich_is_for_bench_and_ab_alone(module: str) -> None:
    assert "rich.console" not in imported(module)  # "rich" is tried for by structlog, and not found


def test_rich_can_be_had_after_the_daemon() -> None:
    assert "rich.console" in _imported("import aibenchd.daemon, aibenchd.oneshot.showing")


def test_what_is_heavy_would_be_seen() -> None:
    assert "numpy" in packages(imported("numpy"))


@pytest.mark.parametrize("module", ["aibenchd.api.client", "aibenchd.api.submitting"])
def test_the_client_imports_only_the_standard_library(module: str) -> None:
    found = imported(module)
    assert module in found
    assert packages(found) - sys.stdlib_module_names == {"aibenchd"}
