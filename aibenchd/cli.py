"""``aibenchd``: serve, check, discover, decide, spec, demo."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aibenchd
from aibenchd import errors


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
    parser = argparse.ArgumentParser(prog="aibenchd", description=aibenchd.__doc__)
    parser.add_argument("--version", action="version", version=f"aibenchd {aibenchd.__version__}")
    commands = parser.add_subparsers(title="commands", required=True)

    serve = commands.add_parser("serve", help="run the daemon")
    serve.add_argument("config", type=Path)
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="validate a configuration, its specifications and the reach of its devices")
    check.add_argument("config", type=Path)
    check.set_defaults(run=_check)

    discover = commands.add_parser("discover", help="print what could be devices here: phones on adb, GPUs")
    discover.set_defaults(run=_discover)

    decide = commands.add_parser("decide", help="give the verdict on files of blocks")
    _add_decide(decide)

    spec = commands.add_parser("spec", help="look at specifications, and pin their files")
    _add_spec(spec)

    migrate = commands.add_parser("migrate", help="print the configuration that does what a command line of FAI-PEP's did")
    _add_migrate(migrate)

    demo = commands.add_parser("demo", help="make a repository with a regression in it, and watch the daemon find it")
    demo.add_argument("directory", type=Path, nargs="?", help="a new directory to work in")
    demo.add_argument("--engine", choices=("pytorch", "onnxruntime"), default="pytorch", help="what the watched engine runs on")
    demo.set_defaults(run=_demo)
    return parser


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
    parser.add_argument(
        "words", metavar="COMMAND LINE", nargs=argparse.REMAINDER, help="after --, of harness.py, repo_driver.py or run_bench.py"
    )
    parser.set_defaults(run=_migrate)


def _migrate(parsed: argparse.Namespace) -> int:
    from aibenchd.migrate import command

    return command.run(parsed)


def _demo(parsed: argparse.Namespace) -> int:
    import anyio

    from aibenchd.demo import demo

    directory = parsed.directory or Path(f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
    return anyio.run(demo.run, directory.absolute(), parsed.engine)
