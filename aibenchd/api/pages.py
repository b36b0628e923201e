"""One function per answer of the daemon: how the client shows it to a person."""

from __future__ import annotations

from aibenchd.api import devices, experiments, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMED = 3  # models in one line; more are counted


def status(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Faults first, then what is watched, measured, queued and found."""
    _heading(out, answer)
    _faults(out, answer["faults"])
    _section(out, "REPOSITORIES", repositories, answer)
    _section(out, "DEVICES", devices.at_work, answer)
    _section(out, "SINKS", sinks, answer)
    _section(out, "MODELS", models, answer)
    out.line()
    out.line(f"experiments  {screen.tally(answer['experiments'])}")
    out.line(f"verdicts     {screen.tally(answer['verdicts'])}")
    out.line(f"findings     {screen.tally(answer['findings'])}", "regressed" if "open" in answer["findings"] else "")
    out.line(f"builds       {screen.tally(answer['builds'])}")
    _selfcheck(out, answer["selfcheck"])
    if answer["recent"]:
        out.line()
        out.line("LAST VERDICTS", "heading")
        experiments.experiments(out, {"experiments": answer["recent"], "next": None})


def _selfcheck(out: screen.Screen, checked: dict[str, Any]) -> None:
    """How often a commit was found to differ from itself; in red where that is more than is promised, beyond chance."""
    if checked["experiments"]:
        rate = f"{checked['rate']:.1%} ({checked['low']:.1%} … {checked['high']:.1%})"
        said = f"{checked['alarms']} of {checked['experiments']} are false alarms, {rate}; promised: {checked['promised']:.1%}"
        out.line(f"self-check   {said}", "regressed" if checked["low"] > checked["promised"] else "")


def repositories(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What is watched, and the newest commit of each that is known; of one that is a fault, why."""
    items = answer["repositories"]
    head = ("repository", "branch", "state", "polled", "head", "subject")
    rows = [
        (
            item["name"],
            item["branch"],
            item["state"],
            out.ago(item.get("polled_at")),
            (item.get("head") or "")[: screen.SHORT],
            out.said(item["reason"]) if item["fault"] else item.get("subject") or "",
        )
        for item in items
    ]
    out.table(head, rows, [screen.style_of(item) for item in items])


def sinks(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What waits for delivery; then the dead letters, where the answer has them: the status has none."""
    items = answer["sinks"]
    rows = [
        (
            item["name"],
            item["kind"],
            item["state"],
            out.ago(item["since"]),
            str(item["pending"]),
            screen.size(item["pending_bytes"]),
            str(item["dead"]),
            out.said(item["reason"]),
        )
        for item in items
    ]
    out.table(
        ("sink", "kind", "state", "since", "waiting", "size", "dead", "reason"), rows, [screen.style_of(item) for item in items]
    )
    letters = [(item["name"], letter) for item in items for letter in item.get("dead_letters", ())]
    if letters:
        out.line()
        out.line("DEAD LETTERS", "heading")
        out.table(
            ("sink", "record", "made", "reason"),
            [(name, letter["record"], out.ago(letter["created_at"]), letter["reason"]) for name, letter in letters],
        )


def models(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Files that are being fetched."""
    items = answer["models"]
    rows = [(item["name"], item["state"], out.ago(item["since"]), item["reason"]) for item in items]
    out.table(("file", "state", "since", "progress"), rows, [screen.style_of(item) for item in items])


def coverage(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A matrix: a row per model, a column per framework, device and backend; what is not measured, with why, below it."""
    cells = answer["coverage"]
    texts = {(cell["row"], cell["column"]): _cell(out, cell) for cell in cells}
    columns = sorted({cell["column"] for cell in cells if cell["state"] != "impossible"})
    rows = sorted({cell["row"] for cell in cells})
    out.bands(("model", *columns), [(row, *(texts.get((row, column), "") for column in columns)) for row in rows])
    _reasons(out, cells)
    if any(cell["state"] == "measured" for cell in cells):
        out.line()
        out.line(
            "median over processes, ± half of its interval (95 % from six processes on), its age; * the least of its row", "dim"
        )
        out.line(f"'{out.program} compare MODEL CELL CELL' measures two cells against each other", "dim")
    if answer["left_out"]:
        out.line(f"and {answer['left_out']} cells more", "dim")


def revisions(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A page of revisions; one that was not measured says why in place of its verdicts."""
    head = ("repository", "commit", "committed", "state", "experiments", "author", "subject")
    rows = [
        (
            item["repository"],
            item["commit"][: screen.SHORT],
            out.ago(item["time"]),
            item["state"],
            screen.tally(item["experiments"]) if item["experiments"] else item["note"],
            item["author"],
            item["subject"],
        )
        for item in answer["revisions"]
    ]
    worst = [
        next((verdict for verdict in ("broken", "regressed") if verdict in item["experiments"]), "")
        for item in answer["revisions"]
    ]
    out.table(head, rows, worst)
    out.more(answer)


def builds(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A page of builds, failed ones with their reason."""
    items = answer["builds"]
    head = ("id", "repository", "commit", "framework", "platform", "state", "size", "queued", "reason")
    rows = [
        (
            str(item["id"]),
            item["repository"],
            item["commit"][: screen.SHORT],
            item["framework"],
            item["platform"],
            item["state"],
            screen.size(item["size"]),
            out.ago(item["queued_at"]),
            item["reason"],
        )
        for item in items
    ]
    out.table(head, rows, [item["state"] for item in items])
    out.more(answer)


def event(out: screen.Screen, answer: dict[str, Any]) -> None:
    """One event in one line, its facts as ``name=value``."""
    facts = " ".join(f"{name}={value}" for name, value in answer.items() if name not in ("topic", "time"))
    out.line(f"{answer['time'][:19]} {answer['topic']} {facts}")


def _cell(out: screen.Screen, cell: dict[str, Any]) -> str:
    """Such as ``12.3 ms ±0.4% 3h *``; a state, where there is nothing to rank."""
    figure = cell["measured"]
    if cell["state"] != "measured" or figure is None:
        return str(cell["state"])
    half = 50 * (figure["high"] - figure["low"]) / figure["median"] if figure["median"] else 0.0
    within = f" ±{half:.1f}%" if figure["processes"] > 1 else ""
    mark = " *" if cell["fastest"] else ""
    return (
        f"{screen.quantity(figure['median'], figure['unit'])}{within} {out.ago(cell['measured_at']).removesuffix(' ago')}{mark}"
    )


def _reasons(out: screen.Screen, cells: list[dict[str, Any]]) -> None:
    """Why cells are not measured, those of one column with one reason in one line."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["reason"]:
            found.setdefault((cell["state"], cell["column"], cell["reason"]), []).append(cell["row"])
    if found:
        out.line()
        rows = [
            (state, column, ", ".join(models) if len(models) <= NAMED else f"{len(models)} models", reason)
            for (state, column, reason), models in sorted(found.items())
        ]
        out.table(("state", "cell", "models", "why"), rows, [row[0] for row in rows])


def _heading(out: screen.Screen, answer: dict[str, Any]) -> None:
    out.line(f"aibenchd {answer['version']}, started {out.ago(answer['started_at'])}, {answer['config']}")
    if answer["paused"]:
        out.line(
            f"PAUSED {out.ago(answer.get('paused_since'))} by {answer.get('paused_by')}; '{out.program} resume' ends it", "fault"
        )


def _faults(out: screen.Screen, faults: list[dict[str, Any]]) -> None:
    if faults:
        out.line()
        out.line("FAULTS", "heading")
        rows = [(fault["unit"], fault["state"], out.ago(fault["since"]), out.said(fault["reason"])) for fault in faults]
        out.table(("unit", "state", "since", "why"), rows, ["fault"] * len(rows))


def _section(out: screen.Screen, title: str, page: Any, answer: dict[str, Any]) -> None:
    if answer[title.lower()]:
        out.line()
        page(out, answer)
