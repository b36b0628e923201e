"""What a trace says of a program: by a real one, and by ones that are written after Perfetto's own schema."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as schema  # type: ignore[import-untyped]

from aibenchd import errors, model
from aibenchd.measure import perfetto, profiles

REAL = Path(__file__).parents[1] / "data/perfetto/program.perfetto-trace.gz"
SHELL, PROGRAM, OTHER = 100, 101, 7
RUNS, SLEEPS, WAITS, EXITS = 0, 1, 2, 16  # prev_state
THREAD = 0x3D0F00  # clone_flags of pthread_create


class Trace:
    """One that is being written."""

    def __init__(self) -> None:
        self.whole = schema.Trace()
        tree = self.packet().process_tree
        for pid, parent, words in ((SHELL, 1, ["sh", "-c", "read", perfetto.MARK, "bench"]), (OTHER, 1, ["other"])):
            tree.processes.add(pid=pid, ppid=parent, cmdline=words)

    def packet(self, **more: Any) -> Any:
        return self.whole.packet.add(trusted_packet_sequence_id=1, **more)

    def event(self, microsecond: int, cpu: int = 0, pid: int = 0, **event: dict[str, int]) -> None:
        """One of the kernel's, in a bundle of its own."""
        self.packet().ftrace_events.CopyFrom(
            schema.FtraceEventBundle(cpu=cpu, event=[schema.FtraceEvent(timestamp=microsecond * 1000, pid=pid, **event)])
        )

    def switch(self, microsecond: int, now: int, state: int = RUNS, cpu: int = 0, before: int = 0) -> None:
        self.event(microsecond, cpu, sched_switch={"next_pid": now, "prev_state": state, "prev_pid": before})

    def made(self, microsecond: int, pid: int, by: int, flags: int = 0) -> None:
        self.event(microsecond, pid=by, task_newtask={"pid": pid, "clone_flags": flags})

    def read(self) -> perfetto.Told:
        return perfetto.read(self.whole.SerializeToString())


def test_a_real_trace_says_what_the_kernel_told_the_program_itself() -> None:
    """Of two processes and a thread, recorded on Linux by Perfetto 56; all other processes' names are taken out.

    At its end the program was told by getrusage that it had run for 116683 µs, and was preempted 39 times.
    """
    told = perfetto.read(gzip.decompress(REAL.read_bytes()))
    assert told.times[perfetto.RUNNING] == pytest.approx(116683, rel=0.03)
    assert told.times["on CPU 0"] + told.times["on CPU 1"] == pytest.approx(told.times[perfetto.RUNNING])
    assert told.counts == {perfetto.PREEMPTIONS: 39, perfetto.MIGRATIONS: 1}
    assert told.times[perfetto.SLEEPING] > 150_000  # the child for 50 ms, the thread for 100, and who waits for them
    assert told.samples == {}


def test_each_state_of_a_thread_is_accounted_for() -> None:
    trace = Trace()
    trace.made(10, PROGRAM, by=SHELL)
    trace.event(11, cpu_frequency={"cpu_id": 0, "state": 1_800_000})
    trace.switch(20, PROGRAM)  # runnable for 10
    trace.event(50, cpu_frequency={"cpu_id": 0, "state": 600_000})
    trace.switch(100, OTHER, RUNS)  # ran for 80, 30 of that fast; is preempted
    trace.switch(130, PROGRAM, RUNS, cpu=4)  # runnable for 30, on another CPU
    trace.switch(150, 0, SLEEPS, cpu=4)
    trace.event(250, sched_waking={"pid": PROGRAM})  # slept for 100
    trace.switch(255, PROGRAM, cpu=4)
    trace.switch(275, 0, WAITS, cpu=4)
    trace.event(280, sched_waking={"pid": PROGRAM})  # blocked for 5
    trace.event(281, sched_waking={"pid": PROGRAM})  # is awake already
    trace.switch(290, PROGRAM, cpu=4)
    trace.switch(300, 0, EXITS, cpu=4)
    trace.event(400, sched_waking={"pid": PROGRAM})  # another, by the same number
    told = trace.read()
    assert told.times == {
        perfetto.RUNNING: 80 + 20 + 20 + 10,
        perfetto.RUNNABLE: 10 + 30 + 5 + 10,
        perfetto.SLEEPING: 100,
        perfetto.BLOCKED: 5,
        "on CPU 0 at 1800 MHz": 30,
        "on CPU 0 at 600 MHz": 50,
        "on CPU 4": 50,
    }
    assert told.counts == {perfetto.PREEMPTIONS: 1, perfetto.MIGRATIONS: 1}


def test_a_frequency_that_is_asked_for_counts_until_the_kernel_tells_one() -> None:
    trace = Trace()
    trace.made(1, PROGRAM, by=SHELL)
    trace.packet(timestamp=5_000).sys_stats.cpufreq_khz.extend([1_000_000, 0])
    trace.switch(10, PROGRAM)
    trace.event(30, cpu_frequency={"cpu_id": 0, "state": 2_000_000})
    trace.packet(timestamp=40_000).sys_stats.cpufreq_khz.extend([1_000_000, 0])
    trace.switch(70, PROGRAM, cpu=1, state=SLEEPS)
    trace.switch(80, 0)
    told = trace.read()
    assert (told.times["on CPU 0 at 1000 MHz"], told.times["on CPU 0 at 2000 MHz"]) == (20, 50)


def test_what_a_program_makes_is_its_own_and_nothing_else_is() -> None:
    trace = Trace()
    trace.made(1, PROGRAM, by=SHELL)
    trace.made(2, 102, by=PROGRAM, flags=THREAD)
    trace.made(3, 103, by=102)  # a process, by a thread
    trace.made(4, 104, by=OTHER)
    for number, pid in enumerate((PROGRAM, 102, 103, 104, OTHER, SHELL)):
        trace.switch(10 + 10 * number, pid)
    trace.switch(100, 0)
    assert trace.read().times[perfetto.RUNNING] == 30


def test_each_process_that_the_shell_makes_is_a_run(tmp_path: Path) -> None:
    trace = Trace()
    for pid in (101, 102, 103, 104):
        trace.made(pid, pid, by=SHELL)
        trace.made(pid, pid + 100, by=pid)  # of its own
        trace.switch(1000 + 10 * pid, pid)
    trace.switch(1000 + 10 * 105, 0)
    trace.packet().process_tree.processes.add(pid=104, ppid=SHELL, cmdline=["bench"])  # told of once more
    interned(trace, "main")
    for pid in (101, 103, 104):
        sampled(trace, 1, pid)
    assert trace.read().processes == 4
    file = tmp_path / "trace.gz"
    file.write_bytes(gzip.compress(trace.whole.SerializeToString()))
    read = profiles.of_perfetto(file)
    assert read["scheduling"].own[perfetto.RUNNING] == 10
    assert read["samples"].own == {"main (bench)": pytest.approx(3 / 4 * 1e6 / perfetto.HERTZ)}
    assert read["samples"].samples == 3


def test_packed_events_say_the_same_as_single_ones() -> None:
    """As Android 11 and later write them."""
    single, packed = Trace(), Trace()
    bundle = packed.packet().ftrace_events
    bundle.cpu = 2
    for trace in (single, packed):
        trace.made(1, PROGRAM, by=SHELL)
    switches = [(5, PROGRAM, RUNS), (20, 0, SLEEPS), (40, PROGRAM, RUNS), (60, 0, RUNS), (75, PROGRAM, RUNS), (90, 0, SLEEPS)]
    last = 0
    for microsecond, now, state in switches:
        single.switch(microsecond, now, state, cpu=2)
        packing = bundle.compact_sched
        packing.switch_timestamp.append((microsecond - last) * 1000)
        packing.switch_next_pid.append(now)
        packing.switch_prev_state.append(state)
        last = microsecond
    single.event(30, sched_waking={"pid": PROGRAM})
    bundle.compact_sched.waking_timestamp.append(30_000)
    bundle.compact_sched.waking_pid.append(PROGRAM)
    assert packed.read() == single.read()
    assert packed.read().times[perfetto.RUNNING] == 15 + 20 + 15


def test_what_ran_while_events_were_lost_is_not_guessed() -> None:
    trace = Trace()
    trace.made(1, PROGRAM, by=SHELL)
    trace.switch(10, PROGRAM)
    trace.switch(30, 0, SLEEPS)
    trace.switch(40, PROGRAM)
    trace.event(500, sched_switch={"next_pid": OTHER})
    trace.whole.packet[-1].ftrace_events.lost_events = True
    assert trace.read().times[perfetto.RUNNING] == 20


def interned(trace: Trace, *names: str, cleared: bool = False) -> None:
    """A stack for each name, by numbers from 1; each is called by the function before it."""
    flags = schema.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED if cleared else schema.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
    data = trace.packet(sequence_flags=flags).interned_data
    data.mapping_paths.add(iid=1, str=b"data")
    data.mapping_paths.add(iid=2, str=b"bench")
    data.mappings.add(iid=1, path_string_ids=[1, 2])
    for number, name in enumerate(names, 1):
        data.function_names.add(iid=number, str=name.encode())
        data.frames.add(iid=number, function_name_id=number, mapping_id=1)
        data.callstacks.add(iid=number, frame_ids=range(1, number + 1))


def sampled(trace: Trace, stack: int, pid: int = PROGRAM) -> None:
    trace.packet().perf_sample.CopyFrom(schema.PerfSample(pid=pid, tid=pid, callstack_iid=stack))


def test_a_sample_counts_for_its_innermost_function() -> None:
    trace = Trace()
    trace.made(1, PROGRAM, by=SHELL)
    interned(trace, "main", "convolve")
    for stack in (2, 2, 1, 9):
        sampled(trace, stack)
    sampled(trace, 2, pid=OTHER)
    trace.packet().perf_sample.CopyFrom(schema.PerfSample(pid=PROGRAM, sample_skipped_reason=1))
    interned(trace, "other", cleared=True)
    sampled(trace, 1)
    told = trace.read()
    assert told.samples == {"main (bench)": 1, "convolve (bench)": 2, "[unknown]": 1, "other (bench)": 1}
    assert told.times == {}


def written(directory: Path, arm: model.ArmName, trace: bytes) -> None:
    path = profiles.path(directory, 1, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(trace)
    profiles.keep(path, model.Profiler.PERFETTO)


def test_arms_are_compared_in_what_both_tell(tmp_path: Path) -> None:
    """Samples first, for they name functions; only one arm's were taken in the second comparison."""
    both = Trace()
    both.made(1, PROGRAM, by=SHELL)
    both.switch(10, PROGRAM)
    both.switch(30, 0)
    scheduled = both.whole.SerializeToString()
    interned(both, "main")
    sampled(both, 1)
    for arm in model.ArmName:
        written(tmp_path, arm, both.whole.SerializeToString())
    found = profiles.compared(tmp_path, 1)
    assert [found["profiler"], *(one["profiler"] for one in found["also"])] == ["Perfetto samples", "Perfetto scheduling"]
    assert found["rows"][0]["treatment"] == pytest.approx(1e6 / perfetto.HERTZ, abs=0.001)
    written(tmp_path, model.ArmName.CONTROL, scheduled)
    found = profiles.compared(tmp_path, 1)
    assert (found["profiler"], found["also"]) == ("Perfetto scheduling", [])
    assert [row["name"] for row in found["rows"][:2]] == [perfetto.MIGRATIONS, perfetto.PREEMPTIONS]


def test_a_trace_that_cannot_be_read_spoils_no_other_profile(tmp_path: Path) -> None:
    for arm in model.ArmName:
        written(tmp_path, arm, b"\x0a\xff")
        path = profiles.path(tmp_path, 1, arm)
        path.write_text("sample:\n  file: /a/bench\n  symbol: main\n")
        profiles.keep(path, model.Profiler.SIMPLEPERF)
    found = profiles.compared(tmp_path, 1)
    assert (found["profiler"], found["rows"][0]["name"], found["also"]) == ("simpleperf", "main (bench)", [])
    (said,) = found["unread"]
    assert said.startswith("Perfetto: 1-treatment.perfetto-trace.gz: expected a Perfetto trace: ")


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (b"", "what ran below what"),
        (b"no trace at all", "expected a Perfetto trace"),
        (b"\x0a" + b"\xff" * 11, "longer than ten bytes"),
        (b"\x0a\x05\x0a", "in the middle of a field"),
        (b"\x08\x01", "a number where a message is expected"),
        (b"\x0a\x02\x08\x01", "a number where a message is expected"),
        (b"\x0a\x03\x52\x01\x01", "a message where a number is expected"),
        (b"\x0b", "unknown kind 3"),
        (b"\x12\x00", "field 2 where only 1 is expected"),
    ],
)
def test_what_is_no_trace_is_an_error(trace: bytes, words: str) -> None:
    with pytest.raises(errors.CommandError, match=words):
        perfetto.read(trace)


def test_more_events_than_are_held_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto, "MOST", 100)
    with pytest.raises(errors.CommandError, match="more than 100 events are not read"):
        perfetto.read(gzip.decompress(REAL.read_bytes()))


def test_one_packet_with_more_events_than_are_held_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto, "MOST", 100)
    trace = Trace()
    trace.packet(timestamp=1).sys_stats.cpufreq_khz.extend([1] * 3_000_000)
    tracemalloc.start()
    with pytest.raises(errors.CommandError, match="more than 100 events are not read"):
        trace.read()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 << 20  # bytes; as events they take five times that


def test_a_trace_without_the_program_says_so() -> None:
    trace = Trace()
    trace.switch(10, OTHER)
    with pytest.raises(errors.CommandError, match="neither samples nor scheduling events"):
        trace.read()


def test_a_cut_off_or_spoiled_trace_is_an_error_or_read_and_never_a_crash() -> None:
    whole = gzip.decompress(REAL.read_bytes())
    drawn = random.Random(1)
    refused = 0
    for _ in range(60):
        spoiled = bytearray(whole[: drawn.randrange(len(whole))])
        for _ in range(drawn.randrange(3)):
            spoiled[drawn.randrange(len(spoiled))] = drawn.randrange(256)
        try:
            perfetto.read(bytes(spoiled))
        except errors.CommandError:
            refused += 1
    assert refused > 30
