"""``aibenchd spec``: what a person does with specifications."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands, each with the function that runs it as ``run``."""
    commands = parser.add_subparsers(title="commands", required=True)

    pin = commands.add_parser("pin", help="fetch the files of specifications and write their sha256 into them")
    pin.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a model file, JSON or YAML")
    pin.add_argument("--renew", action="store_true", help="also where there is a sha256 already")
    pin.set_defaults(run=_pin)


def _pin(parsed: argparse.Namespace) -> int:
    import anyio

    from aibenchd.specs import pin

    return anyio.run(pin.run, parsed)
