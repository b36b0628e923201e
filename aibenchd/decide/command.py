"""``aibenchd decide``: the daemon's own test on anybody's numbers."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aibenchd import errors, model, usage
from aibenchd.decide import plot

if TYPE_CHECKING:
    from aibenchd.decide import tape  # numpy: this module is imported for its arguments too

POINTS = 60  # of a plot, where a tape has more blocks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what :func:`run` takes."""
    rule = model.Rule()
    parser.add_argument("tapes", metavar="TAPE", nargs="+", help="JSON lines: block, order, control, treatment; -: stdin")
    parser.add_argument("--alpha", type=_below_half, default=rule.alpha, help="false alarms, at most (%(default)s)")
    parser.add_argument("--beta", type=_below_half, default=rule.beta, help="changes called unchanged, at most (%(default)s)")
    parser.add_argument(
        "--min-effect",
        type=usage.share,
        default=rule.min_effect,
        help="smallest change that matters, as 0.02 or 2%% (%(default)s)",
    )
    parser.add_argument("--max-blocks", type=_count, default=None, help="budget of blocks (all of the tape)")
    parser.add_argument("--order", choices=("coin", "pairs"), default="coin", help="how orders were drawn (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object per tape")
    parser.add_argument("--plot", type=_picture, metavar="FILE", help="draw how each verdict came about, into a .png or .svg")


def run(arguments: argparse.Namespace) -> int:
    """Print one line per tape, and draw them all where asked to; 1 where one of them could not be read, else 0.

    Raises:
        AibenchdError: the plot cannot be drawn.
    """
    from aibenchd.decide import tape  # numpy takes its time

    panels, failed = [], False
    for path in arguments.tapes:
        try:
            read = tape.read(path)
            rule = _rule(read, arguments)
            decision = decided(read, rule, arguments.order)
        except errors.InvalidFileError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print(_json(path, decision) if arguments.json else _words(path, decision))
            if arguments.plot:
                panels.append(plot.Panel(Path(path).name, _said(decision), course(read, decision, rule, arguments.order)))
    if panels:
        plot.draw(arguments.plot, panels, arguments.min_effect)
    return int(failed)


def decided(read: tape.Tape, rule: model.Rule, order: str) -> model.Decision:
    """The decision on one tape.

    Raises:
        InvalidFileError: its orders are not those of ``order``.
    """
    from aibenchd.decide import guard, verdict

    own = rule if read.tails is None else guard.body(rule)
    try:
        found = verdict.decide(read.treatment, read.control, own, orders=read.orders, kind=order, numbers=read.numbers)
        if read.tails is None:
            return found
        spent = len(read.orders) >= rule.max_blocks
        return guard.decide(found, read.tails, rule, orders=read.orders, kind=order, numbers=read.numbers, spent=spent)
    except ValueError as error:
        raise errors.InvalidFileError([errors.Fault(read.file, str(error))]) from None


def course(read: tape.Tape, decision: model.Decision, rule: model.Rule, order: str) -> list[model.Decision]:
    """What was known after each block up to the decision's; after evenly spread ones, where they are more than :data:`POINTS`."""
    some = range(1, decision.blocks, math.ceil(decision.blocks / POINTS))
    return [*(decided(read.up_to(blocks), rule, order) for blocks in some), decision]


def _rule(read: tape.Tape, arguments: argparse.Namespace) -> model.Rule:
    """Where the blocks of the tape run out, it is *inconclusive*."""
    return model.Rule(
        alpha=arguments.alpha,
        beta=arguments.beta,
        min_effect=arguments.min_effect,
        max_blocks=min(arguments.max_blocks or len(read.orders), len(read.orders)),
        max_seconds=math.inf,
    )


def _json(path: str, decision: model.Decision) -> str:
    facts = {
        "tape": str(path),
        "verdict": decision.verdict,
        "blocks": decision.blocks,
        "estimate": _known(decision.estimate),
        "low": _known(decision.low),
        "high": _known(decision.high),
        "in_tail": decision.in_tail,
    }
    return json.dumps(facts)


def _words(path: str, decision: model.Decision) -> str:
    return f"{path}: {_said(decision)}"


def _said(decision: model.Decision) -> str:
    sides = (f"{side:+.2%}" if math.isfinite(side) else "?" for side in (decision.low, decision.high))
    effect = f"{decision.estimate:+.2%} ({' to '.join(sides)})" + (f"; {decision.reason}" if decision.reason else "")
    return f"{decision.verdict} after {decision.blocks} block{'' if decision.blocks == 1 else 's'}: {effect}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _picture(text: str) -> Path:
    if Path(text).suffix not in plot.SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a file that ends in {' or '.join(plot.SUFFIXES)}, not {text}")
    return Path(text)


def _below_half(text: str) -> float:
    value = usage.share(text)
    if value >= 0.5:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 0.5, not {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text}")
    return int(text)
