"""``aibenchctl``: asks a running aibenchd. Standard library only, and as quick to start as a bare interpreter nearly is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from aibenchd.api import call, findings, pages, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ABOUT = """\
Asks a running aibenchd.

exit codes:
  0  done; 'ab --wait': unchanged or improved; 'compare --wait': the first cell is as fast as the second, or faster
  1  'ab --wait': regressed or broken; 'compare --wait': the first cell is slower
  2  with --wait: inconclusive, or not all of it could be measured
     ('submit --wait' and 'watch' as 'ab --wait'; of one program: measured, or not)
  3  the command line is wrong, or the daemon refuses
  4  no daemon answers"""
DONE, REGRESSED, INCONCLUSIVE, REFUSED, UNREACHABLE = range(5)
INTERRUPTED = 130
WATCH_SECONDS = 2.0
POLL_SECONDS = 2.0
RESTART_SECONDS = 120.0  # that a daemon may be away while something is waited for
BACKUP_SECONDS = 3700.0
DIGITS = 18  # of an ID


class Misuse(Exception):  # noqa: N818
    """The command line is wrong."""


class Command:
    """One command. ``arguments`` as the help shows them; ``options`` by name, each with the word for its value, if it has one."""

    __slots__ = ("about", "arguments", "options", "run")

    def __init__(
        self, run: Callable[[Call], int], about: str, arguments: str = "", options: dict[str, str] | None = None
    ) -> None:
        self.run, self.about, self.arguments, self.options = run, about, arguments, options or {}


class Call:
    """One command line, read."""

    def __init__(self, words: Sequence[str]) -> None:
        self.name = ""
        self.arguments: list[str] = []
        self.options: dict[str, list[str]] = {}
        rest = iter(words)
        for word in rest:
            if word == "--":
                self.arguments += rest
            elif word.startswith("-") and word != "-":
                self._option(word, rest)
            elif not self.name:
                self.name = word
            else:
                self.arguments.append(word)

    @property
    def command(self) -> Command:
        """The one that is named.

        Raises:
            Misuse: there is none of that name.
        """
        try:
            return COMMANDS[self.name]
        except KeyError:
            raise Misuse(f"there is no command {self.name!r}; see 'aibenchctl --help'") from None

    @property
    def daemon(self) -> call.Daemon:
        """On ``--host`` or $AIBENCHD_HOST; at ``--socket``, else where :func:`call.default_socket` says; not connected to yet.

        Raises:
            Misuse: the host is no address.
        """
        host = self.host
        if host:
            from aibenchd.api import afar

            try:
                return afar.Daemon(host, self.option("socket"))
            except ValueError as error:
                raise Misuse(str(error)) from None
        return call.Daemon(self.option("socket") or call.default_socket())

    @property
    def host(self) -> str:
        """Where the daemon is; empty for this host."""
        return self.option("host") or os.environ.get("AIBENCHD_HOST", "")

    def flag(self, name: str) -> bool:
        return name in self.options

    def option(self, name: str) -> str | None:
        """The value that was given last; None where there is none."""
        return self.options[name][-1] if name in self.options else None

    def check(self) -> None:
        """Whether there are as many arguments as the command has, and each ID is a number."""
        words = self.command.arguments.split()
        least = sum(not word.startswith("[") for word in words)
        if not least <= len(self.arguments) <= len(words) or "" in self.arguments:
            raise Misuse(f"usage: {usage(self.name)}")
        for word, given in zip(words, self.arguments, strict=False):
            if word == "ID" and not (given.isascii() and given.isdecimal() and len(given) <= DIGITS):
                raise Misuse(f"ID: expected a number, not {given!r}; usage: {usage(self.name)}")
            if given not in CHOICES.get(word, (given,)):
                raise Misuse(f"expected {', '.join(CHOICES[word])}, not {given!r}; usage: {usage(self.name)}")

    def _option(self, word: str, rest: Iterator[str]) -> None:
        name, equals, value = word.removeprefix("--").partition("=")
        name = SHORT.get(word[:2], name) if not word.startswith("--") else name
        known = GENERAL | (COMMANDS[self.name].options if self.name in COMMANDS else {})
        if name not in known:
            where = f" of 'aibenchctl {self.name}'" if self.name else ""
            raise Misuse(f"there is no option {word}{where}; see 'aibenchctl --help'")
        if known[name] and not equals:
            value = word[2:] if not word.startswith("--") and len(word) > 2 else next(rest, "")
        if bool(known[name]) != bool(value):
            raise Misuse(f"--{name} " + (f"needs a value: --{name} {known[name]}" if known[name] else "takes no value"))
        self.options.setdefault(name, []).append(value)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code."""
    try:
        code = run(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
    except (Misuse, call.Refused) as error:
        return _fail(REFUSED, error)
    except call.Unreachable as error:
        return _fail(UNREACHABLE, error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read it has seen enough. What is still buffered goes nowhere, so that nothing complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    return code


def run(words: Sequence[str]) -> int:
    """One command line; its exit code.

    Raises:
        Misuse: it is no command line of ours.
        call.Refused, call.Unreachable: the daemon will not, or does not answer.
    """
    asked = Call(words)
    if asked.flag("version"):
        from aibenchd import __version__

        print(f"aibenchctl {__version__}")
    elif asked.flag("help") or not asked.name:
        print(usage_of(asked.name) if asked.name else overview())
    else:
        asked.check()
        return asked.command.run(asked)
    return DONE


def overview() -> str:
    """What ``--help`` prints."""
    width = max(len(f"{name} {command.arguments}") for name, command in COMMANDS.items()) + 2
    lines = [f"  {f'{name} {command.arguments}':{width}}{command.about}" for name, command in COMMANDS.items()]
    afar = "  -H, --host ADDRESS  ssh://[USER@]HOST[:PORT]: the daemon there, through your own ssh (default: $AIBENCHD_HOST)"
    general = "  -s, --socket PATH   socket of the daemon (default: $AIBENCHD_SOCKET, else /run/aibenchd/aibenchd.sock)"
    more = "  --json              print what the daemon sent\n  COMMAND --help      a command's options, an example, exit codes"
    return "\n".join(
        (
            "usage: aibenchctl [-H ADDRESS] [-s PATH] [--json] COMMAND …",
            "",
            ABOUT,
            "",
            "commands:",
            *lines,
            "",
            "options:",
            afar,
            general,
            more,
        )
    )


def usage_of(name: str) -> str:
    """What ``NAME --help`` prints."""
    from aibenchd.api import manual

    return manual.usage(name, Call([name]).command, GENERAL)


def usage(name: str) -> str:
    """Its row alone; :func:`usage_of` has its options too."""
    return f"aibenchctl {name} {COMMANDS[name].arguments}".rstrip()


def page(path: str, show: Callable[[screen.Screen, dict[str, Any]], None]) -> Callable[[Call], int]:
    """A command that shows one answer. In ``path``, ``{}`` stands for the argument; options become the query."""

    def shown(asked: Call) -> int:
        query = {name: asked.option(name) for name in asked.command.options if name != "watch"}
        target = call.target(path.format(*map(call.quoted, asked.arguments)), query)
        if asked.flag("json"):
            sys.stdout.buffer.write(asked.daemon.get_raw(target))
            return DONE
        show(screen.Screen(), asked.daemon.get(target))
        return DONE

    return shown


def triage(action: str) -> Callable[[Call], int]:
    """A command that makes something of a finding; its options are the body's keys."""

    def done(asked: Call) -> int:
        (finding,) = asked.arguments
        body = {name: asked.option(name) for name in asked.command.options if asked.flag(name)}
        return _told(asked, asked.daemon.post(f"/v1/findings/{call.quoted(finding)}/{action}", body))

    return done


def order(path: str) -> Callable[[Call], int]:
    """A command that has something done, and says what was."""

    def done(asked: Call) -> int:
        return _told(asked, asked.daemon.post(path.format(*map(call.quoted, asked.arguments))))

    return done


def watched(show: Callable[[Call], int]) -> Callable[[Call], int]:
    """A command that shows something once; with ``--watch`` every WATCH_SECONDS, until interrupted."""

    def shown(asked: Call) -> int:
        if not asked.flag("watch"):
            return show(asked)
        while True:
            screen.Screen().clear()
            show(asked)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS)

    return shown


def top(asked: Call) -> int:
    """``top``.

    Raises:
        Misuse: there is no terminal.
    """
    from aibenchd.api import top as live

    try:
        live.run(asked.daemon, seconds=live.AFAR_SECONDS if asked.host else live.HERE_SECONDS)
    except OSError as error:
        raise Misuse(str(error)) from None
    return DONE


def history(asked: Call) -> int:
    benchmark, device = asked.arguments
    query = {"benchmark": benchmark, "device": device} | {name: asked.option(name) for name in asked.command.options}
    answer = asked.daemon.get_raw(call.target("/v1/history", query))
    if asked.flag("json"):
        sys.stdout.buffer.write(answer)
    else:
        pages.history(screen.Screen(), json.loads(answer))
    return DONE


def config(asked: Call) -> int:
    answer = asked.daemon.get_raw("/v1/config")
    print(answer.decode().rstrip() if asked.flag("json") else json.dumps(json.loads(answer), indent=2, ensure_ascii=False))
    return DONE


def log(asked: Call) -> int:
    """Write it as it comes, byte for byte."""
    kind, number = asked.arguments
    for piece in asked.daemon.stream("GET", f"/v1/logs/{kind}/{call.quoted(number)}"):
        sys.stdout.buffer.write(piece)
    return DONE


def events(asked: Call) -> int:
    """Print each as it comes, for as long as the daemon sends them."""
    received = b""
    for piece in asked.daemon.stream("GET", "/v1/events"):
        *lines, received = (received + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                _event(asked, line.removeprefix(b"data: ").decode())
    return DONE


def backup(asked: Call) -> int:
    """Blocks until it is made, BACKUP_SECONDS at most; a relative path is relative to the client.

    Raises:
        Misuse: it is relative, and the daemon on another host.
    """
    if asked.host and not os.path.isabs(asked.arguments[0]):
        raise Misuse(f"FILE: expected an absolute path on {asked.host}, not {asked.arguments[0]!r}")
    file = os.path.abspath(asked.arguments[0])  # the daemon stands somewhere else
    return _told(asked, asked.daemon.post("/v1/backup", {"file": file}, BACKUP_SECONDS))


def dial(asked: Call) -> int:
    """``dial``."""
    from aibenchd.api import afar

    afar.dial(asked.option("socket") or call.default_socket())
    return DONE


def compare(asked: Call) -> int:
    """``compare``."""
    names = ("model", "treatment", "control")
    wanted: dict[str, Any] = dict(zip(names, asked.arguments, strict=True))
    return _compared(asked, "/v1/comparisons", wanted)


def ab(asked: Call) -> int:
    """``ab``."""
    treatment, *control = asked.arguments
    wanted: dict[str, Any] = {"treatment": treatment} | ({"control": control[0]} if control else {})
    for key, option in (("benchmarks", "benchmark"), ("devices", "device")):
        wanted[key] = asked.options.get(option, [])
    if asked.flag("repository"):
        wanted["repository"] = asked.option("repository")
    return _compared(asked, "/v1/experiments", wanted)


def submit(asked: Call) -> int:
    """``submit``.

    Raises:
        Misuse: something that is named cannot be sent.
    """
    from aibenchd.api import sending, submitting

    try:
        with screen.Status() as status:
            answer = submitting.submit(asked.daemon, asked.arguments[0], asked.options, status.show)
    except sending.Unfit as error:
        raise Misuse(str(error)) from None
    request = json.loads(answer)["request"]
    return _wait(asked, request) if asked.flag("wait") else _told(asked, answer, see=_seen_by(request))


def watch(asked: Call) -> int:
    """Say what becomes of a request until it has ended; who stops watching stops nothing else."""
    said: dict[int, str] = {}

    def shown(answer: dict[str, Any]) -> None:
        for item in () if asked.flag("json") else answer["experiments"]:
            line = pages.progress(item)
            if said.get(item["id"]) != line:
                print(screen.printable(line), flush=True)
            said[item["id"]] = line

    return _wait(asked, int(asked.arguments[0]), shown)


def calibrate(asked: Call) -> int:
    """``calibrate``."""
    (device,) = asked.arguments
    wanted: dict[str, Any] = {"benchmarks": asked.options.get("benchmark", [])}
    for option in ("repository", "blocks"):
        if asked.flag(option):
            wanted[option] = asked.option(option)
    answer = asked.daemon.post(f"/v1/devices/{call.quoted(device)}/calibrate", wanted)
    request = json.loads(answer)["request"]
    if not asked.flag("wait"):
        return _told(asked, answer, see=_seen_by(request))
    code = _wait(asked, request)
    pages.noise(screen.Screen(), asked.daemon.get(call.target("/v1/noise", {"device": device})))
    return DONE if code == INCONCLUSIVE else code  # its blocks are for their noise


def names(asked: Call) -> int:
    """``names``."""
    from aibenchd.api import naming

    (kind,) = asked.arguments
    for name in naming.of(asked.daemon, kind):
        print(screen.printable(name))
    return DONE


def completion(asked: Call) -> int:
    """``completion``."""
    from aibenchd import completion
    from aibenchd.api import manual

    (shell,) = asked.arguments
    print(completion.script(manual.tree(COMMANDS, GENERAL, CHOICES), shell), end="")
    return DONE


def _compared(asked: Call, path: str, wanted: dict[str, Any]) -> int:
    if asked.flag("priority"):
        wanted["priority"] = asked.option("priority")
    answer = asked.daemon.post(path, wanted)
    request = json.loads(answer)["request"]
    return _wait(asked, request) if asked.flag("wait") else _told(asked, answer, see=_seen_by(request))


def _seen_by(request: int) -> str:
    return f"aibenchctl request {request}"


def verdict(outcomes: dict[str, int], *, one_arm: bool = False) -> int:
    """The exit code of a comparison, from how many of its experiments ended how; of ``one_arm`` there is no more to say."""
    if outcomes.keys() & {"regressed", "broken"}:
        return REGRESSED
    if not outcomes or outcomes.keys() - ({"measured"} if one_arm else {"unchanged", "identical", "improved"}):
        return INCONCLUSIVE
    return DONE


def _wait(asked: Call, request: int, shown: Callable[[dict[str, Any]], None] = lambda _: None) -> int:
    """Until a request has ended; its exit code. ``shown`` is given what is known of it, again and again."""
    seconds = _number(asked.option("timeout") or "86400")
    try:
        with screen.Status() as status:
            answer = _ended(asked, request, time.monotonic() + seconds, status, shown)
    except KeyboardInterrupt:
        print(f"aibenchctl: request {request} goes on; 'aibenchctl cancel {request}' ends it", file=sys.stderr)
        raise
    if answer is None:
        print(f"aibenchctl: request {request} is not decided after {seconds:g} s; it goes on", file=sys.stderr)
        return INCONCLUSIVE
    if asked.flag("json"):
        print(json.dumps(answer, ensure_ascii=False))
    else:
        pages.ended_request(screen.Screen(), answer)
    return verdict(pages.verdicts(answer), one_arm=answer["names"] is not None and not answer["control"])


def _ended(
    asked: Call, request: int, end: float, status: screen.Status, shown: Callable[[dict[str, Any]], None]
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
            status.show(pages.standing(answer, _patient(asked, "/v1/devices", status)["devices"]))
        if time.monotonic() > end:
            return None
        time.sleep(POLL_SECONDS)


def _patient(asked: Call, target: str, status: screen.Status) -> dict[str, Any]:
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


def _event(asked: Call, data: str) -> None:
    if asked.flag("json"):
        print(data, flush=True)
    else:
        pages.event(screen.Screen(), json.loads(data))
        sys.stdout.flush()


def _told(asked: Call, answer: bytes, **instead: str) -> int:
    """Print what was done; for a person ``instead`` of what is for programs."""
    if asked.flag("json"):
        sys.stdout.buffer.write(answer)
        return DONE
    for name, value in (json.loads(answer) | instead).items():
        if value != "":
            print(f"{name}: {screen.spoken(value)}")
    return DONE


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Misuse(f"--timeout SECONDS: {text!r} is no number") from None


def _fail(code: int, error: Exception) -> int:
    print(f"aibenchctl: {error}", file=sys.stderr)
    return code


SHORT = {"-s": "socket", "-h": "help", "-H": "host"}
CHOICES = {  # words for arguments that must be one of these
    "build|trial": ("build", "trial"),
    "SHELL": ("bash", "zsh", "fish"),
    "KIND": (
        *("devices", "repositories", "benchmarks", "models", "cells", "sinks"),
        *("experiments", "findings", "builds", "requests"),
    ),
}
GENERAL = {"host": "ADDRESS", "socket": "PATH", "json": "", "help": "", "version": ""}
OF_CELL = {"device": "NAME", "repository": "NAME", "benchmark": "NAME"}
PAGED = {"limit": "NUMBER", "cursor": "CURSOR"}
COMMANDS = {
    "status": Command(watched(page("/v1/status", pages.status)), "everything at a glance, faults first", "", {"watch": ""}),
    "top": Command(top, "the same and more on a whole terminal, as it changes; q ends it"),
    "devices": Command(page("/v1/devices", pages.devices), "devices: what they are, their state, health and queue"),
    "experiments": Command(
        page("/v1/experiments", pages.experiments),
        "experiments, newest first",
        "",
        {"state": "STATE", "verdict": "VERDICT", **OF_CELL, **PAGED},
    ),
    "show": Command(page("/v1/experiments/{}", pages.experiment), "one experiment with its blocks and results", "ID"),
    "coverage": Command(page("/v1/coverage", pages.coverage), "models by frameworks, devices and backends"),
    "history": Command(
        history,
        "one benchmark on one device over revisions",
        "BENCHMARK DEVICE",
        {"backend": "NAME", "repository": "NAME", "metric": "NAME", **PAGED},
    ),
    "revisions": Command(
        page("/v1/revisions", pages.revisions), "revisions with their verdicts", "", {"repository": "NAME", **PAGED}
    ),
    "findings": Command(
        page("/v1/findings", findings.findings),
        "what regressed or broke",
        "",
        {"state": "STATE", "triage": "none|acknowledged|muted", **OF_CELL, **PAGED},
    ),
    "finding": Command(
        watched(page("/v1/findings/{}", findings.finding)),
        "one finding: since which commit, how sure, which operators",
        "ID",
        {"watch": ""},
    ),
    "acknowledge": Command(triage("acknowledge"), "say that you look after a finding", "ID", {"why": "TEXT"}),
    "accept": Command(triage("accept"), "close a finding: its level is the new baseline", "ID", {"why": "TEXT"}),
    "mute": Command(triage("mute"), "hear nothing more of a finding until a day", "ID", {"until": "DAY", "why": "TEXT"}),
    "reopen": Command(triage("reopen"), "take back what was made of a finding", "ID", {"why": "TEXT"}),
    "builds": Command(page("/v1/builds", pages.builds), "builds", "", {"repository": "NAME", "state": "STATE", **PAGED}),
    "log": Command(log, "what a build or a failed trial printed", "build|trial ID"),
    "rebuild": Command(order("/v1/builds/{}/rebuild"), "try a failed build again", "ID"),
    "ab": Command(
        ab,
        "compare two revisions; without CONTROL, by the repository's baseline rule",
        "TREATMENT [CONTROL]",
        {"repository": "NAME", "benchmark": "NAME", "device": "NAME", "priority": "NUMBER", "wait": "", "timeout": "SECONDS"},
    ),
    "compare": Command(
        compare,
        "compare two cells of a model; a CELL is [framework@]device[/backend], as 'coverage' heads its columns",
        "MODEL CELL CELL",
        {"priority": "NUMBER", "wait": "", "timeout": "SECONDS"},
    ),
    "submit": Command(
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
    "noise": Command(
        page("/v1/noise", pages.noise), "how noisy benchmarks are, and the smallest change that is found", "", {"device": "NAME"}
    ),
    "calibrate": Command(
        calibrate,
        "measure a device's noise: the newest revision that is built against itself",
        "DEVICE",
        {"repository": "NAME", "benchmark": "NAME", "blocks": "NUMBER", "wait": "", "timeout": "SECONDS"},
    ),
    "requests": Command(page("/v1/requests", pages.requests), "what people asked for", "", PAGED),
    "request": Command(page("/v1/requests/{}", pages.request), "one request with its experiments", "ID"),
    "watch": Command(watch, "what becomes of a request, as it happens, until it has ended", "ID", {"timeout": "SECONDS"}),
    "cancel": Command(order("/v1/requests/{}/cancel"), "end what is left of a request, also what runs", "ID"),
    "events": Command(events, "what happens, as it happens"),
    "sinks": Command(page("/v1/sinks", pages.sinks), "what waits for delivery, and dead letters"),
    "resend": Command(order("/v1/sinks/{}/resend"), "deliver a sink's dead letters again", "SINK"),
    "pause": Command(order("/v1/pause"), "begin no block and no build"),
    "resume": Command(order("/v1/resume"), "go on"),
    "drain": Command(order("/v1/devices/{}/drain"), "take no more blocks on a device", "DEVICE"),
    "undrain": Command(order("/v1/devices/{}/undrain"), "take blocks on it again", "DEVICE"),
    "release": Command(order("/v1/devices/{}/release"), "take a device out of quarantine, and try it now", "DEVICE"),
    "reload": Command(order("/v1/reload"), "read the configuration again"),
    "config": Command(config, "the settings in force"),
    "dial": Command(dial, "carry bytes between standard streams and the socket: what -H runs on the daemon's host"),
    "backup": Command(backup, "copy the journal into a new file", "FILE"),
    "names": Command(names, "names or numbers of what there is, one on a line, as completion asks for them", "KIND"),
    "completion": Command(completion, "print what makes a shell complete aibenchctl", "SHELL"),
}


if __name__ == "__main__":
    sys.exit(main())
