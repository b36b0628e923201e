"""What people see of findings: what regressed, how sure that is, since which commit, and what it is made of."""

from __future__ import annotations

import math

from aibenchd.api import experiments, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FACTS = ("repository", "benchmark", "model", "device", "backend", "treatment", "control")
LARGEST = 700.0  # logarithm of a number that a float holds
OPERATORS = 10  # that are listed
UNTOLD = 3  # rows of a profile, the largest, that samples do not tell
SUSPECT = "suspect"  # the state of one that is being measured again
RUNNING = "running"  # the state of a search that goes on
BAR = 20  # characters
CLOSED = {  # states in which one ends that does not stand
    "refuted": "it was measured again, and refuted",
    "unconfirmed": "neither confirmed nor refuted",
    "accepted": "accepted as the new baseline",
}
ALIKE = 0.01  # relative difference of probabilities between which none stands out
LEAST_SHOWN = 0.005  # probability of a commit that is listed


def findings(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A page of findings: what is not confirmed, or not any more, is dim; of a search that goes on, what it has so far."""
    items = answer["findings"]
    head = (
        "id",
        "state",
        "triage",
        "verdict",
        "change",
        "device",
        "backend",
        "benchmark",
        "treatment",
        "control",
        "culprit",
        "by",
        "found",
        "reason",
    )
    rows = [
        (
            str(item["id"]),
            _state(item),
            item["triage"],
            _word(item),
            _change(item),
            item["device"],
            item["backend"],
            item["benchmark"],
            item["treatment"][: screen.SHORT],
            (item["control"] or "")[: screen.SHORT],
            _culprits(item),
            _whose(item),
            out.ago(item["found_at"]),
            out.said(item["reason"]),
        )
        for item in items
    ]
    out.table(head, rows, ["dim" if item["mended"] or not item["confirmed"] else item["verdict"] for item in items])
    out.more(answer)


def finding(out: screen.Screen, answer: dict[str, Any]) -> None:
    """All about one: what and where, how sure, since which commit, and what it is made of."""
    shown = answer["verdict"] if answer["confirmed"] else "dim"
    out.line(f"finding {answer['id']}: {_state(answer)}, {_word(answer)} {_change(answer)}", shown)
    out.facts([(name, answer[name]) for name in FACTS])
    out.facts([("reason", out.said(answer["reason"])), ("culprit", _culprits(answer)), ("found", out.ago(answer["found_at"]))])
    first = f"experiment {answer['suspect']}, {experiments.ended(answer)} {screen.interval(answer['first_seen'])}"
    again = "measured again" if answer["state"] == SUSPECT else "verified in"
    out.facts([("first seen in", first.rstrip()), (again, _again(answer)), ("mended", _mended(answer))])
    if answer["evidence"] is not None:
        odds = math.exp(min(answer["evidence"], LARGEST))
        out.facts([("evidence", f"{odds:.3g} to 1 against nothing having become slower")])
    _searching(out, answer)
    found = answer["culprits"] or {}
    _suspected(out, {**found, "culprits": []} if is_unmeasured(answer) else found, answer["commits"])
    _explained(out, answer["explained"] or {})
    _profiled(out, answer["profile"])
    for made in answer["triages"]:
        out.facts([(made["action"], _made(out, made))])
    for item in answer["seen_again"]:
        out.line(f"  seen again in experiment {item['id']}, {item['treatment'][: screen.SHORT]} {screen.interval(item)}")
    out.facts([("still to come", ", ".join(answer["coming"]))])
    _further(out, answer)


def closed(answer: dict[str, Any]) -> str:
    """What became of one of which nothing more is to come."""
    if answer["state"] != "open":
        return f"nothing more is to come of finding {answer['id']}: {CLOSED[answer['state']]}"
    stands = f"mended in experiment {answer['mended']}" if answer["mended"] else "it stands"
    search = f"its search ended: {answer['search']}" if answer["search"] else "its commits are not searched (bisect.enabled)"
    return f"nothing more is to come of finding {answer['id']}: confirmed, {stands}; {search}"


def _state(finding: dict[str, Any]) -> str:
    return "mended" if finding["state"] == "open" and finding["mended"] else str(finding["state"])


def _mended(finding: dict[str, Any]) -> str:
    return f"experiment {finding['mended']} shows it to be gone" if finding["mended"] else ""


def _change(finding: dict[str, Any]) -> str:
    """The effect that goes with its verdict: what measures a suspect again has none before it has ended."""
    return screen.interval(finding["first_seen"] if finding["state"] == SUSPECT else finding)


def _word(finding: dict[str, Any]) -> str:
    """How it ended, by its second look where there is one."""
    return experiments.ended_again(finding, finding)


def _further(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What to ask next: the blocks of what measured it last, and the same two commits again."""
    import shlex

    out.line()
    newest = answer["verify"] or answer["suspect"]
    out.line(f"its blocks: {out.command(f'show {newest}')}", "dim")
    if answer["control"]:
        out.line(f"once more:  {out.command(shlex.join(experiments.again(answer)))}", "dim")


def _made(out: screen.Screen, made: dict[str, Any]) -> str:
    """Who made what of it, when and why."""
    by = f" by {made['by']}" if made["by"] else ""
    until = f", until {made['until'][:16].replace('T', ' ')}" if made["until"] else ""
    return f"{out.ago(made['at'])}{by}{until}" + (f": {made['why']}" if made["why"] else "")


def _searching(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How far a search is that goes on: how sure it is of the commits that it would name now, and what that took."""
    found = answer["culprits"] or {}
    if answer["search"] != RUNNING or found.get("probability") is None or is_unmeasured(answer):
        return
    share = min(max(found["probability"], 0.0), 1.0)
    bar = "█" * round(share * BAR) + "░" * (BAR - round(share * BAR))
    took = f"{found['blocks']} blocks, " if found.get("blocks") is not None else ""
    out.line(f"  searching {found['commits']} commits: {bar} {share:.0%} sure, {took}{found['builds']} builds")


def _suspected(out: screen.Screen, found: dict[str, Any], commits: dict[str, Any]) -> None:
    """What each culprit is and did, the commits by their probability where there is more than one, and how the search ended."""
    for culprit in found.get("culprits", ()):
        if culprit.get("effect") is not None:
            out.line(f"  by the search, {_named(culprit)}: {screen.interval({'estimate': culprit['effect'], **culprit})}")
        for commit in (*culprit["commits"], *culprit.get("within", ())):
            if commit in commits:
                out.line(f"    {commit[: screen.SHORT]} {commits[commit]['subject']} ({commits[commit]['author']})")
    likely = {commit: share for commit, share in (found.get("by_commit") or {}).items() if share >= LEAST_SHOWN}
    for commit, share in likely.items() if len(likely) > 1 else ():
        subject = commits[commit]["subject"] if commit in commits else ""
        out.line(f"  {share:6.1%} {commit[: screen.SHORT]} {subject}".rstrip())
    for merge in found.get("merges", ()):
        said = f"{merge['search']}; {merge['reason']}" if merge["reason"] else merge["search"]
        out.line(f"  inside merge {merge['commit'][: screen.SHORT]}, commits {merge['commits']}: {said}")
    if found.get("devices"):
        blocks = ", ".join(f"{device} ({count})" for device, count in found["devices"].items())
        out.line(f"  searched on, with blocks: {blocks}; commits built for all: {found.get('builds', 0)}")
    if found.get("reason"):
        out.line(f"  search: {found['reason']}")


def _again(finding: dict[str, Any]) -> str:
    if not finding["verify"]:
        return ""
    made_for = f", by builds that were made for another memory layout (seed {finding['layout']})" if finding["layout"] else ""
    so_far = f", not ended yet, so far {screen.interval(finding)}".rstrip() if finding["state"] == SUSPECT else ""
    return f"experiment {finding['verify']}{made_for}{so_far}"


def _explained(out: screen.Screen, explained: dict[str, Any]) -> None:
    """Operators by what they add to the network's time, and other quantities that changed."""
    operators = [one for one in explained.get("operators", ()) if one["status"] != "no change shown"][:OPERATORS]
    if operators:
        out.line()
        rows = [
            (one["name"], one["status"], _span(one, explained["unit"]), "" if one["share"] is None else f"{one['share']:.0%}")
            for one in (*operators, explained["rest"])
        ]
        out.table(("operator", "", "change", "share"), rows)
    changed = [one for one in explained.get("quantities", ()) if one["low"] is not None and not one["low"] <= 0 <= one["high"]]
    if changed:
        out.line()
        others = [(one["key"], screen.quantity(one["control"], one["unit"]), _span(one, one["unit"])) for one in changed]
        out.table(("also changed", "was", "change"), others)


def _profiled(out: screen.Screen, profile: dict[str, Any] | None) -> None:
    """Where the arms differ under a profiler: what took more or less by itself; dim where samples tell no difference."""
    if not profile or not (profile["reason"] or profile.get("rows")):
        return
    out.line()
    if profile["reason"]:
        out.line(f"not profiled: {profile['reason']}")
        return
    for by in (profile, *profile["also"]):
        _profile(out, by)
    for said in profile["unread"]:
        out.line(f"  not read: {said}", "dim")


def _profile(out: screen.Screen, by: dict[str, Any]) -> None:
    """What one profiler says."""
    shown = [{"unit": by["unit"], **one} for one in by["rows"]]
    told, untold = [one for one in shown if is_told(one)], [one for one in shown if not is_told(one)]
    largest = [*told, *untold[:UNTOLD]][:OPERATORS]
    rows = [
        (
            one["name"],
            screen.quantity(one["control"], one["unit"]),
            screen.quantity(one["treatment"], one["unit"]),
            _sampled(one, one["unit"]),
        )
        for one in largest
    ]
    styles = ["" if is_told(one) else "dim" for one in largest]
    out.table((f"profile, a {by['per']}, by {by['profiler']}", "was", "is", "change"), rows, styles)
    if any(one.get("within") for one in largest):
        of = "of a row by itself (a change is told where it stands out of all rows)"
        out.line(f"  ±: what samples leave open {of}, at 95 %{_taken(by, told=not all(styles))}", "dim")
    out.line(f"  whole, on the daemon's host: {' '.join(by['files'].values())}")


def _sampled(one: dict[str, Any], unit: str) -> str:
    """A change under a profiler, and what samples leave open of it; the latter alone where that is no less."""
    change = screen.change(one["change"], unit) if is_told(one) else ""
    within = f"±{screen.quantity(one['within'], unit)}" if one.get("within") else ""
    return " ".join(filter(None, (change, within)))


def is_told(one: dict[str, Any]) -> bool:
    """Whether a change of a row is more than chance draws; by its interval alone in what was read before there was a test."""
    return bool(one.get("told", abs(one["change"]) > one.get("within", 0.0)))


def _taken(by: dict[str, Any], *, told: bool) -> str:
    """How many samples there are, where that is known, and that they are too few where they tell nothing."""
    taken = by.get("samples") or {}
    counts = f"{taken['control']:,} in the control, {taken['treatment']:,} in the treatment" if taken else ""
    if told:
        return f"; {counts}" if counts else ""
    return f"; too few to tell a difference{f': {counts}' if counts else ''}"


def _span(one: dict[str, Any], unit: str) -> str:
    ends = (one["low"], one["high"])
    sides = "" if None in ends else f" ({' … '.join(screen.change(end, unit) for end in ends)})"
    return f"{screen.change(one['change'], unit)}{sides}"


def _culprits(finding: dict[str, Any]) -> str:
    """The commits at fault, each group with its probability; or how the search for them stands, and on how many devices."""
    found = finding["culprits"] or {}
    if is_unmeasured(finding):
        return f"searching {found['commits']} commits, nothing measured yet"
    named = [f"{_named(culprit)} {culprit['probability']:.0%}" for culprit in found.get("culprits", ())]
    several = [f"on {len(found['devices'])} devices"] if len(found.get("devices", ())) > 1 else []
    stands = [] if finding["search"] in ("", "found") else [finding["search"]]
    return ", ".join([*stands, *named, *several]) if finding["search"] else ""


def is_unmeasured(finding: dict[str, Any]) -> bool:
    """Whether a search goes on that has measured nothing, and to which all commits are alike: it has none to name."""
    found = finding["culprits"] or {}
    shares = (found.get("by_commit") or {}).values()
    is_alike = not shares or math.isclose(min(shares), max(shares), rel_tol=ALIKE)
    return finding["search"] == RUNNING and found.get("blocks") == 0 and is_alike


def _whose(finding: dict[str, Any]) -> str:
    """Subject and author of the commit at fault, where one is named; of several the first, and how many more."""
    if is_unmeasured(finding):
        return ""
    named = [culprit["commits"][-1] for culprit in (finding["culprits"] or {}).get("culprits", ())]
    known = [finding["commits"][commit] for commit in named if commit in finding["commits"]]
    if not known:
        return ""
    more = f", and {len(named) - 1} more" if len(named) > 1 else ""
    return f"{known[0]['subject']} ({known[0]['author']}){more}"


def _named(culprit: dict[str, Any]) -> str:
    """A group of neighbours, and the merge that brought them in, outermost first where it is in another one."""
    commits = "/".join(commit[: screen.SHORT] for commit in culprit["commits"])
    merges = " > ".join(commit[: screen.SHORT] for commit in culprit.get("within", ()))
    return f"{commits} (merged by {merges})" if merges else commits
