"""``aibenchd decide``: the daemon's own test on anybody's numbers."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from aibenchd import errors, model

if TYPE_CHECKING:
    from aibenchd.decide import tape  # numpy: this module is imported for its arguments too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what :func:`run` takes."""
    rule = model.Rule()
    parser.add_argument("tapes", metavar="TAPE", nargs="+", help="JSON lines: block, order, control, treatment")
    parser.add_argument("--alpha", type=_within(0, 0.5), default=rule.alpha, help="false alarms, at most (%(default)s)")
    parser.add_argument("--beta", type=_within(0, 0.5), default=rule.beta, help="changes called unchanged, at most (%(default)s)")
    parser.add_argument(
        "--min-effect", type=_within(0, 1), default=rule.min_effect, help="smallest change that matters (%(default)s)"
    )
    parser.add_argument("--max-blocks", type=_count, default=None, help="budget of blocks (all of the tape)")
    parser.add_argument("--order", choices=("coin", "pairs"), default="coin", help="how orders were drawn (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object per tape")


def run(arguments: argparse.Namespace) -> int:
    """Print one line per tape; 1 where one of them could not be read, else 0."""
    from aibenchd.decide import tape  # numpy takes its time

    failed = False
    for path in arguments.tapes:
        try:
            decision = decided(tape.read(path), arguments)
        except errors.InvalidFileError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print(_json(path, decision) if arguments.json else _words(path, decision))
    return int(failed)


def decided(read: tape.Tape, arguments: argparse.Namespace) -> model.Decision:
    """The decision on one tape; where its blocks run out, *inconclusive*.

    Raises:
        InvalidFileError: its orders are not those of ``--order``.
    """
    from aibenchd.decide import verdict

    rule = model.Rule(
        alpha=arguments.alpha,
        beta=arguments.beta,
        min_effect=arguments.min_effect,
        max_blocks=min(arguments.max_blocks or len(read.orders), len(read.orders)),
        max_seconds=math.inf,
    )
    try:
        return verdict.decide(read.treatment, read.control, rule, orders=read.orders, kind=arguments.order, numbers=read.numbers)
    except ValueError as error:
        raise errors.InvalidFileError([errors.Fault(read.file, str(error))]) from None


def _json(path: str, decision: model.Decision) -> str:
    facts = {
        "tape": str(path),
        "verdict": decision.verdict,
        "blocks": decision.blocks,
        "estimate": _known(decision.estimate),
        "low": _known(decision.low),
        "high": _known(decision.high),
    }
    return json.dumps(facts)


def _words(path: str, decision: model.Decision) -> str:
    sides = (f"{side:+.2%}" if math.isfinite(side) else "?" for side in (decision.low, decision.high))
    effect = f"{decision.estimate:+.2%} ({' to '.join(sides)})" + (f"; {decision.reason}" if decision.reason else "")
    return f"{path}: {decision.verdict} after {decision.blocks} blocks: {effect}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _within(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low < value < high:
            raise argparse.ArgumentTypeError(f"expected a number between {low} and {high}, not {text}")
        return value

    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text}")
    return int(text)
