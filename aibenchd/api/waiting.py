"""Waiting for what was asked for, or was found, until all of it has ended; also across a restart of the daemon."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from aibenchd.api import call, commandline, findings, requests, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POLL_SECONDS = 2.0
RESTART_SECONDS = 120.0  # that a daemon may be away while something is waited for


def wait(asked: commandline.Call, request: int, shown: Callable[[dict[str, Any]], None] = lambda _: None) -> int:
    """Until a request has ended; its exit code. ``shown`` is given what is known of it, again and again."""
    seconds = _number(asked.option("timeout") or "86400")
    try:
        with screen.Status() as status:
            answer = _ended(asked, request, time.monotonic() + seconds, status, shown)
    except KeyboardInterrupt:
        print(f"aibenchctl: request {request} goes on; '{asked.program} cancel {request}' ends it", file=sys.stderr)
        raise
    if answer is None:
        print(f"aibenchctl: request {request} is not decided after {seconds:g} s; it goes on", file=sys.stderr)
        return commandline.INCONCLUSIVE
    if asked.flag("json"):
        print(json.dumps(answer, ensure_ascii=False))
    else:
        requests.ended_request(screen.Screen(asked.program), answer)
    return verdict(requests.verdicts(answer), one_arm=answer["names"] is not None and not answer["control"])


def finding(asked: commandline.Call) -> int:
    """Show a finding, anew as it changes, until nothing more is to come of it; its exit code."""
    answer: dict[str, Any] = {"coming": [""]}
    with screen.Status() as status:
        while answer["coming"]:
            before, answer = answer, _patient(asked, f"/v1/findings/{asked.arguments[0]}", status)
            _show_finding(asked, answer, is_new=answer != before)
            if answer["coming"]:
                time.sleep(POLL_SECONDS)
    return _of_finding(answer)


def _show_finding(asked: commandline.Call, answer: dict[str, Any], *, is_new: bool) -> None:
    """The whole of it; on a terminal in place of the last, and also where nothing but its age has changed."""
    out = screen.Screen(asked.program)
    if asked.flag("json") and is_new:
        print(json.dumps(answer, ensure_ascii=False), flush=True)
    elif not asked.flag("json") and (is_new or out.on_terminal):
        out.clear()
        findings.finding(out, answer)
        if not answer["coming"]:
            out.line(findings.closed(answer))
        sys.stdout.flush()


def _of_finding(answer: dict[str, Any]) -> int:
    if answer["state"] == "unconfirmed":
        return commandline.INCONCLUSIVE
    return commandline.REGRESSED if answer["state"] == "open" and not answer["mended"] else commandline.DONE


def verdict(outcomes: dict[str, int], *, one_arm: bool = False) -> int:
    """The exit code of a comparison, from how many of its experiments ended how; of ``one_arm`` there is no more to say."""
    if outcomes.keys() & {"regressed", "broken"}:
        return commandline.REGRESSED
    if not outcomes or outcomes.keys() - ({"measured"} if one_arm else {"unchanged", "identical", "improved"}):
        return commandline.INCONCLUSIVE
    return commandline.DONE


def _ended(
    asked: commandline.Call, request: int, end: float, status: screen.Status, shown: Callable[[dict[str, Any]], None]
) -> dict[str, Any] | None:
    """A request all of whose experiments have ended; None where they have not by ``end``, of the monotonic clock.

    Raises:
        call.Refused: it is refused.
    """
    while True:
        answer = _patient(asked, f"/v1/requests/{request}", status)
        if answer["state"] == "refused":
            raise call.Refused(409, f"request {request} is refused: {answer['reason']}")
        shown(answer)
        if answer["state"] == "planned" and not answer["outcomes"].keys() & {"waiting", "open"}:
            return answer
        if status.on_terminal:
            stands = requests.standing(answer, _patient(asked, "/v1/devices", status)["devices"])
            status.show(screen.pasteable(stands, asked.program))
        if time.monotonic() > end:
            return None
        time.sleep(POLL_SECONDS)


def _patient(asked: commandline.Call, target: str, status: screen.Status) -> dict[str, Any]:
    """Ask, also across a restart of the daemon."""
    end = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            answer: dict[str, Any] = asked.daemon.get(target)
        except call.Unreachable:
            status.show(f"no daemon answers; it is waited for, {RESTART_SECONDS:g} s at most")
            if time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return answer


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise commandline.Misuse(f"--timeout SECONDS: {text!r} is no number") from None
