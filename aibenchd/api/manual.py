"""What the client's help says besides a command's own row; imported where help or completion is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from aibenchd import completion
from aibenchd.api import screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aibenchd.api import commandline

PROGRAM = screen.PROGRAM
SHORT = {"host": "-H, ", "socket": "-s, ", "help": "-h, "}
OPTIONS = {
    "host": "ssh://[USER@]HOST[:PORT]: the daemon there, through your own ssh ($AIBENCHD_HOST)",
    "socket": "of the daemon ($AIBENCHD_SOCKET, else /run/aibenchd/aibenchd.sock)",
    "json": "print what the daemon sent",
    "help": "what a command does, its options, an example and its exit codes",
    "version": "of this client",
    "watch": "again every 2 s, until interrupted",
    "state": "only those in it, such as open or failed",
    "verdict": "only those with it, such as regressed",
    "device": "only on it",
    "repository": "only of it; needed where several are watched and one must be meant",
    "benchmark": "only this one, by its identifier",
    "backend": "only on it",
    "metric": "of the benchmark (what decides)",
    "limit": "rows at most (100)",
    "cursor": "go on from there; the page before ends with it",
    "priority": "larger goes first (0)",
    "wait": "until all is decided; the exit code is the verdict",
    "timeout": "of waiting; it goes on all the same (86400)",
    "blocks": "of each benchmark (20)",
    "finding watch": "anew as it changes, until nothing more is to come of it; the exit code is what became of it",
    "submit device": "that it is measured on; several, if given more than once (the only one)",
    "submit backend": "an experiment with each that is given (what the device lists)",
    "submit blocks": "of one program, each in a fresh process (what the configuration says)",
    "treatment": "a file, or a directory with all that belongs to the program",
    "control": "what it is compared with; without one it is measured as it is",
    "framework": "of the programs (what the specification says)",
    "set": "KEY in braces is replaced by VALUE everywhere in the file SPEC",
    "directory": "nothing is sent that is not below it (that of SPEC)",
    "note": "why, for who reads of it",
    "triage": "only those of which this was made",
    "why": "what others are told; needed to accept and to mute",
    "until": "such as 2031-01-15, at the beginning of which it ends",
}
WORDS = {
    "ID": "number, as the list of them shows it",
    "BENCHMARK": "identifier",
    "DEVICE": "name",
    "SINK": "name",
    "MODEL": "name",
    "CELL": "[framework@]device[/backend]",
    "TREATMENT": "the newer commit: id, tag or branch",
    "[CONTROL]": "the older one (as the repository's baseline rule says)",
    "FILE": "a new one",
    "SPEC": "a model file or a benchmarks file, whose files are sent too; or the identifier of a benchmark",
    "build|trial": "which of them",
    "SHELL": "bash, zsh or fish",
    "KIND": "devices, repositories, benchmarks, models, cells, sinks, experiments, findings, builds or requests",
}
EXAMPLES = {
    "status": "status --watch",
    "top": "-H ssh://lab top",
    "devices": "devices",
    "experiments": "experiments --verdict regressed --device pixel",
    "show": "show 17",
    "coverage": "coverage --json",
    "history": "history squeezenet lab-host --backend mkl",
    "revisions": "revisions --repository pytorch",
    "findings": "findings",
    "finding": "finding 3",
    "acknowledge": "acknowledge 3 --why 'looking into it'",
    "accept": "accept 3 --why 'worth what it buys'",
    "mute": "mute 3 --until 2031-01-15 --why 'the driver is exchanged then'",
    "reopen": "reopen 3",
    "builds": "builds --state failed",
    "log": "log build 4",
    "rebuild": "rebuild 4",
    "ab": "ab HEAD main~10 --benchmark squeezenet --wait",
    "compare": "compare squeezenet pytorch@host/mkl tflite@host/xnnpack --wait",
    "noise": "noise --device lab-host",
    "calibrate": "calibrate lab-host --wait",
    "submit": "submit net.yaml --treatment ./new/bench --control ./old/bench --device pixel --wait",
    "requests": "requests",
    "request": "request 2",
    "watch": "watch 2",
    "cancel": "cancel 2",
    "events": "events --json",
    "sinks": "sinks",
    "resend": "resend dashboard",
    "pause": "pause",
    "resume": "resume",
    "drain": "drain pixel",
    "undrain": "undrain pixel",
    "release": "release pixel",
    "reload": "reload",
    "config": "config",
    "dial": "dial",
    "backup": "backup /var/backups/journal.db",
    "names": "names devices",
    "completion": "completion bash",
}
ENDS = {
    "ab": ("unchanged or improved, or asked for", "regressed or broken", "inconclusive, or not all could be compared"),
    "compare": ("the first cell is as fast as the second, or faster; or asked for", "it is slower", "inconclusive"),
    "submit": ("unchanged, improved or measured, or sent", "regressed or broken", "inconclusive, or not all could be measured"),
    "watch": ("unchanged, improved or measured", "regressed or broken", "inconclusive, or not all could be measured"),
    "finding": (
        "shown; with --watch: refuted, accepted or mended",
        "with --watch: confirmed, and it stands",
        "with --watch: neither confirmed nor refuted",
    ),
    "calibrate": ("measured, or asked for", "a commit differs from itself, or fails", ""),
}
NAMED = {"DEVICE": "devices", "BENCHMARK": "benchmarks", "SINK": "sinks", "MODEL": "models", "CELL": "cells"}
TRIAGES = ("acknowledge", "accept", "mute", "reopen")
NUMBERED = {
    "show": "experiments",
    "finding": "findings",
    **dict.fromkeys(TRIAGES, "findings"),
    "rebuild": "builds",
    **dict.fromkeys(("request", "watch", "cancel"), "requests"),
}


def exit_codes(name: str) -> dict[int, str]:
    """What those of a command mean."""
    ends = dict(enumerate(ENDS.get(name, ("done",))))
    return {code: text for code, text in ends.items() if text} | {
        3: "the command line is wrong, or the daemon refuses",
        4: "no daemon answers",
    }


def usage(name: str, command: commandline.Command, general: Mapping[str, str]) -> str:
    """What ``NAME --help`` prints."""
    arguments = [(word, WORDS[word]) for word in dict.fromkeys(command.arguments.split())]
    options = [(_written(option, value), _about(name, option)) for option, value in (command.options | dict(general)).items()]
    codes = [(str(code), text) for code, text in exit_codes(name).items()]
    return "\n".join(
        (
            f"usage: {PROGRAM} {name} {command.arguments}".rstrip(),
            f"  {command.about}",
            *_table("arguments", arguments),
            *_table("options", options),
            f"\nexample:\n  {PROGRAM} {EXAMPLES[name]}",
            *_table("exit codes", codes),
        )
    )


def _about(command: str, option: str) -> str:
    """What an option is; of one command something else than of others, where it says so."""
    return OPTIONS.get(f"{command} {option}", OPTIONS[option])


def _written(option: str, value: str) -> str:
    return f"{SHORT.get(option, '')}--{option} {value}".rstrip()


def _table(title: str, rows: list[tuple[str, str]]) -> list[str]:
    width = max((len(left) for left, _ in rows), default=0) + 2
    return [f"\n{title}:", *(f"  {left:{width}}{right}" for left, right in rows)] if rows else []


def tree(
    commands: Mapping[str, commandline.Command], general: Mapping[str, str], choices: Mapping[str, tuple[str, ...]]
) -> completion.Command:
    """All commands, as completion scripts are made of them."""
    shared = tuple(_option("", name, value) for name, value in general.items())
    each = [
        completion.Command(
            name,
            command.about,
            (*(_option(name, option, value) for option, value in command.options.items()), *shared),
            arguments=tuple(_value(name, word, choices.get(word, ())) for word in command.arguments.split()),
        )
        for name, command in commands.items()
    ]
    return completion.Command(PROGRAM, "", shared, tuple(each))


def _option(command: str, name: str, word: str) -> completion.Option:
    names = tuple(written.split()[0] for written in _written(name, word).split(", "))
    plural = {"device": "devices", "benchmark": "benchmarks", "repository": "repositories"}.get(name, "")
    kind = completion.FILES if name in ("socket", "treatment", "control", "directory") else ""
    value = completion.Value(word, kind=kind, asked=f"names {plural}" if plural else "") if word else None
    return completion.Option(names, _about(command, name), value)


def _value(command: str, word: str, choices: tuple[str, ...]) -> completion.Value:
    asked = NUMBERED.get(command, "") if word == "ID" else NAMED.get(word, "")
    kind = completion.FILES if word in ("FILE", "SPEC") else ""
    return completion.Value(word, choices, kind, f"names {asked}" if asked else "")
