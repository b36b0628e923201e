#!/usr/bin/env python3
"""Add up the results of classification_compare.py, and print the share that is right as one record.

    aggregate_classification_results.py --dir DIR --prefix NAME [--limit N] [--metric-keyword TEXT]

It reads DIR/NAME_0.txt, DIR/NAME_1.txt, … and prints TEXT{"type": "NET", "metric": NAME, "unit": "%", "value": …}. With a limit N
there must be the results 0 to N-1, and later ones are left alone: a repeat that gave none must not pass for one that was right.
Needs Python 3.8 and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    options = _options()
    try:
        results = [read(path) for path in files(options)]
    except (OSError, ValueError) as error:
        sys.exit(f"aggregate_classification_results.py: {error}")
    share = sum(correct for correct, _ in results) / sum(total for _, total in results)
    record = {"type": "NET", "metric": options.prefix, "unit": "%", "value": 100.0 * share}
    sys.stdout.write(f"{options.metric_keyword}{json.dumps(record)}\n")


def files(options: argparse.Namespace) -> list[Path]:
    """The files of all results, by their numbers.

    Raises:
        ValueError: there are none.
    """
    if options.limit:
        return [options.dir / f"{options.prefix}_{number}.txt" for number in range(options.limit)]
    found = [path for path in options.dir.glob(options.prefix + "_*.txt") if _number(path, options.prefix).isdigit()]
    if not found:
        raise ValueError(f"{options.dir} holds no {options.prefix}_0.txt")
    return sorted(found, key=lambda path: int(_number(path, options.prefix)))


def read(path: Path) -> tuple[int, int]:
    """How many images were right, of how many.

    Raises:
        ValueError: the file does not say.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        correct, total = int(result["correct"]), int(result["total"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} holds no result of classification_compare.py") from None
    if not 0 <= correct <= total or not total:
        raise ValueError(f"{path}: {correct} images of {total} are right, which cannot be")
    return correct, total


def _number(path: Path, prefix: str) -> str:
    return path.stem[len(prefix) + 1 :]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="holds the results")
    parser.add_argument("--prefix", default="accuracy", help="of their names, and the metric's name (%(default)s)")
    parser.add_argument("--limit", type=_count, metavar="N", help="how many results there must be")
    parser.add_argument("--metric-keyword", default="", metavar="TEXT", help="stands before the record")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
