"""What two profiles say, by hand-made traces and stacks whose self times are known."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aibenchd import errors, model
from aibenchd.measure import profiles

MICROSECONDS_A_SAMPLE = 1e6 / profiles.HERTZ
STACKS = """bench
\t    5581 convolve+0x1f (/build/1/bench)
\t    5111 main (/build/1/bench)

bench
\t    5581 convolve (/build/1/bench)

bench
\t   2724a [unknown] (/usr/lib/libc.so.6)

bench
"""


def event(name: str, start: float, duration: float, thread: int = 1) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": 1, "tid": thread, "ts": start, "dur": duration}


def write(directory: Path, arm: model.ArmName, text: str, kind: model.Profiler = model.Profiler.OWN) -> None:
    path = profiles.path(directory, 1, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    profiles.keep(path, kind)


def trace(*events: dict[str, Any], runs: int = 1) -> str:
    return json.dumps({"traceEvents": [*events, {"ph": "M", "name": "process_name"}], "runs": runs})


def test_what_was_called_within_is_not_the_callers_own(tmp_path: Path) -> None:
    one = [
        event("run", 0, 100),
        event("conv", 10, 50),
        event("copy", 20, 5),
        event("conv", 60, 30),
        event("conv", 0, 7, thread=2),
    ]
    write(tmp_path, model.ArmName.TREATMENT, trace(*one, runs=2))
    found = profiles.of_trace(tmp_path / profiles.DIRECTORY / "1-treatment.json.gz")
    assert found == profiles.Profile({"run": 10.0, "conv": 41.0, "copy": 2.5}, 2)


def test_a_bare_list_of_events_is_of_the_whole_process(tmp_path: Path) -> None:
    write(tmp_path, model.ArmName.TREATMENT, json.dumps([event("conv", 1, 8)]))
    assert profiles.of_trace(tmp_path / profiles.DIRECTORY / "1-treatment.json.gz") == profiles.Profile({"conv": 8.0}, 0)


def test_a_sample_counts_for_its_innermost_frame(tmp_path: Path) -> None:
    write(tmp_path, model.ArmName.TREATMENT, STACKS, model.Profiler.PERF)
    found = profiles.of_samples(tmp_path / profiles.DIRECTORY / "1-treatment.perf.txt.gz")
    each = MICROSECONDS_A_SAMPLE
    assert found.own == {"convolve (bench)": 2 * each, "[unknown] (libc.so.6)": each}


SIMPLEPERF = """meta_info:
  trace_offcpu: false
  event_type: cpu-clock
sample:
  event_type: cpu-clock
  time: 27701213405474
  event_count: 2004008
  thread_id: 940
  thread_name: bench
  vaddr_in_file: 113b
  file: /data/local/tmp/1/bench
  symbol: convolve(float const*, int)
  callchain:
    vaddr_in_file: 27249
    file: /apex/com.android.runtime/lib64/bionic/libc.so
    symbol: __libc_init
sample:
  event_type: cpu-clock
  time: 27701215407130
  event_count: 2004008
  thread_id: 940
  thread_name: bench
  vaddr_in_file: 27249
  file: /apex/com.android.runtime/lib64/bionic/libc.so
  symbol: *libc.so[+27249]
lost_situation:
  sample_count: 2
  lost_count: 0
"""


def test_a_sample_of_simpleperf_counts_for_its_innermost_frame(tmp_path: Path) -> None:
    """As version 1.build.11421629 prints them."""
    write(tmp_path, model.ArmName.TREATMENT, SIMPLEPERF, model.Profiler.SIMPLEPERF)
    found = profiles.of_simpleperf(tmp_path / profiles.DIRECTORY / "1-treatment.simpleperf.txt.gz")
    each = MICROSECONDS_A_SAMPLE
    assert found.own == {"convolve(float const*, int) (bench)": each, "[unknown] (libc.so)": each}


def test_the_largest_differences_come_first(tmp_path: Path) -> None:
    write(tmp_path, model.ArmName.TREATMENT, trace(event("conv", 0, 50), event("copy", 60, 20)))
    write(tmp_path, model.ArmName.CONTROL, trace(event("conv", 0, 48), event("relu", 60, 5)))
    found = profiles.compared(tmp_path, 1)
    assert found["rows"] == [
        {"name": "copy", "treatment": 20.0, "control": 0.0, "change": 20.0, "within": 0.0, "told": True},
        {"name": "relu", "treatment": 0.0, "control": 5.0, "change": -5.0, "within": 0.0, "told": True},
        {"name": "conv", "treatment": 50.0, "control": 48.0, "change": 2.0, "within": 0.0, "told": True},
    ]
    assert (found["per"], found["profiler"], found["samples"]) == ("run", "the program's own profiler", {})
    assert found["files"] == {arm: f"logs/profile/1-{arm}.json.gz" for arm in ("treatment", "control")}


def test_few_samples_leave_much_open(tmp_path: Path) -> None:
    """8 and 11 samples of one function: 3 more, of which chance may be 1.96 times the root of 19."""
    each = MICROSECONDS_A_SAMPLE
    (row,) = profiles.difference(*(profiles.Profile({"conv": count * each}, 0, each) for count in (11, 8)))
    assert isinstance(row, dict)
    assert (row["change"], row["within"]) == (pytest.approx(3 * each, abs=0.001), pytest.approx(8.5434 * each, abs=0.5))
    assert not row["told"]


def of_counts(counts: dict[str, int], processes: int = 1) -> profiles.Profile:
    each = MICROSECONDS_A_SAMPLE / processes
    return profiles.Profile({name: count * each for name, count in counts.items()}, 0, each)


@pytest.mark.parametrize(
    ("treatment", "control", "chance"),
    [
        ((5, 1), (0, 1), 2 * 0.5**5),
        ((8, 1), (2, 1), 2 * (1 + 10 + 45) / 1024),
        ((2, 1), (8, 1), 2 * (1 + 10 + 45) / 1024),
        ((3, 1), (3, 1), 1.0),
        ((6, 3), (0, 1), 2 * 0.75**6),  # of four processes it was three
    ],
)
def test_how_often_chance_draws_two_numbers_of_samples(
    treatment: tuple[int, int], control: tuple[int, int], chance: float
) -> None:
    """By the binomial coefficients."""
    one, other = (of_counts({"conv": count}, processes) for count, processes in (treatment, control))
    assert profiles.chance(one, other, "conv") == pytest.approx(chance)


def test_changes_that_samples_tell_come_first_however_small(tmp_path: Path) -> None:
    counts = {"conv": 900, "gemm": 880, "copy": 40}
    rows = profiles.difference(of_counts(counts), of_counts({**counts, "conv": 850, "copy": 0}))
    assert [(row["name"], row["told"]) for row in rows if isinstance(row, dict)] == [
        ("copy", True),
        ("conv", False),
        ("gemm", False),
    ]


def test_an_arm_that_ran_more_often_is_no_slower_for_it(tmp_path: Path) -> None:
    write(tmp_path, model.ArmName.TREATMENT, 20 * STACKS + "# processes: 30, Hz: 499\n", model.Profiler.PERF)
    write(tmp_path, model.ArmName.CONTROL, 2 * STACKS + "# processes: 3, Hz: 499\n", model.Profiler.PERF)
    found = profiles.compared(tmp_path, 1)
    assert {(row["name"], row["change"], row["told"]) for row in found["rows"]} == {
        ("convolve (bench)", 0.0, False),
        ("[unknown] (libc.so.6)", 0.0, False),
    }
    assert found["samples"] == {"treatment": 60, "control": 6}
    simple = SIMPLEPERF + "# processes: 4, Hz: 50\n"
    write(tmp_path, model.ArmName.CONTROL, simple, model.Profiler.SIMPLEPERF)
    read = profiles.of_simpleperf(tmp_path / profiles.DIRECTORY / "1-control.simpleperf.txt.gz")
    assert read.own["[unknown] (libc.so)"] == read.sample == 1e6 / 4 / 50


def test_where_nothing_differs_few_profiles_tell_a_change() -> None:
    """At most 5 %; of 400 tables a binomial law of that rate has 32 or more but once in 80 times, and the seed is fixed."""
    draw = np.random.default_rng(8)
    rates = draw.gamma(0.5, 40, 30)
    drawn = ((of_counts(by_name(draw.poisson(rates))) for _ in range(2)) for _ in range(400))
    told = sum(any(row["told"] for row in profiles.difference(*both) if isinstance(row, dict)) for both in drawn)
    assert told < 32


def by_name(counts: Any) -> dict[str, int]:
    return {f"function {number}": int(count) for number, count in enumerate(counts) if count}


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.CommandError, match="no profile of the treatment and the control"):
        profiles.compared(tmp_path, 1)
    write(tmp_path, model.ArmName.TREATMENT, trace(event("conv", 0, 50)))
    write(tmp_path, model.ArmName.CONTROL, STACKS, model.Profiler.PERF)
    with pytest.raises(
        errors.CommandError, match="the treatment was profiled by the program's own profiler and the control by perf"
    ):
        profiles.compared(tmp_path, 1)


ODD = [
    *("", "{", '{"traceEvents": 3}', '[{"ph": "X", "ts": 1}]', "[3]", '"text"'),
    *(
        '{"traceEvents": [], "runs": Infinity}',
        "[" * 200_000,
        trace(event("conv", 0, math.nan)),
        trace(event("conv", math.inf, 1)),
    ),
]


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_trace_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, model.ArmName.TREATMENT, text)
    with pytest.raises(errors.CommandError, match="Chrome's trace format"):
        profiles.of_trace(tmp_path / profiles.DIRECTORY / "1-treatment.json.gz")


def test_a_trace_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "LARGEST", 300)
    write(tmp_path, model.ArmName.TREATMENT, trace(event("conv", 0, 50)))
    assert profiles.of_trace(tmp_path / profiles.DIRECTORY / "1-treatment.json.gz").own == {"conv": 50.0}
    write(tmp_path, model.ArmName.TREATMENT, trace(*[event("conv", 0, 50)] * 9))
    with pytest.raises(errors.CommandError, match="more than 300 bytes"):
        profiles.of_trace(tmp_path / profiles.DIRECTORY / "1-treatment.json.gz")


def test_stacks_without_a_sample_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, model.ArmName.TREATMENT, "bench\n", model.Profiler.PERF)
    with pytest.raises(errors.CommandError, match="no sample"):
        profiles.of_samples(tmp_path / profiles.DIRECTORY / "1-treatment.perf.txt.gz")


def test_a_profile_that_was_cut_off_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "cut.json.gz"
    path.write_bytes(gzip.compress(trace(event("conv", 0, 50)).encode())[:-12])
    with pytest.raises(errors.CommandError, match=r"cut\.json\.gz"):
        profiles.of_trace(path)
