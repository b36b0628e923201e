"""What two profiles say: the time that each function or operator took by itself, and where the arms differ.

A profile is kept for as long as logs are: Chrome's trace format, which Perfetto and Speedscope open, or what ``perf script``
prints, which Speedscope and Firefox's profiler do.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import json
import math
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from aibenchd import errors, model

DIRECTORY = "logs/profile"  # below the state directory
SUFFIXES = {model.Profiler.OWN: "json.gz", model.Profiler.PERF: "perf.txt.gz"}
SHOWN = 40  # rows that are kept, the largest differences first
LONGEST = 200  # characters of a name
LARGEST = 64 << 20  # characters of a trace that is read: to parse it takes ten times that, and no other thread runs meanwhile
MICROSECONDS_A_SAMPLE = 1e6 / 499  # see aibenchd.measure.profiler
DEVIATIONS = 1.96  # of a normal law, on either side of its mean: 95 %
FRAME = re.compile(r"^\s+[0-9a-f]+ (.+) \((.*)\)$")
OFFSET = re.compile(r"\+0x[0-9a-f]+$")


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds that each name took by itself: of one run of the network, or of the whole process where ``runs`` is 0.

    ``sample`` is how long a sample stands for; 0 where nothing was sampled.
    """

    own: Mapping[str, float]
    runs: int
    sample: float = 0.0


def path(state_directory: Path, experiment: int, arm: model.ArmName) -> Path:
    """Where an arm's profile is until it is known of which kind it is."""
    return state_directory / DIRECTORY / f"{experiment}-{arm.value}"


def keep(state_directory: Path, experiment: int, arm: model.ArmName, kind: model.Profiler) -> None:
    """Compress what came from the device. Blocking."""
    keep_as(path(state_directory, experiment, arm), kind)


def keep_as(fresh: Path, kind: model.Profiler) -> None:
    """Compress a profile, and name it after its kind. All of it or nothing. Blocking."""
    packed = fresh.with_name(f"{fresh.name}.fresh")
    with fresh.open("rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    packed.replace(fresh.with_name(f"{fresh.name}.{SUFFIXES[kind]}"))
    fresh.unlink()


def kept(state_directory: Path, experiment: int, arm: model.ArmName) -> tuple[model.Profiler, Path] | None:
    """An arm's profile, and of which kind; None where there is none. Blocking."""
    stem = path(state_directory, experiment, arm)
    found = ((kind, stem.with_name(f"{stem.name}.{suffix}")) for kind, suffix in SUFFIXES.items())
    return next((one for one in found if one[1].is_file()), None)


def compared(state_directory: Path, experiment: int) -> model.JsonObject:
    """Where the arms of an experiment differ, as it is kept with a finding. Blocking.

    Raises:
        CommandError: an arm left no profile, they are of two kinds, or one cannot be read.
    """
    both = {arm: kept(state_directory, experiment, arm) for arm in model.ArmName}
    missing = [arm.value for arm, one in both.items() if one is None]
    if missing:
        raise errors.CommandError(f"no profile of the {' and the '.join(missing)}")
    (kind, treatment), (other, control) = (one for arm in model.ArmName if (one := both[arm]) is not None)
    if kind is not other:
        raise errors.CommandError(f"the treatment was profiled by {kind.value} and the control by {other.value}")
    read = {model.Profiler.OWN: of_trace, model.Profiler.PERF: of_samples}[kind]
    arms = read(treatment), read(control)
    return {
        "profiler": kind.value,
        "per": "run" if arms[0].runs else "process",
        "unit": "us",
        "rows": difference(*arms),
        "files": {arm.value: str(one[1].relative_to(state_directory)) for arm, one in both.items() if one is not None},
    }


def difference(treatment: Profile, control: Profile) -> list[model.Json]:
    """The names whose own time differs most: ``name treatment control change within``, in microseconds.

    ``within`` is half of the change's interval of 95 %, by the number of samples alone, which is Poisson; 0 where every call was
    timed.
    """
    names = treatment.own.keys() | control.own.keys()
    rows = [(name, treatment.own.get(name, 0.0), control.own.get(name, 0.0)) for name in sorted(names)]
    rows.sort(key=lambda row: abs(row[1] - row[2]), reverse=True)
    return [
        {
            "name": name[:LONGEST],
            "treatment": round(one, 3),
            "control": round(other, 3),
            "change": round(one - other, 3),
            "within": round(DEVIATIONS * math.sqrt((one + other) * treatment.sample), 3),
        }
        for name, one, other in rows[:SHOWN]
    ]


def of_trace(file: Path) -> Profile:
    """A profile in Chrome's trace format: an object with ``traceEvents``, and ``runs`` where it knows them; or the events alone.

    Raises:
        CommandError: it is none, or too large.
    """
    with _reading(file) as opened:
        text = opened.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise errors.CommandError(f"{file.name}: more than {LARGEST:,} characters are not read; profile fewer iterations")
    try:
        whole = json.loads(text)
        events = whole["traceEvents"] if isinstance(whole, dict) else whole
        runs = int(whole.get("runs", 0)) if isinstance(whole, dict) else 0
        rows = [
            (str(one["pid"]), str(one["tid"]), _finite(one["ts"]), _finite(one["dur"]), str(one["name"]))
            for one in events
            if one.get("ph") == "X"
        ]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise errors.CommandError(f"{file.name}: expected Chrome's trace format: {type(error).__name__}: {error}") from error
    own = _self_times(rows)
    return Profile({name: microseconds / max(runs, 1) for name, microseconds in own.items()}, runs)


def _finite(number: str | float) -> float:
    """A time of an event; Python's JSON knows infinite ones, and others' does not."""
    if not math.isfinite(float(number)):
        raise ValueError(f"a time is {number}")
    return float(number)


def _self_times(rows: Iterable[tuple[str, str, float, float, str]]) -> dict[str, float]:
    """What each name took without what was called within: of events that nest, by thread."""
    own: dict[str, float] = collections.defaultdict(float)
    within: list[tuple[tuple[str, str], float, str]] = []  # thread, end, name; the innermost last
    for process, thread, start, duration, name in sorted(rows, key=lambda row: (row[0], row[1], row[2], -row[3])):
        while within and (within[-1][0] != (process, thread) or within[-1][1] <= start):
            within.pop()
        if within:
            own[within[-1][2]] -= duration
        own[name] += duration
        within.append(((process, thread), start + duration, name))
    return dict(own)


def of_samples(file: Path) -> Profile:
    """What ``perf script`` printed: samples, each a row that begins at the margin and its stack, the innermost frame first.

    Raises:
        CommandError: it holds no sample.
    """
    own: collections.Counter[str] = collections.Counter()
    innermost = False
    with _reading(file) as opened:
        for row in opened:
            if not row[0].isspace():
                innermost = True
            elif innermost and (frame := FRAME.match(row)):
                own[_function(frame[1], frame[2])] += 1
                innermost = False
    if not own:
        raise errors.CommandError(f"{file.name}: holds no sample: the program was over too soon, or spent its time elsewhere")
    return Profile({name: count * MICROSECONDS_A_SAMPLE for name, count in own.items()}, 0, MICROSECONDS_A_SAMPLE)


def _function(symbol: str, binary: str) -> str:
    """A function as both arms name it: their binaries lie in other directories."""
    return f"{OFFSET.sub('', symbol)} ({Path(binary).name})"


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[TextIO]:
    try:
        with gzip.open(file, "rt", encoding="utf-8", errors="replace") as opened:
            yield opened
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise errors.CommandError(f"{file.name}: cannot be read: {error}") from error
