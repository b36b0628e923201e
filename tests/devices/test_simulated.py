"""What is drawn: the same from the same seed, and as the settings say."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from aibenchd import digests, errors, model
from aibenchd.devices import base, simulated
from aibenchd.frameworks import generic

BENCHMARK = model.Benchmark({}, {})
Program = simulated.Program


def device(directory: Path, **keys: Any) -> simulated.Simulated:
    chosen = simulated.Settings(**{"name": "dream", "kind": "simulated", **keys})
    return simulated.Simulated(chosen, directory / "device", base.RunSettings())


def session(directory: Path, **keys: Any) -> AbstractAsyncContextManager[base.Session]:
    return device(directory, **keys).session()


def command(text: str = "program", timeout: float = 3600.0) -> base.Command:
    return base.Command((text,), PurePosixPath("/"), timeout=timeout)


async def latencies(taken: base.Session, text: str = "program") -> tuple[float, ...]:
    completed = await taken.run(command(text))
    assert completed.failure == ""
    (series,) = generic.Generic().parse(completed.stdout, BENCHMARK).series
    assert series.key == model.NETWORK
    return series.values


async def levels(taken: base.Session, runs: int, text: str = "program") -> list[float]:
    return [statistics.median(await latencies(taken, text)) for _ in range(runs)]


def build(directory: Path, truth: Any = None, program: str = "program") -> base.Push:
    made = directory / f"build-of-{program}"
    made.mkdir()
    (made / "program").write_text(program)
    if truth is not None:
        (made / simulated.TRUTH).write_text(json.dumps(truth))
    return base.Push(made, digests.of_tree(made), "build")


# ---- draws


async def test_the_same_seed_draws_the_same_and_a_resumed_experiment_draws_anew(tmp_path: Path) -> None:
    async def drawn(where: str, **keys: Any) -> list[list[float]]:
        found = []
        for _ in range(2):
            async with session(tmp_path / where, **keys) as taken:
                found.append(await levels(taken, 3))
        return found

    first, again = await drawn("a"), await drawn("b")
    assert first == again
    assert len({level for one in first for level in one}) == 6
    assert await drawn("c", seed=1) != first
    assert await drawn("d", name="other") != first


async def test_noise_is_between_processes_and_jitter_within_them(tmp_path: Path) -> None:
    program = Program(latency=500, noise=0.05, jitter=0.001, samples=20)
    async with session(tmp_path, program=program) as taken:
        processes = [await latencies(taken) for _ in range(300)]
    within = statistics.mean(statistics.stdev(map(math.log, one)) for one in processes)
    between = statistics.stdev(math.log(statistics.median(one)) for one in processes)
    assert {len(one) for one in processes} == {20}
    assert within == pytest.approx(0.001, rel=0.1)
    assert between == pytest.approx(0.05, rel=0.15)
    assert statistics.median(map(statistics.median, processes)) == pytest.approx(500, rel=0.02)


async def test_a_build_says_what_its_program_is_like(tmp_path: Path) -> None:
    keys = {"program": Program(noise=0, jitter=0)}
    async with session(tmp_path, **keys) as taken:
        slow = await taken.push(build(tmp_path, {"latency": 1234}, "slow"))
        plain = await taken.push(build(tmp_path, program="plain"))
        assert await levels(taken, 1, f"{slow}/program --iterations 3") == pytest.approx([1234])
        assert await levels(taken, 1, f"taskset 1 {plain}/program") == pytest.approx([1000])
        assert len(str(slow)) == len(str(plain))


async def test_the_latency_of_a_build_that_says_nothing_is_its_digests(tmp_path: Path) -> None:
    keys = {"program": Program(noise=0, jitter=0), "spread": 0.1}
    one, other = build(tmp_path, program="one"), build(tmp_path, program="other")
    async with session(tmp_path, **keys) as taken, session(tmp_path, **keys, name="second") as second:
        first = await levels(taken, 2, str(await taken.push(one)) + "/program")
        assert first[0] == first[1] != 1000
        assert await levels(second, 1, str(await second.push(one)) + "/program") == first[:1]
        assert await levels(taken, 1, str(await taken.push(other)) + "/program") != first[:1]


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"latncy": 3}, r"simulated.json of build [0-9a-f]{32}: latncy: Extra inputs .*its keys are latency, noise"),
        ({"latency": "3"}, "latency: Input should be a valid number"),
        ({"fails": 1, "hangs": 1}, "together at most 1"),
        ([3], "expected an object"),
    ],
)
async def test_a_build_that_says_something_else_is_an_error(tmp_path: Path, truth: Any, words: str) -> None:
    async with session(tmp_path) as taken:
        with pytest.raises(errors.CommandError, match=words):
            await taken.push(build(tmp_path, truth))


async def test_a_build_that_is_forgotten_is_our_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "BUILDS", 1)
    async with session(tmp_path) as taken:
        first, second = await taken.push(build(tmp_path, program="1")), await taken.push(build(tmp_path, program="2"))
        await taken.run(command(f"{second}/program"))
        with pytest.raises(errors.HarnessError, match="push it again"):
            await taken.run(command(f"{first}/program"))


async def test_the_backend_that_is_asked_for_is_stated(tmp_path: Path) -> None:
    async with session(tmp_path) as taken:
        completed = await taken.run(command("program --backend mkl"))
        assert generic.Generic().parse(completed.stdout, BENCHMARK).backend == "mkl"


# ---- drift and heat

QUIET = Program(latency=1000, noise=0, jitter=0, seconds=60)


async def test_drift_is_per_simulated_hour_and_ends_with_a_reboot(tmp_path: Path) -> None:
    async with session(tmp_path, program=QUIET, drift=0.1) as taken:
        found = await levels(taken, 61)
        assert found[0] == pytest.approx(1000)
        assert found[60] == pytest.approx(1100, rel=0.01)  # an hour of its clock; each run takes longer than the one before
        await taken.reboot()
        assert await levels(taken, 1) == pytest.approx([1000])


async def test_it_throttles_when_it_is_hot_and_recovers_when_it_rests(tmp_path: Path) -> None:
    heat = simulated.Heat(ambient=20, rise=60, time_constant="5m", throttles_at=60, slowdown=2)
    async with session(tmp_path, program=QUIET, heat=heat) as taken:
        assert (await taken.state())["temperature"] == "20.0"
        found = await levels(taken, 12)
        hot = await taken.state()
        assert found[0] == pytest.approx(1000)
        assert found[-1] == pytest.approx(2000)
        assert found == sorted(found)
        assert float(hot["temperature"]) > 60
        assert float(hot["load"]) > 0.8
        assert "above 60" in hot["throttled"]
        looks = 0
        while (cooling := await taken.state())["throttled"]:
            looks += 1
        assert 0 < looks < 30
        assert float(cooling["temperature"]) < 60
        assert await levels(taken, 1) == pytest.approx([1000])


async def test_with_a_pace_real_time_cools_it(tmp_path: Path) -> None:
    heat = simulated.Heat(ambient=20, rise=60, time_constant="1ms")
    async with session(tmp_path, program=QUIET, heat=heat, pace=1e-6) as taken:
        await levels(taken, 1)
        assert (await taken.state())["temperature"] == "20.0"  # seconds of its own have passed since


# ---- what is changed on it


async def changed(taken: base.Session, **wanted: Any) -> list[base.Change]:
    found = list(await taken.changes(base.Conditioning(**wanted)))
    for change in found:
        await taken.apply(json.loads(json.dumps(change.do)))
    return found


@pytest.mark.parametrize(
    ("wanted", "latency"),
    [
        ({"frequency": "min"}, 2000),
        ({"frequency": "mid"}, 1333.333),
        ({"frequency": "max"}, 1000),
        ({"frequency": "1500000000"}, 1333.333),
        ({"governor": "powersave"}, 2000),
        ({"governor": "powersave", "frequency": "max"}, 1000),
    ],
)
async def test_a_lower_frequency_is_slower_until_it_is_undone(tmp_path: Path, wanted: dict[str, str], latency: float) -> None:
    async with session(tmp_path, program=QUIET) as taken:
        before = await taken.fingerprint()
        done = await changed(taken, **wanted)
        assert await levels(taken, 1) == pytest.approx([latency])
    async with session(tmp_path, program=QUIET) as later:  # as after a crash of ours
        assert await levels(later, 1) == pytest.approx([latency])
        for change in [*done, *done]:
            await later.apply(change.undo)
        assert await levels(later, 1) == pytest.approx([1000])
        assert await later.fingerprint() == before
        assert not await later.changes(base.Conditioning(governor="performance"))


async def test_what_it_cannot_be_changed_to_is_said(tmp_path: Path) -> None:
    async with session(tmp_path) as taken:
        with pytest.raises(errors.CommandError, match="cannot run at 7 Hz; it has 1000000000, 1500000000"):
            await taken.changes(base.Conditioning(frequency="7"))
        with pytest.raises(errors.CommandError, match="no governor 'ondemand'; a simulated device has performance"):
            await taken.changes(base.Conditioning(governor="ondemand"))
        with pytest.raises(errors.HarnessError, match="knows no action 'explode'"):
            await taken.apply({"verb": "explode"})
        with pytest.raises(errors.CommandError, match="writes no file"):
            await taken.pull(PurePosixPath("/simulated/x"), tmp_path / "x")


# ---- failures

Asked = Callable[[base.Session], Awaitable[Any]]


async def test_failures_of_the_program_are_its_own(tmp_path: Path) -> None:
    async with session(tmp_path, program=Program(fails=1)) as taken:
        completed = await taken.run(command())
        assert (completed.ending, completed.code) == (base.Ending.EXITED, 1)
        assert "this run fails" in completed.failure
    async with session(tmp_path, program=Program(times_out=1)) as taken:
        assert "timed out after 7 s" in (await taken.run(command(timeout=7))).failure
    async with session(tmp_path, program=Program(seconds=10)) as taken:
        assert (await taken.run(command(timeout=5))).ending is base.Ending.TIMED_OUT


@pytest.mark.parametrize(("how", "words"), [("loses", "lost during a run"), ("hangs", "does not answer any more")])
async def test_a_lost_device_is_away_and_comes_back(tmp_path: Path, how: str, words: str) -> None:
    made = device(tmp_path, program=Program(**{how: 1}), pace=1e-5, away="100000s")
    async with made.session() as taken:
        with pytest.raises(errors.DeviceLostError, match=f"dream: simulated: {words}"):
            await taken.run(command())
    with pytest.raises(errors.DeviceLostError, match="away for"):
        await made.reach()
    with pytest.raises(errors.DeviceLostError, match="away for"):
        async with made.session():
            pass
    while True:  # it is away for a second
        try:
            async with made.session() as taken:
                await taken.health()
        except errors.DeviceLostError:
            continue
        break


async def test_failures_are_as_frequent_as_they_should_be(tmp_path: Path) -> None:
    program = Program(fails=0.2, times_out=0.1, loses=0.1, samples=1)
    ended: dict[str, int] = {}
    async with session(tmp_path, program=program) as taken:
        for _ in range(2000):
            try:
                completed = await taken.run(command())
                how = f"{completed.ending.value} {completed.code}"
            except errors.DeviceLostError:
                how = "lost"
            ended[how] = ended.get(how, 0) + 1
    shares = {how: count / 2000 for how, count in ended.items()}
    assert shares == pytest.approx({"exited 0": 0.6, "exited 1": 0.2, "timed out 9": 0.1, "lost": 0.1}, abs=0.04)


async def test_a_memory_that_cannot_be_read_is_a_lost_device_with_an_advice(tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / simulated.MEMORY).write_text("{")
    with pytest.raises(errors.DeviceLostError, match=r"memory.json: .*; remove it"):
        async with session(tmp_path):
            pass
