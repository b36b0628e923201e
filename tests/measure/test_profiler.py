"""An arm under a profiler, by real programs on this host."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import lab
import pytest

from aibenchd import digests, model
from aibenchd.devices import base, local, metering
from aibenchd.measure import placing, profiler
from aibenchd.specs import files

OWN = '[ -z "$AIBENCHD_PROFILE" ] || echo "{arm}" > "$AIBENCHD_PROFILE"\n'
PLAIN = lab.BENCH.format(latency=100)
NOTHING = files.BenchmarkFiles({}, {}, {})


async def _ready() -> None:
    pass


async def _no_host() -> base.Session:
    raise AssertionError("nothing is to be done on the host around these programs")


async def laid_out(sides: placing.Sides, directory: Path, arm: model.ArmName, program: str) -> placing.Placed:
    directory.mkdir()
    (directory / "bench").write_text(program)
    (directory / "bench").chmod(0o755)
    specification = lab.specification("net")
    benchmark = model.Benchmark(specification["model"], specification["tests"][0], "net.json")
    build = model.Build("engine", "0" * 40, "generic", "host", str(directory), "bench", digests.of_tree(directory))
    return await placing.lay_out(sides, model.Design(benchmark, "generic", model.Rule()), arm, build, NOTHING, "host")


@pytest.mark.parametrize("first", model.ArmName)
async def test_an_arm_that_leaves_no_profile_is_not_given_the_other_ones(tmp_path: Path, first: model.ArmName) -> None:
    """Both run in one directory."""
    (second,) = set(model.ArmName) - {first}
    (tmp_path / "bin").mkdir()
    for name in ("awk", "od", "sh"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    given = {"name": "here", "kind": "local", "minimum_free": "1MiB", "env": {"PATH": str(tmp_path / "bin")}}  # no perf
    settings = local.Settings.model_validate(given)
    async with local.Local(settings, tmp_path / "here", base.RunSettings()).session() as session:
        sides = placing.Sides(session, metering.make(None, on_this_host=True), _no_host, contextlib.nullcontext)
        own = PLAIN.replace("#!/bin/sh\n", "#!/bin/sh\n" + OWN.format(arm=first))
        programs = {first: own, second: PLAIN}
        placed = {arm: await laid_out(sides, tmp_path / arm, arm, programs[arm]) for arm in model.ArmName}
        made = await profiler.run(sides, settings, placed[first], _ready, tmp_path / "one")
        assert (made.kind, (tmp_path / "one").read_text()) == (model.Profiler.OWN, f"{first}\n")
        left = await profiler.run(sides, settings, placed[second], _ready, tmp_path / "other")
        assert (left.kind, left.reason) == (None, profiler.NONE)
