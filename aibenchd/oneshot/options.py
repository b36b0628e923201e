"""The command lines of ``aibenchd bench`` and ``aibenchd ab``. FAI-PEP's names are taken too, with their underscores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aibenchd import usage

WORK_TREE = ("WORKTREE", ".")  # what names the working tree as it is, changes and all

BENCH = """\
One program as it is, or two against each other:

  aibenchd bench -b FILE                                   with the framework's runner that comes with aibenchd
  aibenchd bench -b FILE --program PATH                    a program: a file, or a directory with all that belongs to it
  aibenchd bench -b FILE --program NEW --control OLD       two programs, interleaved
  aibenchd bench -b FILE --repo DIRECTORY|URL --treatment COMMIT [--control COMMIT]

What is not said and cannot be known is asked for on a terminal, and the answers are kept."""

AB = """\
Both are built, and run turn and turn about until it is clear whether the treatment is slower.
WORKTREE (or .) is the working tree as it is: all files but ignored ones. Nothing in the repository is touched."""


_DEVICES = "local, a phone's serial, user@host, or names of --config (this host; with -p android all phones)"
_BUILD_ENV = "of build scripts; they see your PATH, and what of your environment begins with AIBENCHD_, ANDROID_ or DEVICE_PYTHON"
_STATE = "of builds and the journal (in your cache); one run at a time has it"


@dataclass(frozen=True, slots=True)
class Options:
    """What was said on the command line; an empty value was not. Durations are in seconds."""

    benchmarks: tuple[Path, ...] = ()
    framework: str = ""
    platform: str = ""
    devices: tuple[str, ...] = ()
    excluded_devices: tuple[str, ...] = ()
    config: Path | None = None
    backends: tuple[str, ...] = ()
    treatment: str = ""
    control: str = ""
    repository: str = ""
    vcs: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    blocks: int = 3
    alpha: float | None = None
    beta: float | None = None
    min_effect: float | None = None
    max_blocks: int | None = None
    seconds: float | None = None
    timeout: float | None = None
    cooldown: float | None = None
    set_freq: str = ""
    reboot: bool = False
    cpus: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    build_env: Mapping[str, str] = field(default_factory=dict)
    command_args: str = ""
    string_map: Mapping[str, str] = field(default_factory=dict)
    frameworks_directory: Path | None = None
    model_cache: Path | None = None
    root_model_dir: Path | None = None
    local_reporter: Path | None = None
    simple_local_reporter: Path | None = None
    screen_reporter: bool = False
    simple_screen_reporter: bool = False
    remote_reporter: str = ""
    remote_token_file: Path | None = None
    user_identifier: str = ""
    user_string: str = ""
    state_directory: Path | None = None
    operators: bool = False
    json: bool = False
    debug: bool = False
    reset_options: bool = False


def read(parsed: argparse.Namespace) -> Options:
    """A command line that argparse has read."""
    known = {one.name for one in fields(Options)}
    said = {name: value for name, value in vars(parsed).items() if name in known}
    for name in {"env", "build_env"} & said.keys():
        said[name] = dict(said[name])  # the last of one name holds
    if "benchmarks" in said:
        said["benchmarks"] = tuple(said["benchmarks"])
    return Options(**said)


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``aibenchd bench``."""
    parser.argument_default = argparse.SUPPRESS
    arms = parser.add_argument_group("what is measured")
    _option(
        arms, "--program", "--treatment", dest="treatment", metavar="PATH|COMMIT", help="the program, or with --repo a commit"
    )
    _option(arms, "--control", metavar="PATH|COMMIT", help="what it is compared with")
    _option(
        arms,
        "--repo",
        "--repo-dir",
        dest="repository",
        metavar="DIRECTORY|URL",
        help="of which treatment and control are commits",
    )
    _option(arms, "--vcs", choices=("git", "hg"), help="of --repo (git, or hg where it has a .hg)")
    _option(arms, "--info", type=usage.json_object, metavar="JSON", help="FAI-PEP's: the arms' programs in one object")
    _add_common(parser)
    _option(parser, "--blocks", type=_count, metavar="N", help="of one arm, each in a fresh process (3)")
    _option(parser, "--reset-options", action="store_true", help="forget the answers that were kept; alone, do no more")


def add_ab(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``aibenchd ab``."""
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("repository", metavar="REPO_DIRECTORY", help="a git or Mercurial repository, or the URL of one")
    parser.add_argument("treatment", metavar="TREATMENT", help="a commit, branch or tag, or WORKTREE")
    parser.add_argument("control", metavar="CONTROL", help="what it is compared with: a commit, branch or tag")
    _option(parser, "--vcs", choices=("git", "hg"), help="of it (git, or hg where it has a .hg)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    specification = "a model file, a benchmarks file or a directory of model files; may be given more than once"
    names, kept = ("-b", "--benchmark-file"), {"dest": "benchmarks", "action": "append"}
    _option(parser, *names, **kept, type=_absolute, metavar="FILE", help=specification)
    _option(parser, "--framework", metavar="NAME", help="of the programs (what the specification says)")
    _add_where(parser)
    _add_decision(parser)
    _add_running(parser)
    _add_reports(parser)


def _add_where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    _option(group, "-p", "--platform", "--platforms", metavar="NAME", help="picks the build script (the device's: host, android)")
    _option(group, "-d", "--devices", "--device", type=_words, metavar="D,…", help=_DEVICES)
    _option(group, "--excluded-devices", type=_words, metavar="D,…", help="of those")
    _option(group, "--config", type=_absolute, metavar="FILE", help="a configuration of the daemon's, whose devices may be named")
    _option(group, "--backend", "--backends", dest="backends", type=_words, metavar="B,…", help="an experiment for each; or all")
    _option(group, "--cpus", type=_numbers, metavar="N,…", help="that programs run on (all)")


def _add_decision(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how two arms are decided")
    _option(group, "--alpha", type=usage.share, metavar="A", help="false alarms, at most (0.01)")
    _option(
        group, "--beta", type=usage.share, metavar="B", help="changes of --min-effect that are called unchanged, at most (0.05)"
    )
    _option(group, "--min-effect", type=usage.share, metavar="E", help="the smallest change that matters, as 0.02 or 2%% (0.02)")
    _option(group, "--max-blocks", type=_count, metavar="N", help="after which it is inconclusive (60)")
    _option(group, "--seconds", type=_seconds, metavar="S", help="after which it is inconclusive, as 90 or 15m (1h)")


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how programs are built and run")
    _option(group, "--timeout", type=_seconds, metavar="S", help="of one run of a program (10m)")
    _option(group, "--cooldown", type=_seconds, metavar="S", help="before each run (0)")
    _option(group, "--set-freq", metavar="F", help="of the CPUs: max, min, mid or Hz; put back afterwards")
    _option(group, "--reboot", action="store_true", help="the device, before each experiment")
    _option(group, "--env", nargs="+", action="extend", type=_variable, metavar="NAME=VALUE", help="of the programs")
    _option(group, "--command-args", metavar="TEXT", help="appended to each command that runs the program")
    _option(group, "--string-map", type=_texts, metavar="JSON", help="replaced in every value of the specification")
    _option(group, "--build-env", nargs="+", action="extend", type=_variable, metavar="NAME=VALUE", help=_BUILD_ENV)
    _option(group, "--frameworks-directory", "--frameworks-dir", type=_absolute, metavar="DIRECTORY", help="of build scripts")
    _option(group, "--model-cache", type=_absolute, metavar="DIRECTORY", help="where model files are kept (in your cache)")
    _option(
        group, "--root-model-dir", type=_absolute, metavar="DIRECTORY", help="what locations that begin with // are relative to"
    )
    _option(group, "--state-directory", type=_absolute, metavar="DIRECTORY", help=_STATE)
    _option(group, "--debug", action="store_true", help="show the log")


def _add_reports(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results, beside the table")
    _option(group, "--json", action="store_true", help="print one JSON object, and nothing else on standard output")
    _option(group, "--operators", action="store_true", help="show them too; of two arms, what each adds to the change")
    _option(group, "--local-reporter", type=_absolute, metavar="DIRECTORY", help="files in FAI-PEP's layout")
    _option(group, "--simple-local-reporter", type=_absolute, metavar="DIRECTORY", help="a file for each benchmark")
    _option(group, "--screen-reporter", action="store_true", help="lines in place of the table")
    _option(group, "--simple-screen-reporter", action="store_true", help="the numbers alone, in place of the table")
    _option(group, "--remote-reporter", metavar="URL|CATEGORY", help="post them as FAI-PEP does")
    _option(group, "--remote-token-file", type=_absolute, metavar="FILE", help="with the token for it")
    _option(group, "--remote-access-token", type=_no_secret, help=argparse.SUPPRESS)
    _option(group, "--user-identifier", metavar="TEXT", help="goes into every record")
    _option(group, "--user-string", metavar="TEXT", help="goes into every record as its user")


def _option(parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, help: str, **how: Any) -> None:  # noqa: A002
    """An option, and below the same names with underscores, as FAI-PEP writes them, which the help does not show."""
    longest = next(name for name in names if name.startswith("--"))
    how.setdefault("dest", longest.removeprefix("--").replace("-", "_"))
    parser.add_argument(*names, help=help, **how)
    older = [f"--{name[2:].replace('-', '_')}" for name in names if name.startswith("--") and "-" in name[2:]]
    if older:
        parser.add_argument(*older, help=argparse.SUPPRESS, **how)


def _absolute(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(_whole, _words(text)))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    number = _whole(text)
    if not 1 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000000, not {text}")
    return number


def _seconds(text: str) -> float:
    from aibenchd import quantities  # it imports pydantic, which other commands need not wait for

    try:
        value = float(text)
    except ValueError:
        try:
            return quantities.seconds(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None
    if not 0 <= value <= quantities.LONGEST:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 on, not {text!r}")
    return value


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or not name.isascii():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def _texts(text: str) -> dict[str, str]:
    value = usage.json_object(text)
    for name, one in value.items():
        if not isinstance(one, str):
            raise argparse.ArgumentTypeError(f"expected text for {name!r}, not {json.dumps(one)}; put it in quotes")
    return value


def _no_secret(_: str) -> str:
    raise argparse.ArgumentTypeError(
        "it does not belong on the command line, where everybody sees it; write it to a file and give --remote-token-file"
    )
