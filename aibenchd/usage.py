"""What command lines have in common: the help of a command with an example and exit codes; types of arguments.

Imports nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

EXITS = {0: "done", 1: "what was given is bad, or it cannot be done; the message says why", 2: "wrong usage", 130: "interrupted"}


def command(
    commands: Any, name: str, about: str, *, example: str, more: str = "", exits: Mapping[int, str] | None = None
) -> argparse.ArgumentParser:
    """A parser for one of ``commands``, as argparse's ``add_subparsers`` gives them.

    Args:
        about: on one line, as the list of commands shows it.
        more: what the command's own help says besides.
        exits: what differs from :data:`EXITS`.
    """
    codes = sorted({**EXITS, **(exits or {})}.items())
    rows = "\n".join(f"  {code:<3}  {meaning}" for code, meaning in codes)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.\n\n{more}".strip(),
        epilog=f"example:\n  {example}\n\nexit codes:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def json_object(text: str) -> dict[str, Any]:
    """A type of argument."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {text}")
    return value


def share(text: str) -> float:
    """A type of argument: ``0.02``, or ``2%``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, such as 0.02 or 2%, not {text!r}")
    return value
