"""``aibenchd spec``: what a person does with specifications."""

from __future__ import annotations

import argparse
from pathlib import Path

from aibenchd import usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands, each with the function that runs it as ``run``."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    pin = usage.command(
        commands,
        "pin",
        "fetch the files of specifications and write their sha256 into them",
        more="Every other character of a specification stays as it is. Files go into no cache.",
        example="aibenchd spec pin --config lab.yaml models/net.json",
        exits={1: "one of them is bad, or a file cannot be had"},
    )
    pin.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a model file, JSON or YAML")
    pin.add_argument("--renew", action="store_true", help="also where there is a sha256 already")
    pin.add_argument("--config", type=Path, help="whose models.root, generators and limits hold (the defaults)")
    pin.set_defaults(run=_pin)

    show = usage.command(
        commands,
        "show",
        "print what specifications come to: benchmarks, files and commands",
        more="Nothing is fetched or run.",
        example="aibenchd spec show models/net.yaml --backend xnnpack",
        exits={1: "one of them is bad"},
    )
    _add_show(show)


def _pin(parsed: argparse.Namespace) -> int:
    import anyio

    from aibenchd.specs import pin

    return anyio.run(pin.run, parsed)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a model file or a benchmarks file, JSON or YAML")
    parser.add_argument("--framework", default="", help="that composes the commands (the model's, else its format, else generic)")
    parser.add_argument("--platform", default="host", help="of the device (%(default)s)")
    parser.add_argument("--backend", default="", help="that is asked for (what the program chooses)")
    parser.add_argument("--string-map", type=usage.json_object, default={}, metavar="JSON", help="replaced in every value")
    parser.add_argument("--meta", type=usage.json_object, default={}, metavar="JSON", help="merged into each model")
    parser.add_argument("--command-args", default="", metavar="TEXT", help="appended to each command that runs the program")
    parser.add_argument("--program", action="append", default=[], metavar="NAME", help="another program of the build")
    parser.add_argument("--index", type=int, default=0, metavar="N", help="number of the repeat (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=_show)


def _show(parsed: argparse.Namespace) -> int:
    from aibenchd.specs import show

    return show.run(parsed)
