"""An arm under profilers, by real programs on this host, and on a phone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import adbd
import anyio
import lab
import launchers
import perfettod
import pytest
from google.protobuf import text_format
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as schema  # type: ignore[import-untyped]

from aibenchd import digests, errors, model
from aibenchd.devices import adb, base, local, metering, simulated
from aibenchd.measure import perfetto, placing, profiler, profiles
from aibenchd.specs import files

OWN = '[ -z "$AIBENCHD_PROFILE" ] || echo "{arm}" > "$AIBENCHD_PROFILE"\n'
PLAIN = lab.BENCH.format(latency=100)
Got = TypeVar("Got")
NOTHING = files.BenchmarkFiles({}, {}, {})


# Busy in a function that both arms have, in one that is the treatment's alone, and in a thread of its own; asleep in between.
ENGINE = r"""
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
volatile double sink;
static void convolve(long n) { for (long i = 0; i < n; i++) sink += i; }
static void copy_twice(long n) { for (long i = 0; i < n; i++) sink -= i; }
static void *beside(void *nothing) { usleep(300000); return nothing; }
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, beside, 0);
    for (int run = 0; run < 20; run++) { convolve(2000000); copy_twice(COPIES); }
    pthread_join(thread, 0);
    puts("PyTorchObserver {\"type\": \"NET\", \"metric\": \"latency\", \"unit\": \"us\", \"value\": 100}");
}
"""


async def _ready() -> None:
    pass


async def _no_host() -> base.Session:
    raise AssertionError("nothing is to be done on the host around these programs")


async def laid_out(sides: placing.Sides, directory: Path, arm: model.ArmName, program: str | bytes) -> placing.Placed:
    directory.mkdir()
    (directory / "bench").write_bytes(program.encode() if isinstance(program, str) else program)
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
        assert (made.kinds, gzip.decompress((tmp_path / "one.json.gz").read_bytes())) == (
            (model.Profiler.OWN,),
            f"{first}\n".encode(),
        )
        left = await profiler.run(sides, settings, placed[second], _ready, tmp_path / "other")
        assert (left.kinds, left.reason) == ((), profiler.NONE)


def perf_works() -> bool:
    return (
        bool(shutil.which("perf")) and subprocess.run(["perf", "stat", "true"], capture_output=True, check=False).returncode == 0
    )


needs_perf = pytest.mark.skipif(not perf_works(), reason="no perf that may count (Debian: linux-perf)")
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")


async def profiled_here(directory: Path, program: str | bytes, arm: model.ArmName, prefix: str = "") -> profiler.Profiled:
    """By this host's perf, of an experiment's directory below ``directory``."""
    settings = local.Settings.model_validate({"name": "here", "kind": "local", "minimum_free": "1MiB"})
    async with local.Local(settings, directory / "here", base.RunSettings()).session() as session:
        sides = placing.Sides(session, metering.make(None, on_this_host=True), _no_host, contextlib.nullcontext)
        placed = await laid_out(sides, directory / f"{prefix}{arm}", arm, program)
        target = profiles.path(directory, 1, arm)
        target.parent.mkdir(parents=True, exist_ok=True)
        return await profiler.run(sides, settings, placed, functools.partial(_emptied, sides), target)


@needs_perf
@needs_gcc
async def test_a_program_of_milliseconds_runs_often_enough_to_tell_what_it_does(tmp_path: Path) -> None:
    """A tenth more work, of some 10 ms: by one process of each arm that would be a sample or none."""
    short = ENGINE.replace("run < 20", "run < 1").replace("usleep(300000)", "usleep(0)")
    for arm, copies in zip(model.ArmName, (400000, 0), strict=True):
        made = await profiled_here(tmp_path, compiled(tmp_path, copies, short), arm)
        assert (made.kinds, made.reason) == ((model.Profiler.PERF,), "")
    found = profiles.compared(tmp_path, 1)
    rows = {row["name"]: row for row in found["rows"]}
    added, same = rows["copy_twice (bench)"], rows["convolve (bench)"]
    assert (added["told"], added["control"]) == (True, 0.0)
    assert added["change"] < same["control"], "it is not of one process"
    assert min(found["samples"].values()) > 200


# The name, process and time of a sample: Speedscope and Firefox's profiler know by these what perf has printed.
AS_VIEWERS_WANT_IT = re.compile(r"^\S.*?\s+\d+/\d+\s+\d+\.\d+:\s+\S")


@needs_perf
async def test_a_program_that_runs_but_once_in_a_directory_is_profiled_once(tmp_path: Path) -> None:
    once = PLAIN.replace(
        "#!/bin/sh\n", "#!/bin/sh\nmkdir once || exit 9\nwhile [ $((left = left + 1)) -lt 100000 ]; do :; done\n"
    )
    made = await profiled_here(tmp_path, once, model.ArmName.TREATMENT)
    assert (made.kinds, made.reason) == ((model.Profiler.PERF,), "")
    first, *_, last = gzip.decompress(next((tmp_path / profiles.DIRECTORY).iterdir()).read_bytes()).decode().splitlines()
    assert last == "# processes: 1, Hz: 499"
    assert AS_VIEWERS_WANT_IT.match(first)


@pytest.mark.parametrize(
    ("wall", "cpu", "timeout", "times"),
    [
        (0.03, 0.03, 3600.0, 134),  # 4 s of CPU
        (0.03, 0.12, 3600.0, 34),  # on four of them
        (10.0, 0.1, 3600.0, 3),  # it waits: not half an hour for few samples
        (8.0, 8.0, 3600.0, 1),
        (60.0, 60.0, 3600.0, 1),
        (0.0, 0.0, 3600.0, 200),  # less than the device's clock shows
        (2.0, 0.1, 10.0, 2),  # all of them have the time of one
    ],
)
def test_how_often_a_program_is_run(wall: float, cpu: float, timeout: float, times: int) -> None:
    accounts = [model.Series("PROCESS", "wall_time", "s", (wall,)), model.Series("PROCESS", "cpu_time", "s", (cpu,))]
    assert profiler.processes(accounts, timeout) == times


def test_of_a_long_program_no_more_samples_are_taken_than_a_phone_has_room_for() -> None:
    """An hour of eight CPUs, and one of which nothing is known."""
    accounts = [model.Series("PROCESS", "wall_time", "s", (3600.0,)), model.Series("PROCESS", "cpu_time", "s", (8 * 3600.0,))]
    assert profiler.hertz(accounts) * 8 * 3600 <= profiler.MOST_SAMPLES
    assert profiler.hertz([]) == profiler.hertz([model.Series("PROCESS", "cpu_time", "s", (0.0,))]) == profiles.HERTZ


@needs_perf
async def test_a_sample_stands_for_as_long_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a tenth of the rate there is a tenth of the samples, and as much time."""
    monkeypatch.setattr(profiler, "CPU_SECONDS", 1.0)
    busy = PLAIN.replace("#!/bin/sh\n", "#!/bin/sh\nwhile [ $((left = left + 1)) -lt 1000000 ]; do :; done\n")
    of = {}
    for arm, most in zip(model.ArmName, (profiler.MOST_SAMPLES, 50), strict=True):
        monkeypatch.setattr(profiler, "MOST_SAMPLES", most)
        await profiled_here(tmp_path, busy, arm)
        of[arm] = profiles.of_samples(tmp_path / profiles.DIRECTORY / f"1-{arm}.perf.txt.gz")
    often, seldom = (of[arm] for arm in model.ArmName)
    assert seldom.samples < often.samples / 3
    assert 0.5 < sum(seldom.own.values()) / sum(often.own.values()) < 2


def test_of_a_program_of_which_nothing_is_known_one_process_is_run() -> None:
    assert profiler.processes([model.Series("NET", "latency", "us", (3.0,))], 3600.0) == 1


async def test_nothing_is_tried_on_a_device_that_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = simulated.Settings.model_validate({"name": "dream", "kind": "simulated"})
    async with simulated.Simulated(settings, tmp_path / "dream", base.RunSettings()).session() as session:
        sides = placing.Sides(session, metering.make(None, on_this_host=False), _no_host, contextlib.nullcontext)
        placed = await laid_out(sides, tmp_path / "arm", model.ArmName.TREATMENT, PLAIN)
        monkeypatch.setattr(session, "run", None)
        with pytest.raises(errors.CommandError, match="simulated: no program runs on it that could be profiled"):
            await profiler.run(sides, settings, placed, _ready, tmp_path / "one")


# Takes the configuration that it is given, and is then no tracer.
TAKES = "#!/bin/sh\ncase $* in *--help*) echo --background-wait ;; *) cat >{config}; exit 1 ;; esac\n"


@pytest.mark.parametrize("sdk", [29, 30, 33])
@pytest.mark.parametrize("sampling", [True, False])
def test_perfetto_is_asked_for_what_its_schema_has(tmp_path: Path, sdk: int, sampling: bool) -> None:
    """By Perfetto's own schema, all versions of Android; it refuses what it does not know, and no phone here can sample."""
    for name, text in (("getprop", f"#!/bin/sh\necho {sdk}\n"), ("perfetto", TAKES.format(config=tmp_path / "config"))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    tool = profiler.tracing('bench "1"', 12.5, sampling=sampling)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", tool.over, "sh", "499", "3", "true"], env=path, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 126, done.stderr
    asked = text_format.Parse((tmp_path / "config").read_text(), schema.TraceConfig())
    assert (asked.duration_ms, asked.max_file_size_bytes, asked.write_into_file) == (12_500, profiler.TRACE_LIMIT, True)
    sources = {source.config.name: source.config for source in asked.data_sources}
    assert sources["linux.ftrace"].ftrace_config.compact_sched.enabled == (sdk >= 30)
    assert ("linux.sys_stats" in sources) == (sdk >= 33)
    assert ("linux.perf" in sources) == (sampling and sdk >= 33)
    if "linux.perf" in sources:
        events = sources["linux.perf"].perf_event_config
        assert events.timebase.counter == schema.PerfEvents.SW_CPU_CLOCK
        assert events.timebase.frequency == perfetto.HERTZ
        assert events.callstack_sampling.scope.target_cmdline == ['bench "1"']


# ---- on a phone

MISSING = perfettod.missing()
needs_perfetto = pytest.mark.skipif(bool(MISSING), reason=MISSING)

server, fresh_phone = adbd.shared_server, adbd.fresh_phone


@pytest.fixture
def phone(fresh_phone: adbd.Phone) -> adbd.Phone:
    """One whose programs are its own, so that nothing of this host's profiles on it."""
    fresh_phone.script("perf", "exit 127")
    for name in ("perfetto", "simpleperf"):  # by their names the shell would find this host's
        if shutil.which(name):
            fresh_phone.script(name, "exit 127")
    return fresh_phone


@contextlib.asynccontextmanager
async def in_hand(server: adbd.Server, phone: adbd.Phone) -> AsyncIterator[tuple[placing.Sides, base.DeviceSettings]]:
    given = {"name": "pixel", "kind": "adb", "server_port": server.port, "minimum_free": "1MiB", "address": phone.address}
    settings = adb.Settings.model_validate(given)
    async with adb.Adb(settings, Path("/none"), base.RunSettings()).session() as session:
        yield placing.Sides(session, metering.make(None, on_this_host=False), _no_host, contextlib.nullcontext), settings


def compiled(directory: Path, copies: int, engine: str = ENGINE) -> bytes:
    program = directory / f"bench-{copies}"
    command = ["gcc", "-O1", "-fno-omit-frame-pointer", "-fno-inline", "-pthread", "-x", "c", "-", "-o", str(program)]
    subprocess.run(command, input=engine.replace("COPIES", str(copies)).encode(), check=True)
    return program.read_bytes()


async def both_profiled(server: adbd.Server, phone: adbd.Phone, directory: Path) -> dict[model.ArmName, profiler.Profiled]:
    """Each arm, as a block profiles them; the treatment copies what the control does not."""
    made = {}
    async with in_hand(server, phone) as (sides, settings):
        for arm, copies in zip(model.ArmName, (4000000, 0), strict=True):
            placed = await laid_out(sides, directory / arm, arm, compiled(directory, copies))
            target = profiles.path(directory, 1, arm)
            target.parent.mkdir(parents=True, exist_ok=True)
            condition = functools.partial(_emptied, sides)
            made[arm] = await profiler.run(sides, settings, placed, condition, target)
    return made


async def _emptied(sides: placing.Sides) -> None:
    await sides.device.directory(placing.WORK)


async def _opened(server: adbd.Server, phone: adbd.Phone) -> contextlib.AsyncExitStack:
    stack = contextlib.AsyncExitStack()
    await stack.enter_async_context(in_hand(server, phone))
    return stack


async def _when_it_is_back(wanted: Callable[[], Awaitable[Got]]) -> Got:
    with anyio.fail_after(lab.WAIT):
        while True:
            with contextlib.suppress(errors.DeviceLostError):
                return await wanted()
            await anyio.sleep(0.1)


def left_on(phone: adbd.Phone) -> list[str]:
    """What profilers left there."""
    there = [*(phone.root / "data/misc").rglob("*"), *(phone.directory / "work").rglob("aibenchd-*")]
    return [path.name for path in there if path.is_file()]


async def test_a_phone_without_profilers_says_what_is_missing(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    async with in_hand(server, phone) as (sides, settings):
        placed = await laid_out(sides, tmp_path / "arm", model.ArmName.TREATMENT, PLAIN)
        made = await profiler.run(sides, settings, placed, _ready, tmp_path / "one")
    assert (made.kinds, made.reason) == ((), profiler.NONE)
    assert made.finished.trial.outcome is model.Outcome.OK


@needs_gcc
@pytest.mark.skipif(not perfettod.simpleperf(), reason="no simpleperf (the NDK's for Linux, where AIBENCHD_SIMPLEPERF names it)")
async def test_simpleperf_names_the_function_that_was_added(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    phone.script("simpleperf", f'exec {perfettod.simpleperf()} "$@"')
    made = await both_profiled(server, phone, tmp_path)
    assert {(one.kinds, one.reason) for one in made.values()} == {((model.Profiler.SIMPLEPERF,), "")}
    found = profiles.compared(tmp_path, 1)
    first = found["rows"][0]
    assert (found["profiler"], first["name"], first["control"]) == ("simpleperf", "copy_twice (bench)", 0.0)
    assert first["change"] > first["within"] > 0
    assert min(found["samples"].values()) > 500
    assert left_on(phone) == []


@needs_gcc
@needs_perfetto
@pytest.mark.parametrize("sdk", ["28", "34"])
async def test_perfetto_says_how_the_threads_of_both_arms_were_scheduled(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone, sdk: str
) -> None:
    """Also where it cannot be told to wait until all is traced, as before Android 13."""
    phone.set(**{"ro.build.version.sdk": sdk})
    with perfettod.on(phone):
        if sdk == "28":  # whose Perfetto takes no field that is younger
            real = (phone.root / "bin/perfetto").rename(phone.root / "bin/perfetto-of-now")
            known = "case $* in *-D*) exit 1 ;; *-c*) config=$(cat) ;; *) exit 1 ;; esac\n"
            known += "case $config in *compact_sched*|*cpufreq_period_ms*|*linux.perf*) exit 1 ;; esac\n"
            phone.script("perfetto", f'{known}echo "$config" | {real} "$@"')
        made = await both_profiled(server, phone, tmp_path)
    assert {(one.kinds, one.reason) for one in made.values()} == {((model.Profiler.PERFETTO,), "")}
    found = profiles.compared(tmp_path, 1)
    rows = {row["name"]: row for row in found["rows"]}
    assert (found["profiler"], found["also"], found["unread"]) == ("Perfetto scheduling", [], [])
    assert rows[perfetto.RUNNING]["treatment"] > 2 * rows[perfetto.RUNNING]["control"] > 0
    for arm in model.ArmName:
        assert sum(row[arm] for name, row in rows.items() if name.startswith("on CPU ")) == pytest.approx(
            rows[perfetto.RUNNING][arm], abs=1
        )
        assert rows[perfetto.SLEEPING][arm] > 250_000  # the thread beside it
    assert left_on(phone) == []


async def test_an_app_is_told_to_be_beyond_profilers(tmp_path: Path, server: adbd.Server, phone: adbd.Phone) -> None:
    """It is no child of what starts it, and is handed no environment."""
    app = PLAIN.replace("#!/bin/sh\n", "#!/bin/sh\nsleep 0.1\n")
    async with in_hand(server, phone) as (sides, settings):
        placed = await laid_out(sides, tmp_path / "arm", model.ArmName.TREATMENT, app)
        placed = dataclasses.replace(placed, app=base.App("org.example.bench", ".Main"))
        made = await profiler.run(sides, settings, placed, _ready, tmp_path / "one")
    assert (made.kinds, made.reason) == ((), profiler.APP)


@needs_perfetto
async def test_perfetto_whose_services_do_not_run_is_told_with_what_to_do(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone
) -> None:
    phone.set(**{"ro.build.version.sdk": "29"})
    with perfettod.on(phone):
        pass
    async with in_hand(server, phone) as (sides, settings):
        placed = await laid_out(sides, tmp_path / "arm", model.ArmName.TREATMENT, PLAIN)
        made = await profiler.run(sides, settings, placed, functools.partial(_emptied, sides), tmp_path / "one")
    assert made.kinds == ()
    assert made.reason.startswith("under Perfetto: exit code 126: ")
    assert "adb shell setprop persist.traced.enable 1" in made.reason
    assert left_on(phone) == []


@needs_perfetto
async def test_a_phone_that_is_lost_while_it_is_traced_is_traced_again(
    tmp_path: Path, server: adbd.Server, phone: adbd.Phone
) -> None:
    """Its block is run again; what it left there goes when the phone is seen again, whatever is done there then."""
    traced = f"[ ! -e {profiler.RECORDED} ] || [ -e {phone.root}/calm ] || {{ echo >begun; sleep 600; }}\n"
    program = PLAIN.replace("#!/bin/sh\n", "#!/bin/sh\n" + traced)

    async def profiled(name: str) -> profiler.Profiled:
        async with in_hand(server, phone) as (sides, settings):
            placed = await laid_out(sides, tmp_path / name, model.ArmName.TREATMENT, program)
            return await profiler.run(sides, settings, placed, functools.partial(_emptied, sides), tmp_path / f"{name}-profile")

    async def lose() -> None:
        await launchers.until_written(phone.directory / "work/work/begun")
        phone.drop()

    with perfettod.on(phone):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose)
            with pytest.raises(errors.LostRunningError):
                await profiled("lost")
        assert left_on(phone) == ["aibenchd-trace", profiler.RECORDED]
        async with await _when_it_is_back(functools.partial(_opened, server, phone)) as stack:
            assert left_on(phone) == []
            await stack.aclose()
        (phone.root / "calm").touch()
        made = await _when_it_is_back(functools.partial(profiled, "again"))
    assert (made.kinds, made.reason) == ((model.Profiler.PERFETTO,), "")
    assert left_on(phone) == []
