"""What people see of what was asked for: what waits, what has ended, and how."""

from __future__ import annotations

from aibenchd.api import experiments, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MEASURED = "measured"  # the verdict of what has one arm
DIGITS = (40, 64)  # of the id of a commit, or of a program's digest
NAMED = 40  # characters of a program's name, the last


def stands(answer: dict[str, Any]) -> str:
    """The state of a request; what was planned is done once none of its experiments waits or goes on."""
    ended = answer.get("outcomes", {}).keys()
    return "done" if answer["state"] == "planned" and ended and not ended & {"waiting", "open"} else str(answer["state"])


def outcomes(answer: dict[str, Any]) -> str:
    """How the experiments of a request ended or stand, counted by words."""
    of_cells = any(item["run_type"] == experiments.COMPARE for item in answer["experiments"])
    words = experiments.OF_CELLS if of_cells else {}
    return screen.tally({words.get(ended, ended): n for ended, n in answer["outcomes"].items()})


def verdicts(answer: dict[str, Any]) -> dict[str, int]:
    """As the experiments of a request ended; those that were measured each by itself count for how they compare."""
    if not answer["apart"]:
        return dict(answer["outcomes"])
    counts = {ended: n for ended, n in answer["outcomes"].items() if ended != MEASURED}
    for one in answer["apart"]:
        if one["verdict"]:
            counts[one["verdict"]] = counts.get(one["verdict"], 0) + 1
    return counts


def requests(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A page of what people asked for, and how far each is."""
    head = ("id", "state", "experiments", "repository", "treatment", "control", "by", "when", "why")
    rows = [
        (
            str(item["id"]),
            stands(item),
            screen.tally(item.get("outcomes", {})),
            item["repository"],
            _asked(item, "treatment"),
            _asked(item, "control"),
            item["requested_by"],
            out.ago(item["created_at"]),
            out.said(item["reason"]) or item["note"] or "",
        )
        for item in answer["requests"]
    ]
    out.table(head, rows)
    out.more(answer)


def _asked(item: dict[str, Any], arm: str) -> str:
    """What an arm of a request is: as it was named, whole, for branches and cells begin alike.

    An id is cut. A program has its digest beside its name, for people call several the same.
    """
    asked = item[arm]
    is_id = len(asked) in DIGITS and not asked.strip("0123456789abcdef")
    said = asked[: screen.SHORT] if is_id else asked
    name = (item["names"] or {}).get(arm, "")
    return f"{name if len(name) <= NAMED else f'…{name[1 - NAMED :]}'} {said}".strip()


def request(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What somebody asked for, and its experiments."""
    out.line(f"request {answer['id']}: {stands(answer)}" + (f", {outcomes(answer)}" if answer["experiments"] else ""))
    named = answer["names"] or {}
    out.facts([("repository", answer["repository"])])
    out.facts([(arm, f"{answer[arm]} {named.get(arm, '')}".strip()) for arm in ("treatment", "control")])
    out.facts([("note", answer["note"]), ("reason", out.said(answer["reason"]))])
    out.facts([("asked", f"{out.ago(answer['created_at'])} by {answer['requested_by']}")])
    if answer["experiments"]:
        out.line()
        experiments.experiments(out, answer | {"next": None})
        _figures(out, answer["experiments"])
    apart(out, answer)


def apart(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How cells of two devices compare, which were measured each by itself."""
    for one in answer["apart"]:
        devices, sure = " against ".join(one["devices"]), f"{100 * (1 - one['error']):g} %"
        processes = " and ".join(map(str, one["processes"]))
        word = experiments.OF_CELLS.get(one["verdict"], one["verdict"])
        found = f"{word} {screen.interval(one)}" if one["verdict"] else "not known yet"
        out.line(f"{one['benchmark']}: {devices}: {found}, {sure}, of {processes} processes, each by itself")


def ended_request(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What somebody waited for."""
    experiments.experiments(out, answer | {"next": None})
    apart(out, answer)
    _figures(out, answer["experiments"])
    out.line(f"request {answer['id']}: {outcomes(answer)}")


def _figures(out: screen.Screen, items: list[dict[str, Any]]) -> None:
    """What was measured of the network in experiments of one arm, of which there is no more to say."""
    rows = [
        (
            str(item["id"]),
            item["device"],
            item["benchmark"],
            result["metric"],
            experiments.statistic(result["treatment"], result["unit"]),
        )
        for item in items
        for result in item["results"]
        if item["control"] is None
    ]
    if rows:
        out.line()
        out.table(("id", "device", "benchmark", "metric", "median"), rows)


def progress(item: dict[str, Any]) -> str:
    """How far one experiment of a request is, in one line."""
    where = f"{item['benchmark']} on {item['device']} {item['backend']}".rstrip()
    blocks = f"{item['block_count']} block{'s' if item['block_count'] != 1 else ''}"
    told = (experiments.told(item), blocks, screen.interval(item), experiments.left_of(item), item["reason"])
    return f"{where}: {', '.join(filter(None, told))}"


def standing(answer: dict[str, Any], devices: list[dict[str, Any]]) -> str:
    """How far a request is, and what it waits for, in one line."""
    if answer["state"] != "planned":
        return f"request {answer['id']}: waits to be planned"
    left = [item for item in answer["experiments"] if item["state"] in ("waiting", "open")]
    at_work = {item["device"] for item in left if item["state"] == "open"}
    said = [
        f"{one['name']} {one['state']}" + (f": {one['reason']}" if one["reason"] else "")
        for one in devices
        if one["name"] in at_work
    ]
    seconds = [item["seconds_left"] for item in left if item["seconds_left"] is not None]
    of = f" for {len(seconds)} of {len(left)}" if len(seconds) < len(left) else ""
    expected = [f"about {screen.span(sum(seconds))} of device time left{of}"] if seconds else []
    builds = ["builds are waited for"] if any(item["state"] == "waiting" for item in left) else []
    return "; ".join([f"request {answer['id']}: {outcomes(answer)}", *expected, *builds, *said])
