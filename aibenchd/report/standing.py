"""How a commit stands, by what has become of its experiments: what a person reads beside it where it is kept. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from aibenchd import model
from aibenchd.plan import suspicion

FINE = (model.Verdict.UNCHANGED, model.Verdict.IMPROVED, model.Verdict.IDENTICAL, model.Verdict.MEASURED)


@dataclass(frozen=True, slots=True)
class Cell:
    """The newest experiment of a commit in one cell.

    Attributes:
        state, verdict, reason, estimate, in_tail: of the experiment.
        finding, finding_state, unverified: that it began, where it did; whether no one measured that again.
        sighted: whether it shows what an older commit's finding has shown.
    """

    benchmark: str
    device: str
    state: str
    verdict: model.Verdict | None = None
    reason: str = ""
    estimate: float | None = None
    finding: int | None = None
    finding_state: str | None = None
    unverified: bool = False
    sighted: bool = False
    in_tail: bool = False

    @property
    def group(self) -> str:
        """Which of the fields of :class:`Standing` counts it; empty where none does."""
        if self.state == "cancelled":
            return ""
        if self.state == "skipped":
            return "unmeasured"
        if self.state != "decided":
            return "measuring"
        if self.verdict in suspicion.BAD:
            return self._bad()
        return "inconclusive" if self.verdict is model.Verdict.INCONCLUSIVE else "fine"

    def _bad(self) -> str:
        if self.sighted or self.finding_state in (suspicion.REFUTED, suspicion.ACCEPTED):
            return "fine"  # by itself this commit changed nothing, or what it changed is accepted
        if self.finding_state == suspicion.OPEN or self.unverified:
            return str(self.verdict)
        return "inconclusive" if self.finding_state == suspicion.UNCONFIRMED else "measuring"  # it is measured again, or will be


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a commit: how many of its cells are in which group.

    Attributes:
        state: ``failure``, something is confirmed to be slower, wrong or broken; else ``pending``, something is being measured;
            ``error``, something does not build or cannot be run; ``inconclusive``, something could not be told; or ``success``.
        text: in a few words.
        finding: the first of those that failed, where there is one.
    """

    state: str
    text: str
    finding: int | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def json(self) -> dict[str, model.Json]:
        """What is kept and told of it."""
        return {"state": self.state, "text": self.text, "finding": self.finding, "counts": dict(self.counts)}


def of(cells: Iterable[Cell]) -> Standing | None:
    """How a commit stands; None where it has no cell that counts."""
    grouped = [(cell.group, cell) for cell in cells]
    counts = Counter(group for group, _ in grouped if group)
    if not counts:
        return None
    bad = [cell for group, cell in grouped if group in suspicion.BAD]
    if bad:
        worst = max(bad, key=lambda cell: (cell.verdict is model.Verdict.BROKEN, cell.estimate or 0.0))
        return Standing("failure", _failed(worst, len(bad) - 1), worst.finding, _final(counts))
    if counts["measuring"]:
        return Standing("pending", "being measured")
    if counts["unmeasured"]:
        why = next(cell.reason for group, cell in grouped if group == "unmeasured")
        return Standing("error", f"{counts['unmeasured']} of {counts.total()} not measured: {why}", None, _final(counts))
    if counts["inconclusive"]:
        return Standing(
            "inconclusive", f"{counts['inconclusive']} of {counts.total()} inconclusive, others fine", None, _final(counts)
        )
    return Standing("success", f"{counts['fine']} measured, none regressed", None, _final(counts))


def _failed(worst: Cell, others: int) -> str:
    change = "" if worst.estimate is None else f" {worst.estimate:+.1%}"
    where = " in the tail" if worst.in_tail else ""
    text = f"{worst.verdict}{change}{where}: {worst.benchmark} on {worst.device}"
    return f"{text}, and {others} more" if others else text


def _final(counts: Counter[str]) -> dict[str, int]:
    """Without what is under way, so that a step of that is nothing new."""
    return {group: count for group, count in sorted(counts.items()) if group not in ("measuring", "fine")}
