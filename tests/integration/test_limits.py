"""What the daemon allows itself, and what it hands on."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import lab
import pytest

SOFT = 300
SAYS = "ulimit -Sn > {0}.part; mv {0}.part {0}\n"


@pytest.fixture
def few_files() -> Iterator[None]:
    """What is started meanwhile may have few files open, until it allows itself more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
async def test_the_daemon_has_as_many_files_as_it_may_and_its_programs_as_many_as_ever(tmp_path: Path) -> None:
    made = lab.make(tmp_path)
    bench, build = (SAYS.format(tmp_path / name) for name in ("program", "build"))
    head, _, rest = lab.BENCH.format(latency=100).partition("\n")
    made.commit("first", bench=f"{head}\n{bench}{rest}", build=lab.BUILD + build)
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])
    async with made.daemon() as process:
        await made.until("SELECT count(*) > 0 FROM blocks")
        own = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    assert own[0] == own[1]
    assert [(tmp_path / name).read_text() for name in ("program", "build")] == [f"{SOFT}\n"] * 2
