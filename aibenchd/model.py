"""The words of the design as frozen dataclasses. Imports nothing of ours, does no I/O."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
JsonObject: TypeAlias = Mapping[str, Json]


def canonical_json(value: Json) -> str:
    """The one text of a JSON value: sorted keys, no spaces. What digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Json) -> str:
    """SHA-256 of a JSON value's canonical text, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class ArmName(enum.StrEnum):
    """Which arm of an experiment; an experiment of one arm has only the treatment."""

    TREATMENT = "treatment"
    CONTROL = "control"


SUBMITTED = "submitted"  # the repository that what people send is of; no other has this name


class RunType(enum.StrEnum):
    """Why an experiment is run, in FAI-PEP's words."""

    BENCHMARK = "benchmark"
    VERIFY = "verify"
    REGRESS = "regress"
    ANCHOR = "anchor"  # two commits that are far apart: no drift between them shows in what compares neighbours
    PROFILE = "profile"  # both arms of a confirmed regression under a profiler: says where, not how much
    SELFCHECK = "selfcheck"  # one commit against itself, so that whatever is found is a false alarm
    COMPARE = "compare"  # two cells of the coverage matrix, that a person asked for; says nothing of a commit
    SUBMISSION = "submission"  # programs that a person built and sent; of no commit


class Profiler(enum.StrEnum):
    """What a profile was made by."""

    OWN = "the program's own profiler"
    PERF = "perf"
    SIMPLEPERF = "simpleperf"
    PERFETTO = "Perfetto"


class Verdict(enum.StrEnum):
    """What an experiment ends with. ``MEASURED`` is the end of an experiment of one arm that worked."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    IDENTICAL = "identical"  # unchanged, without a trial: equal programs, files and commands
    INCONCLUSIVE = "inconclusive"
    BROKEN = "broken"
    MEASURED = "measured"


class Outcome(enum.StrEnum):
    """How a trial ended. Only ``LOST`` and ``HARNESS`` are tried again, on the same block."""

    OK = "ok"
    FAILED = "failed"  # the program's fault: exit code, signal, unreadable output, another backend than asked
    TIMED_OUT = "timed out"
    LOST = "device lost"
    HARNESS = "harness at fault"


class Agreement(enum.StrEnum):
    """What a trial's outputs were, by what they were compared with."""

    UNKNOWN = ""  # with nothing
    RIGHT = "right"
    WRONG = "wrong"  # beyond the tolerance of the golden output
    DIFFERS = "differs"  # from the control's of the same block, where there is no golden one
    UNSTEADY = "unsteady"  # from the same arm's of an earlier block, so that a difference between the arms says nothing


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of a watched repository.

    Attributes:
        repository: its name in the configuration.
        commit: full hexadecimal id.
        parents: ids of its parents, first parent first.
        time: commit time, aware, UTC.
        subject: first line of the message.
        position: rank on the watched branch's first-parent line; larger is newer.
        relevant: whether the path filters let it through.
    """

    repository: str
    commit: str
    time: datetime
    parents: tuple[str, ...] = ()
    author: str = ""
    subject: str = ""
    position: int = 0
    relevant: bool = True


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One model with one test of it, after expansion of its specification.

    ``model`` and ``test`` are the specification's own JSON after step 4 or 5 of the format
    (string map, meta, shapes and ``{ID}`` applied); placeholders are read from them when commands are composed.
    ``source`` is the file that it came from, for messages.
    """

    model: JsonObject
    test: JsonObject
    source: str = ""

    @property
    def identifier(self) -> str:
        """What people call the test, and ask for it by; empty where the specification has none."""
        return str(self.test.get("identifier", ""))

    @property
    def name(self) -> str:
        """What people call the model; empty where the specification has none."""
        return str(self.model.get("name", ""))

    @property
    def framework(self) -> str:
        """The framework that must run it; empty where any may."""
        return str(self.model.get("framework", ""))

    @property
    def metric(self) -> str:
        """What its test is for, such as ``delay`` or ``accuracy``; empty where it does not say."""
        return str(self.test.get("metric", ""))

    @property
    def digest(self) -> str:
        """What makes it this benchmark: equal digests are measured by equal commands on equal files."""
        return digest_of({"model": self.model, "test": self.test})


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one metric of one trial, in the order they were taken.

    Attributes:
        type: ``NET`` for the network, else an operator (``ID_0_Conv``) or a name of the program's own.
        metric: such as ``latency``; ``<type> <metric>`` is the key of the series.
        unit: such as ``us``, ``B``; empty where there is none.
        values: the samples; empty where the program states a text only.
        text: FAI-PEP's ``info_string``.
    """

    type: str
    metric: str
    unit: str = ""
    values: tuple[float, ...] = ()
    text: str = ""

    @property
    def key(self) -> str:
        return f"{self.type} {self.metric}"


NETWORK = "NET latency"  # the series that a delay is decided on
OTHER_MEASURES = frozenset({"accuracy", "power", "error"})  # a test of these is not decided on the time that it takes


def decisive(series: Sequence[Series], metric: str = "delay") -> Series | None:
    """The series that a trial is decided on: the network's latency, else the first that has samples.

    A test of accuracy or power is decided on the first series whose metric, or else whose type, has that name.
    """
    sampled = [one for one in series if one.values]
    if metric in OTHER_MEASURES:
        named = [one for one in sampled if one.metric == metric] + [one for one in sampled if metric in one.type.lower()]
        return named[0] if named else None
    return next((one for one in sampled if one.key == NETWORK), sampled[0] if sampled else None)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one arm's program in a fresh process on a device.

    Attributes:
        started: aware, UTC.
        seconds: wall time from the first to the last process of the trial.
        backend: what really executed, by the program's own evidence; empty where it states none.
        agreement: of its outputs.
        reason: why ``outcome`` is not ``OK``, or what is wrong with the outputs, for a person.
        log: where the end of its output is kept, relative to the state directory; empty where it is not.
    """

    arm: ArmName
    outcome: Outcome
    started: datetime
    seconds: float = 0.0
    series: tuple[Series, ...] = ()
    backend: str = ""
    agreement: Agreement = Agreement.UNKNOWN
    reason: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Each arm of an experiment once, in random order: journalled, resumed and analysed as one.

    ``trials`` are in the order they ran. A block counts in the analysis only where ``valid``.
    """

    number: int
    trials: tuple[Trial, ...]

    @property
    def valid(self) -> bool:
        """Whether each of its trials ended well."""
        return all(trial.outcome is Outcome.OK for trial in self.trials)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the blocks so far say.

    Attributes:
        verdict: None while undecided.
        blocks: how many blocks were analysed.
        estimate, low, high: treatment / control as a ratio minus 1 (0.02 is 2 % slower), and the confidence
            interval that the verdict rests on, valid at any stopping time; NaN for a side that has no bound yet.
        reason: for a person, where the numbers do not say it.
        in_tail: whether the verdict and its numbers are of the slow iterations alone: by :mod:`aibenchd.decide.guard`, or
            because nothing else was decided on.
    """

    verdict: Verdict | None
    blocks: int
    estimate: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""
    in_tail: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an experiment that is undecided is expected to take still; None where that is not known.

    Attributes:
        blocks, seconds: that are left, of the device's time.
        out_of_reach: whether its budget will hardly decide it.
    """

    blocks: int | None = None
    seconds: int | None = None
    out_of_reach: bool = False


_NEVER = 1e-300  # a probability that no evidence reaches


@dataclass(frozen=True, slots=True)
class Rule:
    """How an experiment decides; frozen before its first block.

    Attributes:
        alpha: probability of *regressed* or *improved* where nothing changed, at most, whatever the stopping time.
        beta: probability of *unchanged* where the change is ``min_effect`` or more, at most.
        min_effect: the smallest change that matters, as a ratio minus 1.
        max_blocks: the budget in blocks.
        max_seconds: the budget in seconds since the first block.
        e_value: that a regression must have besides (:func:`aibenchd.decide.multiplicity.log_e_values`): one of many suspects
            that are measured again is called one where it would be chosen among all of them.
        known: what findings that stand explain of the ratio, at most, as a ratio minus 1: *regressed* is slower than that.
    """

    alpha: float = 0.01
    beta: float = 0.05
    min_effect: float = 0.02
    max_blocks: int = 60
    max_seconds: float = 3600.0
    e_value: float = 0.0
    known: float = 0.0

    @classmethod
    def of_blocks(cls, blocks: int, min_effect: float) -> Rule:
        """That of an experiment which runs so many blocks, whatever they say."""
        return cls(_NEVER, _NEVER, min_effect, blocks, 1e9)

    @property
    def decides(self) -> bool:
        """Whether it may give a verdict before its budget is spent."""
        return self.alpha > _NEVER


TAIL = 3 / 4  # of a process's iterations, from the fastest on: where the slow ones begin
TAILED = 8  # iterations of a process: fewer have no tail apart from the rest
# Why something is inconclusive.
SPENT, BLOCKS_SPENT = "the budget of time or blocks is spent", "the budget of blocks is spent"
TORN = "no one effect explains all blocks: it changed while it was measured"
ONE_ORDER = "nearly all blocks ran in one order, which cannot tell a change from a slower first or second place"
NO_MORE = "it is no slower than findings that stand explain"
TAIL_UNSURE = "its slowest iterations looked slower, and not surely enough when the budget was spent"
_PARTS = {
    (0.0, 1 / 8): "fastest eighth",
    (0.0, 1 / 2): "fastest half",
    (7 / 16, 9 / 16): "middle eighth",
    (1 / 4, 3 / 4): "middle half",
    (0.0, 1.0): "whole",
    (TAIL, 1.0): "slowest quarter",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """How the iterations of a process become one number, the same in both arms; frozen before an experiment's first block.

    It is the mean of those whose rank lies between two shares of all: 0 and 1/8 are the fastest eighth.

    Attributes:
        skip: leading iterations that are left out, because the program is not steady yet.
        low, high: the shares.
        guard: whether the slow iterations, which the number leaves out, are judged beside it.
    """

    skip: int = 0
    low: float = 0.0
    high: float = 1 / 8
    guard: bool = True

    @property
    def guarded(self) -> bool:
        """Whether the tail is judged beside it: a number that has the tail in it needs no other."""
        return self.guard and self.high < 1

    @property
    def of_tail(self) -> bool:
        """Whether it is of the tail itself."""
        return self.low >= TAIL

    @property
    def tail(self) -> Summary:
        """That of the tail, by itself."""
        return Summary(self.skip, TAIL, 1.0, guard=False)

    def same_number(self, other: Summary) -> bool:
        """Whether both make the same number of a process."""
        return (self.skip, self.low, self.high) == (other.skip, other.low, other.high)

    @property
    def name(self) -> str:
        """In words, such as ``mean of the fastest eighth``."""
        return f"mean of the {_PARTS.get((self.low, self.high), f'iterations from {self.low:.1%} to {self.high:.1%}')}"


@dataclass(frozen=True, slots=True)
class Variant:
    """What one arm runs.

    Attributes:
        framework: name of the framework plug-in that composes and parses.
        backend: what is asked for; empty where the program chooses.
        env, command_args: from the benchmark's selection.
    """

    benchmark: Benchmark
    framework: str
    backend: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    command_args: str = ""


@dataclass(frozen=True, slots=True)
class Design:
    """All that an experiment is, but for its builds and its device; frozen before the first block.

    Attributes:
        framework: name of the framework plug-in that composes and parses.
        backend: what is asked for; empty where the program chooses.
        order: ``coin`` or ``pairs``.
        seed: of the order of arms and of the turns within rounds.
        timeout: seconds, of one trial.
        arms: 1 or 2.
        blocks: how many blocks an experiment of one arm has.
        env, command_args: from the benchmark's selection.
        control: what the control runs where it is not the same, in a comparison of two cells.
        profiled: whether its trials run under a profiler, so that their times say nothing.
        layout: the seed of the memory layout that its builds were made with; then the environment's size is drawn for each
            block too, for that moves the stack. 0: they are laid out as any others.
        summary: how a process becomes a number, where it is a time.
    """

    benchmark: Benchmark
    framework: str
    rule: Rule
    backend: str = ""
    order: str = "coin"
    seed: int = 0
    timeout: float = 600.0
    disturb_caches: bool = True
    arms: int = 2
    blocks: int = 3
    env: Mapping[str, str] = field(default_factory=dict)
    command_args: str = ""
    control: Variant | None = None
    profiled: bool = False
    layout: int = 0
    summary: Summary = field(default_factory=Summary)

    def of(self, arm: ArmName) -> Variant:
        """What ``arm`` runs."""
        if arm is ArmName.CONTROL and self.control is not None:
            return self.control
        return Variant(self.benchmark, self.framework, self.backend, self.env, self.command_args)


@dataclass(frozen=True, slots=True)
class Build:
    """The programs of one (repository, revision, framework, platform).

    Attributes:
        directory: holds ``program`` and what else the build left beside it.
        digest: SHA-256 over names, modes and bytes of all files in ``directory``.
    """

    repository: str
    commit: str
    framework: str
    platform: str
    directory: str
    program: str
    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """One metric of one experiment, in the shape that sinks deliver.

    Attributes:
        id: stable; a receiver that keeps ids sees each record once.
        kind: ``verdict`` (one metric of a decided experiment) or ``samples`` (one series of one block).
        text: the native JSON object as canonical JSON; written once, and sent as it is.
    """

    id: str
    kind: str
    text: str

    @property
    def payload(self) -> JsonObject:
        """The native JSON object, parsed anew at each call; other formats are made of it."""
        parsed: JsonObject = json.loads(self.text)
        return parsed
