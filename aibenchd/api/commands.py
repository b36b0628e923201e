"""What each command of ``aibenchctl`` does, and the table of them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime

from aibenchd.api import call, commandline, devices, experiments, findings, pages, requests, screen, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WATCH_SECONDS = 2.0
BACKUP_SECONDS = 3700.0

TRIAGE_NEEDS = {"accept": ("why",), "mute": ("until", "why")}  # options, by action


def page(path: str, show: Callable[[screen.Screen, dict[str, Any]], None]) -> Callable[[commandline.Call], int]:
    """A command that shows one answer. In ``path``, ``{}`` stands for the argument; options become the query."""

    def shown(asked: commandline.Call) -> int:
        query = {name: asked.option(name) for name in asked.command.options if name != "watch"}
        target = call.target(path.format(*map(call.quoted, asked.arguments)), query)
        if asked.flag("json"):
            sys.stdout.buffer.write(asked.daemon.get_raw(target))
            return commandline.DONE
        show(screen.Screen(asked.program), asked.daemon.get(target))
        return commandline.DONE

    return shown


def triage(action: str) -> Callable[[commandline.Call], int]:
    """A command that makes something of a finding; its options are the body's keys."""

    def done(asked: commandline.Call) -> int:
        (finding,) = asked.arguments
        body = {name: asked.option(name) for name in asked.command.options if asked.flag(name)}
        _check_triage(action, body)
        return _told(asked, asked.daemon.post(f"/v1/findings/{call.quoted(finding)}/{action}", body))

    return done


def _check_triage(action: str, body: dict[str, str | None]) -> None:
    """Whether what it needs is given, in the words of the command line.

    Raises:
        commandline.Misuse: it is not, or the day is none.
    """
    for name in TRIAGE_NEEDS.get(action, ()):
        if name not in body:
            raise commandline.Misuse(f"--{name}: is required; see 'aibenchctl {action} --help'")
    until = body.get("until")
    try:
        datetime.fromisoformat(until or "2031-01-15")
    except ValueError:
        raise commandline.Misuse(f"--until: expected a day, such as 2031-01-15, not {until!r}") from None


def order(path: str) -> Callable[[commandline.Call], int]:
    """A command that has something done, and says what was."""

    def done(asked: commandline.Call) -> int:
        return _told(asked, asked.daemon.post(path.format(*map(call.quoted, asked.arguments))))

    return done


def watched(show: Callable[[commandline.Call], int]) -> Callable[[commandline.Call], int]:
    """A command that shows something once; with ``--watch`` every WATCH_SECONDS, until interrupted."""

    def shown(asked: commandline.Call) -> int:
        if not asked.flag("watch"):
            return show(asked)
        while True:
            screen.Screen().clear()
            show(asked)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS)

    return shown


def finding(asked: commandline.Call) -> int:
    """``finding``; with ``--watch`` until nothing more is to come of it."""
    return waiting.finding(asked) if asked.flag("watch") else page("/v1/findings/{}", findings.finding)(asked)


def top(asked: commandline.Call) -> int:
    """``top``.

    Raises:
        commandline.Misuse: there is no terminal.
    """
    from aibenchd.api import top as live

    try:
        live.run(asked.daemon, asked.program, seconds=live.AFAR_SECONDS if asked.host else live.HERE_SECONDS)
    except OSError as error:
        raise commandline.Misuse(str(error)) from None
    return commandline.DONE


def history(asked: commandline.Call) -> int:
    """``history``: both arguments go into the query."""
    benchmark, device = asked.arguments
    query = {"benchmark": benchmark, "device": device} | {name: asked.option(name) for name in asked.command.options}
    answer = asked.daemon.get_raw(call.target("/v1/history", query))
    if asked.flag("json"):
        sys.stdout.buffer.write(answer)
    else:
        experiments.history(screen.Screen(asked.program), json.loads(answer))
    return commandline.DONE


def config(asked: commandline.Call) -> int:
    """``config``: laid out for a person; with ``--json`` byte for byte as it came."""
    answer = asked.daemon.get_raw("/v1/config")
    print(answer.decode().rstrip() if asked.flag("json") else json.dumps(json.loads(answer), indent=2, ensure_ascii=False))
    return commandline.DONE


def log(asked: commandline.Call) -> int:
    """Write it as it comes, byte for byte."""
    kind, number = asked.arguments
    for piece in asked.daemon.stream("GET", f"/v1/logs/{kind}/{call.quoted(number)}"):
        sys.stdout.buffer.write(piece)
    return commandline.DONE


def events(asked: commandline.Call) -> int:
    """Print each as it comes, for as long as the daemon sends them."""
    received = b""
    for piece in asked.daemon.stream("GET", "/v1/events"):
        *lines, received = (received + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                _event(asked, line.removeprefix(b"data: ").decode())
    return commandline.DONE


def backup(asked: commandline.Call) -> int:
    """Blocks until it is made, BACKUP_SECONDS at most; a relative path is relative to the client.

    Raises:
        commandline.Misuse: it is relative, and the daemon on another host.
    """
    if asked.host and not os.path.isabs(asked.arguments[0]):
        raise commandline.Misuse(f"FILE: expected an absolute path on {asked.host}, not {asked.arguments[0]!r}")
    file = os.path.abspath(asked.arguments[0])  # the daemon stands somewhere else
    return _told(asked, asked.daemon.post("/v1/backup", {"file": file}, BACKUP_SECONDS))


def dial(asked: commandline.Call) -> int:
    """``dial``."""
    from aibenchd.api import afar

    afar.dial(asked.option("socket") or call.default_socket())
    return commandline.DONE


def compare(asked: commandline.Call) -> int:
    """``compare``."""
    names = ("model", "treatment", "control")
    wanted: dict[str, Any] = dict(zip(names, asked.arguments, strict=True))
    return _compared(asked, "/v1/comparisons", wanted)


def ab(asked: commandline.Call) -> int:
    """``ab``."""
    treatment, *control = asked.arguments
    wanted: dict[str, Any] = {"treatment": treatment} | ({"control": control[0]} if control else {})
    for key, option in (("benchmarks", "benchmark"), ("devices", "device")):
        wanted[key] = asked.options.get(option, [])
    if asked.flag("repository"):
        wanted["repository"] = asked.option("repository")
    return _compared(asked, "/v1/experiments", wanted)


def submit(asked: commandline.Call) -> int:
    """``submit``.

    Raises:
        commandline.Misuse: something that is named cannot be sent.
    """
    from aibenchd.api import sending, submitting

    try:
        with screen.Status() as status:
            answer = submitting.submit(asked.daemon, asked.arguments[0], asked.options, status)
    except sending.Unfit as error:
        raise commandline.Misuse(str(error)) from None
    planned = json.loads(answer)
    for warning in planned.get("warnings", ()):
        print(f"warning: {screen.printable(warning)}", file=sys.stderr)
    request = planned["request"]
    see = _seen_by(asked, request)
    return waiting.wait(asked, request) if asked.flag("wait") else _told(asked, answer, see=see, warnings="")


def watch(asked: commandline.Call) -> int:
    """Say what becomes of a request until it has ended; who stops watching stops nothing else."""
    said: dict[int, str] = {}

    def shown(answer: dict[str, Any]) -> None:
        for item in () if asked.flag("json") else answer["experiments"]:
            line = requests.progress(item)
            if said.get(item["id"]) != line:
                print(screen.printable(screen.pasteable(line, asked.program)), flush=True)
            said[item["id"]] = line

    return waiting.wait(asked, int(asked.arguments[0]), shown)


def calibrate(asked: commandline.Call) -> int:
    """``calibrate``."""
    (device,) = asked.arguments
    wanted: dict[str, Any] = {"benchmarks": asked.options.get("benchmark", [])}
    for option in ("repository", "blocks"):
        if asked.flag(option):
            wanted[option] = asked.option(option)
    answer = asked.daemon.post(f"/v1/devices/{call.quoted(device)}/calibrate", wanted)
    request = json.loads(answer)["request"]
    if not asked.flag("wait"):
        return _told(asked, answer, see=_seen_by(asked, request))
    code = waiting.wait(asked, request)
    devices.noise(screen.Screen(asked.program), asked.daemon.get(call.target("/v1/noise", {"device": device})))
    return commandline.DONE if code == commandline.INCONCLUSIVE else code  # its blocks are for their noise


def names(asked: commandline.Call) -> int:
    """``names``."""
    from aibenchd.api import naming

    (kind,) = asked.arguments
    for name in naming.of(asked.daemon, kind):
        print(screen.printable(name))
    return commandline.DONE


def completion(asked: commandline.Call) -> int:
    """``completion``."""
    from aibenchd import completion
    from aibenchd.api import manual

    (shell,) = asked.arguments
    print(completion.script(manual.tree(COMMANDS, commandline.GENERAL, commandline.CHOICES), shell), end="")
    return commandline.DONE


def _compared(asked: commandline.Call, path: str, wanted: dict[str, Any]) -> int:
    if asked.flag("priority"):
        wanted["priority"] = asked.option("priority")
    answer = asked.daemon.post(path, wanted)
    request = json.loads(answer)["request"]
    return waiting.wait(asked, request) if asked.flag("wait") else _told(asked, answer, see=_seen_by(asked, request))


def _seen_by(asked: commandline.Call, request: int) -> str:
    return f"{asked.program} request {request}"


def _event(asked: commandline.Call, data: str) -> None:
    if asked.flag("json"):
        print(data, flush=True)
    else:
        pages.event(screen.Screen(), json.loads(data))
        sys.stdout.flush()


def _told(asked: commandline.Call, answer: bytes, **instead: str) -> int:
    """Print what was done; for a person ``instead`` of what is for programs."""
    if asked.flag("json"):
        sys.stdout.buffer.write(answer)
        return commandline.DONE
    for name, value in (json.loads(answer) | instead).items():
        if value != "":
            print(f"{name}: {screen.spoken(value)}")
    return commandline.DONE


OF_CELL = {"device": "NAME", "repository": "NAME", "benchmark": "NAME"}
PAGED = {"limit": "NUMBER", "cursor": "CURSOR"}
COMMANDS = {
    "status": commandline.Command(
        watched(page("/v1/status", pages.status)), "everything at a glance, faults first", "", {"watch": ""}
    ),
    "top": commandline.Command(top, "the same and more on a whole terminal, as it changes; q ends it"),
    "devices": commandline.Command(page("/v1/devices", devices.devices), "devices: what they are, their state, health and queue"),
    "experiments": commandline.Command(
        page("/v1/experiments", experiments.experiments),
        "experiments, newest first",
        "",
        {"state": "STATE", "verdict": "VERDICT", **OF_CELL, **PAGED},
    ),
    "show": commandline.Command(
        page("/v1/experiments/{}", experiments.experiment), "one experiment with its blocks and results", "ID"
    ),
    "coverage": commandline.Command(page("/v1/coverage", pages.coverage), "models by frameworks, devices and backends"),
    "history": commandline.Command(
        history,
        "one benchmark on one device over revisions",
        "BENCHMARK DEVICE",
        {"backend": "NAME", "repository": "NAME", "metric": "NAME", **PAGED},
    ),
    "revisions": commandline.Command(
        page("/v1/revisions", pages.revisions), "revisions with their verdicts", "", {"repository": "NAME", **PAGED}
    ),
    "findings": commandline.Command(
        page("/v1/findings", findings.findings),
        "what regressed or broke",
        "",
        {"state": "STATE", "triage": "none|acknowledged|muted", **OF_CELL, **PAGED},
    ),
    "finding": commandline.Command(
        finding,
        "one finding: since which commit, how sure, which operators",
        "ID",
        {"watch": ""},
    ),
    "acknowledge": commandline.Command(triage("acknowledge"), "say that you look after a finding", "ID", {"why": "TEXT"}),
    "accept": commandline.Command(triage("accept"), "close a finding: its level is the new baseline", "ID", {"why": "TEXT"}),
    "mute": commandline.Command(
        triage("mute"), "hear nothing more of a finding until a day", "ID", {"until": "DAY", "why": "TEXT"}
    ),
    "reopen": commandline.Command(triage("reopen"), "take back what was made of a finding", "ID", {"why": "TEXT"}),
    "builds": commandline.Command(
        page("/v1/builds", pages.builds), "builds", "", {"repository": "NAME", "state": "STATE", **PAGED}
    ),
    "log": commandline.Command(log, "what a build or a failed trial printed", "build|trial ID"),
    "rebuild": commandline.Command(order("/v1/builds/{}/rebuild"), "try a failed build again", "ID"),
    "ab": commandline.Command(
        ab,
        "compare two revisions; without CONTROL, by the repository's baseline rule",
        "TREATMENT [CONTROL]",
        {"repository": "NAME", "benchmark": "NAME", "device": "NAME", "priority": "NUMBER", "wait": "", "timeout": "SECONDS"},
    ),
    "compare": commandline.Command(
        compare,
        "compare two cells of a model; a CELL is [framework@]device[/backend], as 'coverage' heads its columns",
        "MODEL CELL CELL",
        {"priority": "NUMBER", "wait": "", "timeout": "SECONDS"},
    ),
    "submit": commandline.Command(
        submit,
        "measure programs that you built; SPEC is a file of yours, or a benchmark that the daemon has",
        "SPEC",
        {
            "treatment": "PROGRAM",
            "control": "PROGRAM",
            "framework": "NAME",
            "device": "NAME",
            "backend": "NAME",
            "set": "KEY=VALUE",
            "directory": "DIRECTORY",
            "blocks": "NUMBER",
            "priority": "NUMBER",
            "note": "TEXT",
            "wait": "",
            "timeout": "SECONDS",
        },
    ),
    "noise": commandline.Command(
        page("/v1/noise", devices.noise),
        "how noisy benchmarks are, and the smallest change that is found",
        "",
        {"device": "NAME"},
    ),
    "calibrate": commandline.Command(
        calibrate,
        "measure a device's noise: the newest revision that is built against itself",
        "DEVICE",
        {"repository": "NAME", "benchmark": "NAME", "blocks": "NUMBER", "wait": "", "timeout": "SECONDS"},
    ),
    "requests": commandline.Command(page("/v1/requests", requests.requests), "what people asked for", "", PAGED),
    "request": commandline.Command(page("/v1/requests/{}", requests.request), "one request with its experiments", "ID"),
    "watch": commandline.Command(
        watch, "what becomes of a request, as it happens, until it has ended", "ID", {"timeout": "SECONDS"}
    ),
    "cancel": commandline.Command(order("/v1/requests/{}/cancel"), "end what is left of a request, also what runs", "ID"),
    "events": commandline.Command(events, "what happens, as it happens"),
    "sinks": commandline.Command(page("/v1/sinks", pages.sinks), "what waits for delivery, and dead letters"),
    "resend": commandline.Command(order("/v1/sinks/{}/resend"), "deliver a sink's dead letters again", "SINK"),
    "pause": commandline.Command(order("/v1/pause"), "begin no block and no build"),
    "resume": commandline.Command(order("/v1/resume"), "go on"),
    "drain": commandline.Command(order("/v1/devices/{}/drain"), "take no more blocks on a device", "DEVICE"),
    "undrain": commandline.Command(order("/v1/devices/{}/undrain"), "take blocks on it again", "DEVICE"),
    "release": commandline.Command(order("/v1/devices/{}/release"), "take a device out of quarantine, and try it now", "DEVICE"),
    "reload": commandline.Command(order("/v1/reload"), "read the configuration again"),
    "config": commandline.Command(config, "the settings in force"),
    "dial": commandline.Command(dial, "carry bytes between standard streams and the socket: what -H runs on the daemon's host"),
    "backup": commandline.Command(backup, "copy the journal into a new file", "FILE"),
    "names": commandline.Command(names, "names or numbers of what there is, one on a line, as completion asks for them", "KIND"),
    "completion": commandline.Command(completion, "print what makes a shell complete aibenchctl", "SHELL"),
}
