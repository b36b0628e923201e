#!/usr/bin/env python3
"""Choose images out of a directory of categories, and write down which they are.

    imagenet_test_map.py --image-dir DIR --label-file FILE --output-image-file FILE --output-label-file FILE
                         [--limit-files N] [--limit-per-category N] [--shuffle] [--seed N]

DIR holds one directory per category, as ImageNet's val/ does after it is sorted; the label file names a category per row, and a
category's label is its row's number from 0. Of each category the first N images are taken, by name.

The image file gets a path per row, the label file "number,label,path", which Caffe2's convert_image_to_tensor takes for a list
of images too. Needs Python 3.8 and nothing else. The same directory, options and seed give the same files.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm"}


def main() -> None:
    options = _options()
    try:
        chosen = choose(options)
        _write(options.output_image_file, [str(path) for _, path in chosen])
        _write(options.output_label_file, ["{},{},{}".format(number, *one) for number, one in enumerate(chosen)])
    except (OSError, ValueError) as error:
        sys.exit(f"imagenet_test_map.py: {error}")


def choose(options: argparse.Namespace) -> list[tuple[int, Path]]:
    """(label, path) of each image, in the order of the files to write.

    Raises:
        ValueError: there are no images to choose from, or a directory is no category.
    """
    labels = {name: label for label, name in enumerate(categories(options.label_file))}
    found = []
    for directory in sorted(path for path in options.image_dir.resolve(strict=True).iterdir() if path.is_dir()):
        if directory.name not in labels:
            raise ValueError(f"{directory} is no category of {options.label_file}")
        images = sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES)
        found += [(labels[directory.name], path) for path in images[: options.limit_per_category]]
    if not found:
        raise ValueError(f"{options.image_dir} holds no directories of images, one per category")
    odd = next((path for _, path in found if "," in str(path) or "\n" in str(path)), None)
    if odd:
        raise ValueError(f"{str(odd)!r} has a comma or a line break in its path, which no list of images can hold")
    if options.shuffle:
        random.Random(options.seed).shuffle(found)  # noqa: S311  the same images each time
    return found[: options.limit_files]


def categories(path: Path) -> list[str]:
    """The first word of each row that has one."""
    return [row.split()[0] for row in path.read_text(encoding="utf-8").splitlines() if row.strip()]


def _write(path: Path, rows: list[str]) -> None:
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-dir", type=Path, required=True, help="one directory per category")
    parser.add_argument("--label-file", type=Path, required=True, help="a category per row")
    parser.add_argument("--output-image-file", type=Path, required=True, help="gets a path per row")
    parser.add_argument("--output-label-file", type=Path, required=True, help="gets number,label,path per row")
    parser.add_argument("--limit-files", type=_count, metavar="N", help="images at most")
    parser.add_argument("--limit-per-category", type=_count, metavar="N", help="images of one category at most")
    parser.add_argument("--shuffle", action="store_true", help="mix categories")
    parser.add_argument("--seed", type=int, default=0, help="of the mixing (%(default)s)")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
