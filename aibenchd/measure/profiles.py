"""What two profiles say: the time that each function or operator took by itself, and where the arms differ.

A profile is kept for as long as logs are: Chrome's trace format, which Perfetto and Speedscope open, what ``perf script``
prints, which Speedscope and Firefox's profiler do, simpleperf's samples, or a trace of Perfetto's, which its page does.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aibenchd import errors, model
from aibenchd.measure import perfetto

DIRECTORY = "logs/profile"  # below the state directory
SUFFIXES = {
    model.Profiler.OWN: "json.gz",
    model.Profiler.PERF: "perf.txt.gz",
    model.Profiler.SIMPLEPERF: "simpleperf.txt.gz",
    model.Profiler.PERFETTO: "perfetto-trace.gz",
}
SHOWN = 40  # rows that are kept, the largest differences first
LONGEST = 200  # characters of a name
LARGEST = 64 << 20  # bytes of a trace that is read: to parse it takes ten times that, and no other thread runs meanwhile
HERTZ = 499  # of samples; not a divisor of anything's period
TAKEN = "# processes: {}, Hz: {}"  # how a file of samples ends: how many processes it is of, how often a second one was taken
DEVIATIONS = 1.96  # of a normal law, on either side of its mean: 95 %
ERROR = 0.05  # how often any change of a table may be told where there is none
FRAME = re.compile(r"^\s+[0-9a-f]+ (.+) \((.*)\)$")
OFFSET = re.compile(r"\+0x[0-9a-f]+$")
TOLD = re.compile(TAKEN.format("([1-9][0-9]*)", "([1-9][0-9]*)"))
UNNAMED = re.compile(
    r"^\*?[^ ]*\[\+[0-9a-f]+\]$"
)  # simpleperf's word for what no symbol is known of: its file, and where in that


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds that each name took by itself: of one run of the network, or of a whole process where ``runs`` is 0.

    ``sample`` is how long a sample stands for, of one process; 0 where nothing was sampled. ``counts`` are what is no time.
    """

    own: Mapping[str, float]
    runs: int
    sample: float = 0.0
    counts: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """All that were taken."""
        return sum(self.taken(name) for name in self.own)

    def taken(self, name: str) -> int:
        """How many samples were taken in ``name``."""
        return round(self.own.get(name, 0.0) / self.sample) if self.sample else 0


def path(state_directory: Path, experiment: int, arm: model.ArmName) -> Path:
    """Where an arm's profiles are, but for the suffix of their kind."""
    return state_directory / DIRECTORY / f"{experiment}-{arm.value}"


def keep(fresh: Path, kind: model.Profiler) -> None:
    """Compress a profile, and name it after its kind. All of it or nothing. Blocking."""
    packed = fresh.with_name(f"{fresh.name}.fresh")
    with fresh.open("rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    packed.replace(fresh.with_name(f"{fresh.name}.{SUFFIXES[kind]}"))
    fresh.unlink()


def kept(state_directory: Path, experiment: int, arm: model.ArmName) -> dict[model.Profiler, Path]:
    """An arm's profiles by their kinds. Blocking."""
    stem = path(state_directory, experiment, arm)
    found = ((kind, stem.with_name(f"{stem.name}.{suffix}")) for kind, suffix in SUFFIXES.items())
    return {kind: file for kind, file in found if file.is_file()}


def compared(state_directory: Path, experiment: int) -> model.JsonObject:
    """Where the arms of an experiment differ, as it is kept with a finding. Blocking.

    Returns:
        ``profiler per unit rows files samples`` of what says most of the program itself; ``also``, the same of each further
        profile; and ``unread``, why a kind of them says nothing. ``samples`` is how many each arm has; none where nothing was
        sampled.

    Raises:
        CommandError: an arm left no profile, they left none of one kind, or none can be read.
    """
    both = {arm: kept(state_directory, experiment, arm) for arm in model.ArmName}
    if missing := [arm.value for arm, one in both.items() if not one]:
        raise errors.CommandError(f"no profile of the {' and the '.join(missing)}")
    kinds = [kind for kind in model.Profiler if all(kind in one for one in both.values())]
    if not kinds:
        treatment, control = (", ".join(kind.value for kind in one) for one in both.values())
        raise errors.CommandError(f"the treatment was profiled by {treatment} and the control by {control}")
    tables: list[model.JsonObject] = []
    unread: list[model.Json] = []
    for kind in kinds:
        try:
            tables += _tables(state_directory, kind, {arm: one[kind] for arm, one in both.items()})
        except errors.CommandError as error:
            unread.append(f"{kind.value}: {error}")
    if not tables:
        raise errors.CommandError("; ".join(map(str, unread)))
    first, *also = tables
    return {**first, "also": also, "unread": unread}


def _tables(state_directory: Path, kind: model.Profiler, files: Mapping[model.ArmName, Path]) -> list[model.JsonObject]:
    """Where two profiles of one kind differ, in each thing that both say."""
    read = {arm: READERS[kind](file) for arm, file in files.items()}
    treatment, control = (read[arm] for arm in model.ArmName)
    if not (said := [view for view in treatment if view in control]):
        raise errors.CommandError(f"of the arms one says {' and '.join(treatment)}, the other {' and '.join(control)}")
    return [
        {
            "profiler": " ".join(filter(None, (kind.value, view))),
            "per": "run" if treatment[view].runs else "process",
            "unit": "us",
            "rows": difference(treatment[view], control[view]),
            "files": {arm.value: str(file.relative_to(state_directory)) for arm, file in files.items()},
            "samples": {arm.value: read[arm][view].samples for arm in files if read[arm][view].sample},
        }
        for view in said
    ]


def difference(treatment: Profile, control: Profile) -> list[model.Json]:
    """The names whose own time differs most: ``name treatment control change within told``, in microseconds; counts before them.

    ``within`` is half of the change's interval of 95 %, by the number of samples alone, which is Poisson; 0 where every call was
    timed. ``told`` is whether chance draws no such change, in any of the names, but in 5 % of all tables (:data:`ERROR`); those
    come first. A count has a ``unit`` of its own.
    """
    names = sorted(treatment.own.keys() | control.own.keys())
    told = {name: chance(treatment, control, name) <= ERROR / len(names) for name in names}
    rows = [(name, treatment.own.get(name, 0.0), control.own.get(name, 0.0)) for name in names]
    rows.sort(key=lambda row: (not told[row[0]], -abs(row[1] - row[2])))
    times: list[model.Json] = [
        {
            "name": name[:LONGEST],
            "treatment": round(one, 3),
            "control": round(other, 3),
            "change": round(one - other, 3),
            "within": round(DEVIATIONS * math.sqrt(one * treatment.sample + other * control.sample), 3),
            "told": told[name],
        }
        for name, one, other in rows[:SHOWN]
    ]
    counted = sorted(treatment.counts.keys() | control.counts.keys())
    both = [(name, treatment.counts.get(name, 0.0), control.counts.get(name, 0.0)) for name in counted]
    counts: list[model.Json] = [
        {
            "name": name,
            "treatment": round(one, 3),
            "control": round(other, 3),
            "change": round(one - other, 3),
            "within": 0.0,
            "told": True,
            "unit": "",
        }
        for name, one, other in both
    ]
    return counts + times


def chance(treatment: Profile, control: Profile, name: str) -> float:
    """How often two profiles have as far apart numbers of samples in ``name``, or farther, where it takes as long in both.

    Exact: of two Poisson counts, given their sum, one is binomial (Przyborowski and Wilenski 1940). 0 where nothing was sampled.
    """
    if not (treatment.sample and control.sample):
        return 0.0
    one, both = treatment.taken(name), treatment.taken(name) + control.taken(name)
    share = control.sample / (treatment.sample + control.sample)  # of the samples; an arm that ran more often has more
    mean = share * both
    beyond = range(one, both + 1) if one > mean else range(one + 1)
    ways = (math.lgamma(both + 1) - math.lgamma(k + 1) - math.lgamma(both - k + 1) for k in beyond)
    shares = (k * math.log(share) + (both - k) * math.log1p(-share) for k in beyond)
    return min(1.0, 2 * math.fsum(math.exp(many + each) for many, each in zip(ways, shares, strict=True)))


def of_trace(file: Path) -> Profile:
    """A profile in Chrome's trace format: an object with ``traceEvents``, and ``runs`` where it knows them; or the events alone.

    Raises:
        CommandError: it is none, or too large.
    """
    text = _whole(file, LARGEST)
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
    innermost, sample = False, 1e6 / HERTZ
    for row in _rows(file):
        if told := TOLD.match(row):
            sample = 1e6 / int(told[1]) / int(told[2])
        elif not row[0].isspace():
            innermost = True
        elif innermost and (frame := FRAME.match(row)):
            own[_function(frame[1], frame[2])] += 1
            innermost = False
    return _sampled(file, own, sample)


def of_simpleperf(file: Path) -> Profile:
    """What ``simpleperf report-sample`` printed: samples, each a row of its name and rows that are indented.

    The innermost frame's file and symbol are indented once, and those of its callers twice.

    Raises:
        CommandError: it holds no sample.
    """
    own: collections.Counter[str] = collections.Counter()
    binary, sample = "", 1e6 / HERTZ
    for row in _rows(file):
        if told := TOLD.match(row):
            sample = 1e6 / int(told[1]) / int(told[2])
        elif row.startswith("  file: "):
            binary = row.removeprefix("  file: ").strip()
        elif row.startswith("  symbol: "):
            symbol = row.removeprefix("  symbol: ").strip()
            own[_function("[unknown]" if UNNAMED.match(symbol) else symbol, binary)] += 1
    return _sampled(file, own, sample)


def of_perfetto(file: Path) -> dict[str, Profile]:
    """What a trace of Perfetto's says: of its samples, where it has some, and of its scheduler.

    Raises:
        CommandError: it is none, is too large, or says nothing of the program.
    """
    data = _whole(file, perfetto.LARGEST)
    try:
        told = perfetto.read(data)
    except errors.CommandError as error:
        raise errors.CommandError(f"{file.name}: {error}") from error
    found = {}
    if told.samples:
        each = 1e6 / perfetto.HERTZ / told.processes
        found["samples"] = Profile({name: count * each for name, count in told.samples.items()}, 0, each)
    if told.times:
        times, counts = ({name: of / told.processes for name, of in all_of.items()} for all_of in (told.times, told.counts))
        found["scheduling"] = Profile(times, 0, counts=counts)
    return found


def _alone(read: Callable[[Path], Profile]) -> Callable[[Path], dict[str, Profile]]:
    """A reader of what says one thing only."""
    return lambda file: {"": read(file)}


READERS: Mapping[model.Profiler, Callable[[Path], dict[str, Profile]]] = {
    model.Profiler.OWN: _alone(of_trace),
    model.Profiler.PERF: _alone(of_samples),
    model.Profiler.SIMPLEPERF: _alone(of_simpleperf),
    model.Profiler.PERFETTO: of_perfetto,
}


def _sampled(file: Path, counts: Mapping[str, int], sample: float) -> Profile:
    if not counts:
        raise errors.CommandError(f"{file.name}: holds no sample: the program was over too soon, or spent its time elsewhere")
    return Profile({name: count * sample for name, count in counts.items()}, 0, sample)


def _function(symbol: str, binary: str) -> str:
    """A function as both arms name it: their binaries lie in other directories."""
    return f"{OFFSET.sub('', symbol)} ({Path(binary).name})"


def _whole(file: Path, limit: int) -> bytes:
    with _reading(file) as opened:
        data = opened.read(limit + 1)
    if len(data) > limit:
        raise errors.CommandError(f"{file.name}: more than {limit:,} bytes are not read; profile fewer iterations")
    return data


def _rows(file: Path) -> Iterator[str]:
    with _reading(file) as opened:
        for row in opened:
            yield row.decode(errors="replace")


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[gzip.GzipFile]:
    try:
        with gzip.open(file) as opened:
            yield opened
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise errors.CommandError(f"{file.name}: cannot be read: {error}") from error
