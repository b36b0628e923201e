"""What people see of experiments: how one ended or stands, its blocks, what was measured, and those of a series."""

from __future__ import annotations

from aibenchd.api import screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


COMPARE = "compare"  # the run type of a comparison of two cells
SUBMISSION = "submission"  # that of programs which people sent
PROFILE = "profile"  # that of both builds of a finding under a profiler
UNDER_PROFILER = "under a profiler: its times have the profiler's own costs in them, and compare with nothing"
TAILS = {"tail: treatment": "treatment_tail", "tail: control": "control_tail"}  # columns of blocks that are judged in the tail
OF_CELLS = {"regressed": "slower", "improved": "faster", "unchanged": "as fast"}  # a comparison of cells regresses nothing


def left_of(experiment: dict[str, Any]) -> str:
    """What it is expected to take still; empty where it is decided, or that is not known."""
    if experiment["seconds_left"] is None:
        return ""
    late = "; its budget will hardly decide it, so that others go first" if experiment["out_of_reach"] else ""
    return f"{screen.left(experiment['blocks_left'], experiment['seconds_left'])} left{late}"


def change(item: Mapping[str, Any]) -> str:
    """The effect that it shows, with its interval; none of what ran under a profiler, which is a difference of its costs too."""
    return "" if item["run_type"] == PROFILE else screen.interval(item)


def experiments(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A page of experiments, which ``left_of`` says more of while they are undecided."""
    items = answer["experiments"]
    head = (
        "id",
        "verdict",
        "change",
        "blocks",
        "run",
        "device",
        "backend",
        "benchmark",
        "treatment",
        "control",
        "when",
        "reason",
    )
    rows = [
        (
            str(item["id"]),
            told(item),
            change(item),
            str(item["block_count"]),
            item["run_type"],
            item["device"],
            item["backend"],
            item["benchmark"],
            item["treatment"][: screen.SHORT],
            (item["control"] or "")[: screen.SHORT],
            out.ago(item["decided_at"] or item["started_at"] or item["created_at"]),
            "; ".join(filter(None, (left_of(item), out.said(item["reason"])))),
        )
        for item in items
    ]
    out.table(head, rows, [_style(item) for item in items])
    out.more(answer)


def experiment(out: screen.Screen, answer: dict[str, Any]) -> None:
    """All about one: what it is, its blocks, what was measured."""
    is_profile = answer["run_type"] == PROFILE
    out.line(f"experiment {answer['id']}: {told(answer)} {change(answer)}".rstrip(), _style(answer))
    if is_profile:
        out.line(f"  {UNDER_PROFILER}")
        out.facts([("where time goes", out.command(f"finding {answer['finding']}"))])
    out.facts([("expected", left_of(answer))])
    facts = ("repository", "run_type", "benchmark", "model", "device", "backend", "treatment", "control")
    out.facts([*((name, answer[name]) for name in facts), ("reason", out.said(answer["reason"]))])
    out.facts([(f"{arm} runs", _variant(answer["design"], arm)) for arm in _arms(answer)])
    out.facts([("decided on", answer["decided_on"])])
    out.facts([(name, out.ago(answer[f"{name}_at"])) for name in ("created", "started", "decided")])
    builds = [(arm, build) for arm, build in answer["builds"].items() if build]
    out.facts([(f"{arm} build", _build(out, build)) for arm, build in builds])
    for lost in answer["excluded"]:
        trials = "1 trial of the {} does" if lost["trials"] == 1 else f"{lost['trials']} trials of the {{}} do"
        out.line(f"  {trials.format(lost['arm'])} not count, {lost['cause']}: {lost['reason']}")
    if answer["would_help"]:
        out.paragraph(f"what would help: {out.said(answer['would_help'])}", "inconclusive")
        _once_more(out, answer)
    if answer["blocks"]:
        out.line()
        (_profiled_blocks if is_profile else _blocks)(out, answer)
    if answer["results"] and not is_profile:
        out.line()
        _results(out, answer["results"])


def again(item: Mapping[str, Any]) -> list[str]:
    """The command that has the commits of an experiment or a finding measured again, but for the program."""
    commits = [item[arm][: screen.SHORT] for arm in ("treatment", "control") if item[arm]]
    where = {name: item[name] for name in ("repository", "benchmark", "device")}
    return ["ab", *commits, *(word for name, value in where.items() for word in (f"--{name}", value)), "--wait"]


def _once_more(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How to ask again, where that takes no more than commits: of two cells, or of what was sent, their request knows."""
    import shlex

    if answer["run_type"] not in (COMPARE, SUBMISSION):
        out.line(f"once more: {out.command(shlex.join(again(answer)))}", "dim")


def _build(out: screen.Screen, build: dict[str, Any]) -> str:
    """Which it is and what it holds; where it failed, what to read."""
    held = f"'{out.program} log build {build['id']}'" if build["state"] == "failed" else (build["digest"] or "")[: screen.SHORT]
    return ", ".join(part for part in (str(build["id"]), build["state"], held) if part)


def history(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A page of one benchmark on one device; then, where it is one series, what its levels are and whether it creeps."""
    items = answer["history"]
    series = answer["series"] or {"levels": [], "creep": None}
    levels = {one["commit"]: one for one in series["levels"]}
    head = ("id", "verdict", "change", "level", "backend", "treatment", "committed", "measured", "subject")
    rows = [
        (
            str(item["id"]),
            told(item),
            screen.interval(item),
            _level(levels.get(item["treatment"])),
            item["backend"],
            item["treatment"][: screen.SHORT],
            out.ago(item["treatment_time"]),
            "; ".join(
                f"{result['metric']} {statistic(result['treatment'], result['unit'])}"
                for result in item["results"]
                if result["treatment"]
            ),
            item["subject"] or "",
        )
        for item in items
    ]
    out.table(head, rows, [_style(item) for item in items])
    out.more(answer)
    for item in items:
        if said := changed(item):
            out.line(f"from experiment {item['id']} on: {said}", "dim")
    if levels:
        oldest = series["levels"][0]["commit"][: screen.SHORT]
        out.line(
            f"level: time, {series['number']}, over that of {oldest}, all comparisons of it taken together, "
            "± half of its 90 % interval",
            "dim",
        )
    creep = series["creep"]
    if creep and creep["creeps"]:
        since = " … ".join(commit[: screen.SHORT] for commit in creep["since"])
        out.line(f"it creeps: {screen.interval(creep)} since {since}", "regressed")


def changed(item: Mapping[str, Any]) -> str:
    """What an experiment of a history measures other than the one before it, in words; empty where it is the same."""
    what = item.get("changed", "")
    return f"decided on another number, the {item['number']}" if what == "number" else "another specification" if what else ""


def _style(item: dict[str, Any]) -> str:
    """A verdict that no second look has confirmed is dim."""
    return "dim" if doubted(item) else screen.style_of(item)


def _level(level: dict[str, Any] | None) -> str:
    return "" if level is None else f"{level['ratio']:.3f} ±{(level['high'] - level['low']) / 2:.3f}"


def _blocks(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Its blocks; with the slow iterations of each process where the verdict is theirs, and was first asked of the others."""
    blocks, tails = answer["blocks"], tails_of(answer)
    head = ("block", "stratum", "order", "treatment", "control", *tails, "interval so far", "trials")
    rows = [
        (
            str(block["number"]),
            str(block["stratum"]),
            block["order"],
            _number(block["treatment"]),
            _number(block["control"]),
            *(_number(block[arm]) for arm in tails.values()),
            screen.interval(block),
            "; ".join(_trial(out, trial) for trial in block["trials"]),
        )
        for block in blocks
    ]
    out.table(head, rows, ["" if block["valid"] else "failed" for block in blocks])
    summary = answer["decided_on"].partition(";")[0]
    out.line("treatment, control: one number of each process" + (f", the {summary}" if summary else ""), "dim")
    if tails:
        out.line("tail: of each process the mean of the slowest quarter; the last interval is of these", "dim")


def _profiled_blocks(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How its trials ended, and no number that could be taken for the benchmark's."""
    rows = [
        (str(block["number"]), block["order"], "; ".join(_trial(out, trial) for trial in block["trials"]))
        for block in answer["blocks"]
    ]
    out.table(
        ("block", "order", "trials, profiler included"), rows, ["" if block["valid"] else "failed" for block in answer["blocks"]]
    )


def tails_of(answer: Mapping[str, Any]) -> Mapping[str, str]:
    """The columns of slow iterations that the blocks of an experiment are shown with."""
    judged = any(block[name] is not None for block in answer["blocks"] for name in TAILS.values())
    return TAILS if answer.get("in_tail") and judged else {}


def _trial(out: screen.Screen, trial: dict[str, Any]) -> str:
    if trial["outcome"] == "ok":
        return f"{trial['arm']} {screen.quantity(trial['seconds'], 's')}" + (f": {trial['reason']}" if trial["reason"] else "")
    log = f", '{out.program} log trial {trial['id']}'" if trial["log"] else ""
    return f"{trial['arm']} {trial['outcome']}: {trial['reason']}{log}"


def _results(out: screen.Screen, results: list[dict[str, Any]]) -> None:
    rows = [
        (
            result["type"],
            result["metric"],
            statistic(result["treatment"], result["unit"]) or result["text"],
            statistic(result["control"], result["unit"]),
        )
        for result in results
    ]
    out.table(("type", "metric", "treatment", "control"), rows)
    out.line("treatment, control: the median of all samples of all blocks", "dim")


def statistic(statistics: dict[str, Any] | None, unit: str) -> str:
    """The median, else the mean, of a series."""
    value = next(((statistics or {})[name] for name in ("p50", "median", "mean") if name in (statistics or {})), None)
    return "" if value is None else f"{_number(value)} {unit}".strip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def ended(item: Mapping[str, Any]) -> str:
    """How an experiment ended or stands, in a word or a few."""
    verdict = str(item["verdict"] or item["state"])
    if item["run_type"] == COMPARE:
        return OF_CELLS.get(verdict, verdict)
    return f"{verdict} in the tail" if item.get("in_tail") else verdict


def ended_again(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """How an experiment ended, by its second look: a verdict is the first's, and does not go with an interval that holds zero.

    Args:
        second: ``state verify low high confirmed`` of the finding that it began; a *suspect*'s second look goes on.
    """
    low, high = second["low"], second["high"]
    holds_zero = low is not None and high is not None and low <= 0 <= high
    looked = second["verify"] and second["state"] not in ("suspect", "open") and not second["confirmed"]
    return "inconclusive" if looked and holds_zero else ended(first)


def doubted(item: Mapping[str, Any]) -> str:
    """What stands beside a verdict that no second look has confirmed: the finding's state, and the second look's own word.

    Empty where it is confirmed, or no finding began with it.
    """
    look = item.get("second_look")
    if look is None or look["confirmed"]:
        return ""
    word = ended_again(item, look)
    return str(look["state"]) if word == ended(item) else f"{look['state']}: {word}"


def told(item: Mapping[str, Any]) -> str:
    """As :func:`ended`, with what stands beside it: ``regressed (refuted: inconclusive)``."""
    beside = doubted(item)
    return f"{ended(item)} ({beside})" if beside else ended(item)


def _arms(experiment: dict[str, Any]) -> tuple[str, ...]:
    """The arms that run something of their own; none where they differ in their builds alone."""
    return ("treatment", "control") if experiment["design"].get("control") else ()


def _variant(design: dict[str, Any], arm: str) -> str:
    ran = design if arm == "treatment" else design["control"]
    return f"{ran['framework']} {ran['backend']}".rstrip()
