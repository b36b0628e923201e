#!/usr/bin/env python3
"""Count how many images a network put into their categories.

    classification_compare.py --benchmark-output FILE --labels FILE [--name NAME] [--top K] [--result-file FILE]
                              [--metric-keyword TEXT]

The output is the text that Caffe2's programs write with --text_output: its shape in the first row, then its numbers; numbers
alone will do. Rows of labels are "number,label,path" or a label alone, one per image, in the order of the output. An image counts
where its label is among the K that have the largest numbers; of equal numbers the first is the larger.

The result file gets {"name", "top", "correct", "total"}; aggregate_classification_results.py adds up several. With a metric
keyword the share is printed as a record behind that word. Needs Python 3.8 and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path


def main() -> None:
    options = _options()
    try:
        labels = read_labels(options.labels)
        scores = read_scores(options.benchmark_output, len(labels))
        correct = sum(right(row, label, options.top) for row, label in zip(scores, labels))  # noqa: B905  Python 3.8 has no strict
        result = {"name": options.name, "top": options.top, "correct": correct, "total": len(labels)}
        if options.result_file:
            options.result_file.write_text(json.dumps(result) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(f"classification_compare.py: {error}")
    sys.stdout.write(f"{correct} of {len(labels)} images are right ({options.name}, top {options.top})\n")
    if options.metric_keyword:
        record = {"type": "NET", "metric": "accuracy", "unit": "%", "value": 100.0 * correct / len(labels)}
        sys.stdout.write(f"{options.metric_keyword}{json.dumps(record)}\n")


def right(row: list[float], label: int, top: int) -> bool:
    """Whether a label is among the ``top`` of a row of numbers.

    Raises:
        ValueError: there is no such label.
    """
    if not 0 <= label < len(row):
        raise ValueError(f"label {label} is none of the output's {len(row)} categories")
    before = sum(value > row[label] or (value == row[label] and place < label) for place, value in enumerate(row))
    return before < top


def read_labels(path: Path) -> list[int]:
    """The label of each image.

    Raises:
        ValueError: a row has none, or there are no rows.
    """
    rows = [row.split(",") for row in path.read_text(encoding="utf-8").splitlines() if row.strip()]
    if not rows:
        raise ValueError(f"{path} holds no labels")
    try:
        return [int(row[1] if len(row) > 1 else row[0]) for row in rows]
    except ValueError:
        raise ValueError(f"{path}: expected rows of number,label,path") from None


def read_scores(path: Path, images: int) -> list[list[float]]:
    """One list of numbers per image.

    Raises:
        ValueError: what is there is no list of finite numbers, or not as many rows as images.
    """
    head, _, rest = path.read_text(encoding="utf-8").partition("\n")
    numbers, shape = _numbers(rest, path), _shape(head)
    if shape is None or math.prod(shape) != len(numbers):
        numbers, shape = _numbers(head, path) + numbers, None
    rows = shape[0] if shape and len(shape) > 1 else images
    if rows != images or not numbers or len(numbers) % images:
        shown = " x ".join(map(str, shape)) if shape else len(numbers)
        raise ValueError(f"{path}: {shown} numbers are not those of {images} images")
    width = len(numbers) // images
    return [numbers[start : start + width] for start in range(0, len(numbers), width)]


def _shape(text: str) -> list[int] | None:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        return None


def _numbers(text: str, path: Path) -> list[float]:
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    bad = next((number for number in numbers if not math.isfinite(number)), None)
    if bad is not None:
        raise ValueError(f"{path}: holds {bad}, which is no score")
    return numbers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark-output", type=Path, required=True, help="what the network computed, as text")
    parser.add_argument("--labels", type=Path, required=True, help="number,label,path per row")
    parser.add_argument("--name", default="network", help="for the result (%(default)s)")
    parser.add_argument("--top", type=_count, default=1, metavar="K", help="categories that count (%(default)s)")
    parser.add_argument("--result-file", type=Path, help="gets the result as JSON")
    parser.add_argument("--metric-keyword", default="", metavar="TEXT", help="print the share as a record behind this")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
