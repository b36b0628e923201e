"""``aibenchd``: serve, bench, ab, check, discover, decide, report, spec, migrate, demo, completion."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aibenchd
from aibenchd import errors, usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. 0 success, 1 bad input, 2 wrong usage, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except errors.AibenchdError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aibenchd",
        description=aibenchd.__doc__,
        epilog="COMMAND --help has a command's arguments, an example and exit codes.",
    )
    parser.add_argument("--version", action="version", version=f"aibenchd {aibenchd.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for add in (
        _command_serve,
        _add_oneshot,
        _command_check,
        _command_discover,
        _command_decide,
        _command_report,
        _command_spec,
        _command_migrate,
        _command_demo,
        _command_shells,
    ):
        add(commands)
    return parser


def _command_serve(commands: Any) -> None:
    serve = usage.command(
        commands,
        "serve",
        "run the daemon",
        more="SIGHUP reloads the configuration, SIGTERM ends it; the block in flight is finished. aibenchctl asks it.",
        example="aibenchd serve /etc/aibenchd/aibenchd.yaml",
        exits={0: "told to stop", 1: "the configuration, the journal or the socket is not usable; the message says why"},
    )
    serve.add_argument("config", metavar="FILE", type=Path, help="the configuration, YAML")
    levels = ("debug", "info", "warning", "error")
    serve.add_argument("--log-level", choices=levels, default="info", help="what is logged, that and what is worse (%(default)s)")
    serve.set_defaults(run=_serve)


def _command_check(commands: Any) -> None:
    check = usage.command(
        commands,
        "check",
        "validate a configuration, its specifications and the reach of its devices",
        more="One line for each fault, with file, line, column and key. Nothing is changed, built or run.",
        example="aibenchd check lab.yaml",
        exits={0: "good; warnings may have been printed", 1: "it has faults"},
    )
    check.add_argument("config", metavar="FILE", type=Path, help="the configuration, YAML")
    check.set_defaults(run=_check)


def _command_discover(commands: Any) -> None:
    discover = usage.command(
        commands,
        "discover",
        "print what could be devices here: phones on adb, GPUs",
        more="Entries to put under 'devices'; what has to be done first is said beside them.",
        example="aibenchd discover",
    )
    discover.set_defaults(run=_discover)


def _command_decide(commands: Any) -> None:
    decide = usage.command(
        commands,
        "decide",
        "give the verdict on files of blocks",
        more="The daemon's own test on your numbers: a block a line, with its order and the samples of both arms.",
        example="aibenchd decide --min-effect 0.01 --plot blocks.svg blocks.jsonl",
        exits={0: "every tape could be read, whatever the verdicts", 1: "one could not be read"},
    )
    _add_decide(decide)


def _command_report(commands: Any) -> None:
    from aibenchd.bulletin import command

    report = usage.command(
        commands,
        "report",
        "write what a week brought into one HTML file",
        more=command.MORE,
        example="aibenchd report lab.yaml --since 2026-03-02 -o report.html",
        exits={0: "written, whatever it tells"},
    )
    command.add_arguments(report)
    report.set_defaults(run=command.run)


def _command_spec(commands: Any) -> None:
    spec = usage.command(
        commands, "spec", "look at specifications, and pin their files", example="aibenchd spec show models/net.yaml"
    )
    _add_spec(spec)


def _command_migrate(commands: Any) -> None:
    migrate = usage.command(
        commands,
        "migrate",
        "print the configuration that does what a command line of FAI-PEP's did",
        more="Run it where the old command ran: relative paths, saved answers (~/.aibench/git/config.txt), commit and status\n"
        "files are read as it read them. What has no key is said at the top of the file and on standard error.",
        example="aibenchd migrate -- python benchmarking/run_bench.py -b net.json --platform host > aibenchd.yaml",
    )
    _add_migrate(migrate)


def _command_demo(commands: Any) -> None:
    demo = usage.command(
        commands,
        "demo",
        "make a repository with a regression in it, and watch the daemon find it",
        more="Takes some minutes on a quiet machine; all it makes is in one directory, which stays.",
        example="aibenchd demo --engine onnxruntime",
        exits={
            0: "exactly the right revisions were called",
            1: "a revision was called wrongly, or the demo could not be run",
            6: "none was called wrongly, but one or more were not decided: the machine is too busy or too noisy",
        },
    )
    demo.add_argument("directory", metavar="DIRECTORY", type=Path, nargs="?", help="a new one to work in (demo-DATE-TIME)")
    engines = ("pytorch", "onnxruntime")
    demo.add_argument("--engine", choices=engines, default="pytorch", help="what the watched engine runs on (%(default)s)")
    demo.set_defaults(run=_demo)


def _command_shells(commands: Any) -> None:
    shells = usage.command(
        commands,
        "completion",
        "print what makes a shell complete our command lines",
        more="'make install' puts it where shells look for it. By hand, in ~/.bashrc: source <(aibenchd completion bash)",
        example="aibenchd completion fish > ~/.config/fish/completions/aibenchd.fish",
    )
    shells.add_argument("shell", choices=("bash", "zsh", "fish"), help="which")
    shells.set_defaults(run=_completion)


def _serve(parsed: argparse.Namespace) -> int:
    import anyio

    from aibenchd import daemon, logs

    logs.configure(level=parsed.log_level)
    anyio.run(daemon.serve, parsed.config)
    return 0


def _check(parsed: argparse.Namespace) -> int:
    import anyio

    from aibenchd import check

    faults = anyio.run(check.check, parsed.config)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    for warning in anyio.run(check.warnings, parsed.config):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{parsed.config}: good")
    return 0


def _discover(_: argparse.Namespace) -> int:
    import anyio

    from aibenchd import discover

    print("\n".join(anyio.run(discover.discover)))
    return 0


def _add_decide(parser: argparse.ArgumentParser) -> None:
    from aibenchd.decide import command

    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _add_spec(parser: argparse.ArgumentParser) -> None:
    from aibenchd.specs import command

    command.add_arguments(parser)


def _add_migrate(parser: argparse.ArgumentParser) -> None:
    words = "after --, of harness.py, repo_driver.py or run_bench.py"
    parser.add_argument("words", metavar="COMMAND LINE", nargs=argparse.REMAINDER, help=words)
    parser.set_defaults(run=_migrate)


def _migrate(parsed: argparse.Namespace) -> int:
    from aibenchd.migrate import command

    return command.run(parsed)


def _add_oneshot(commands: Any) -> None:
    from aibenchd.oneshot import exits, options

    bench = usage.command(
        commands,
        "bench",
        "measure once, without a daemon",
        more=options.BENCH,
        example="aibenchd bench -b specifications/models/onnxruntime/squeezenet/squeezenet.json",
        exits=exits.MEANINGS,
    )
    options.add_bench(bench)
    bench.set_defaults(run=_bench)
    ab = usage.command(
        commands,
        "ab",
        "compare two commits, or your changes with one, before you push",
        more=options.AB,
        example="aibenchd ab . WORKTREE main -b net.json",
        exits=exits.MEANINGS,
    )
    options.add_ab(ab)
    ab.set_defaults(run=_ab)


def _bench(parsed: argparse.Namespace) -> int:
    from aibenchd.oneshot import command

    return command.bench(parsed)


def _ab(parsed: argparse.Namespace) -> int:
    from aibenchd.oneshot import command

    return command.ab(parsed)


def _demo(parsed: argparse.Namespace) -> int:
    import anyio

    from aibenchd.demo import demo

    directory = parsed.directory or Path(f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
    return anyio.run(demo.run, directory.absolute(), parsed.engine)


def _completion(parsed: argparse.Namespace) -> int:
    from aibenchd import completion

    print(completion.script(completion.of_parser(_parser(), "aibenchd"), parsed.shell), end="")
    return 0
