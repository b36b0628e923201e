"""The accuracy flow of FAI-PEP's published SqueezeNet, command by command, with a program that reads its guess in the image."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aibenchd import model, settings
from aibenchd.frameworks import base, generic, placeholders
from aibenchd.specs import catalog, schema

ROOT = Path(placeholders.ROOT) / "libraries/python"
PUBLISHED = Path(__file__).parents[1] / "data/faipep/models/caffe2/squeezenet/squeezenet_accuracy_imagenet.json"
CATEGORIES = (ROOT / "labels.txt").read_text().split()
IMAGES = 20
REPEATS = 4

CONVERT = f"""\
#!{sys.executable}
import sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
paths = [row.split(",")[2] for row in open(options["--input_image_file"]).read().splitlines()]
open(options["--output_tensor"], "w").write("".join(open(path).read() + "\\n" for path in paths))
"""
PROGRAM = f"""\
#!{sys.executable}
import sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
guesses = [int(row) for row in open(options["--input_file"]).read().split()]
numbers = ["0.9" if place == guess else "0.0001" for guess in guesses for place in range(1000)]
with open(options["--output_folder"] + "/" + options["--output"] + ".txt", "w") as file:
    file.write(f"{{len(guesses)}}, 1000\\n" + ",".join(numbers) + "\\n")
"""


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def images(directory: Path) -> list[Path]:
    """One image in each of some categories: its text is the number that the program will guess, wrong in every fourth."""
    found = []
    for number in range(IMAGES):
        label = number * 50
        path = directory / "val" / CATEGORIES[label] / "image.JPEG"
        path.parent.mkdir(parents=True)
        path.write_text(str(label if number % 4 else label + 1))
        found.append(path)
    return found


def published(image_directory: Path) -> model.Benchmark:
    selection = settings.BenchmarkSelection(specification=PUBLISHED, string_map={"IMAGENET_DIR": str(image_directory)})
    (benchmark,) = catalog.load(settings.Settings(benchmarks=(selection,))).benchmarks(selection)
    fewer = {**benchmark.model, "repeat": REPEATS, "total_images": IMAGES}
    return model.Benchmark(fewer, benchmark.test, benchmark.source)


def run(commands: tuple[str, ...]) -> str:
    done = [
        subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
        for command in commands
    ]
    assert [one.stderr for one in done] == [""] * len(done)
    return "".join(one.stdout for one in done)


def test_the_published_flow_gives_the_accuracy(tmp_path: Path) -> None:
    work, host = tmp_path / "work", tmp_path / "host"
    work.mkdir()
    images(tmp_path / "images")
    benchmark = published(tmp_path / "images")
    test, whole = schema.typed(benchmark)
    assert whole.preprocess is not None
    assert whole.postprocess is not None
    assert test.preprocess is not None
    assert test.postprocess is not None
    for index in range(REPEATS):
        place = base.Place(
            target_directory=f"{work}/",
            host_directory=str(host),
            build_directory=str(tmp_path),
            programs={
                "program": program(tmp_path / "program", PROGRAM),
                "convert_image_to_tensor": program(tmp_path / "convert_image_to_tensor", CONVERT),
            },
            files={"init": "/dev/null", "predict": "/dev/null"},
            input_files={"images_tensor": f"{host}/images_tensor.pb"},
            output_files={"softmaxout": f"{work}/softmaxout.txt"},
            index=index,
        )
        if index == 0:
            run(placeholders.compose(whole.preprocess.texts, benchmark, place))
        run(placeholders.compose(test.preprocess.texts, benchmark, place))
        run(generic.Generic().commands(benchmark, place))
        run(placeholders.compose(test.postprocess.texts, benchmark, place))
    printed = run(placeholders.compose(whole.postprocess.texts, benchmark, place))
    (series,) = generic.Generic().parse(printed, benchmark).series
    assert (series.key, series.unit, series.values) == ("NET accuracy", "%", (75.0,))


def test_the_scripts_come_with_the_package_and_can_be_run() -> None:
    scripts = set(re.findall(r"libraries/python/(\w+\.\w+)", PUBLISHED.read_text()))
    assert scripts == {path.name for path in ROOT.iterdir() if path.is_file()}
    assert all(os.access(ROOT / name, os.X_OK) for name in scripts if name.endswith(".py"))


def test_the_labels_are_imagenet_s_categories_in_their_order() -> None:
    assert len(CATEGORIES) == 1000
    assert sorted(CATEGORIES) == CATEGORIES
    assert (CATEGORIES[0], CATEGORIES[151], CATEGORIES[999]) == ("n01440764", "n02085620", "n15075141")


# ---------------------------------------------------------------- the scripts by themselves


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def mapped(directory: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    outputs = ("--output-image-file", directory / "images.txt", "--output-label-file", directory / "labels.txt")
    return script("imagenet_test_map.py", "--label-file", ROOT / "labels.txt", *outputs, *arguments)


def compared(directory: Path, output: str, labels: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    (directory / "out.txt").write_text(output)
    (directory / "labels.txt").write_text(labels)
    files = ("--benchmark-output", directory / "out.txt", "--labels", directory / "labels.txt")
    return script("classification_compare.py", *files, *arguments)


def test_the_same_images_are_chosen_each_time(tmp_path: Path) -> None:
    every = images(tmp_path)
    wanted = ("--image-dir", tmp_path / "val", "--limit-files", 7, "--limit-per-category", 1, "--shuffle")
    assert mapped(tmp_path, *wanted).stderr == ""
    first = (tmp_path / "labels.txt").read_text()
    mapped(tmp_path, *wanted)
    assert (tmp_path / "labels.txt").read_text() == first
    rows = [row.split(",") for row in first.splitlines()]
    assert [row[0] for row in rows] == list("0123456")
    assert all(Path(row[2]) in every and CATEGORIES[int(row[1])] == Path(row[2]).parent.name for row in rows)
    assert (tmp_path / "images.txt").read_text().split() == [row[2] for row in rows]
    assert [int(row[1]) for row in rows] != sorted(int(row[1]) for row in rows)


def test_so_many_of_each_category_and_no_other_files(tmp_path: Path) -> None:
    for name in ("b.jpeg", "a.png", "c.jpg", "notes.txt"):
        path = tmp_path / "val" / CATEGORIES[3] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    mapped(tmp_path, "--image-dir", tmp_path / "val", "--limit-per-category", 2)
    assert [Path(row).name for row in (tmp_path / "images.txt").read_text().split()] == ["a.png", "b.jpeg"]


@pytest.mark.parametrize(
    ("directory", "said"),
    [("nowhere", "No such file"), ("empty", "holds no directories of images"), ("odd/val", "is no category of")],
)
def test_images_that_cannot_be_had(tmp_path: Path, directory: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd/val/cats").mkdir(parents=True)
    done = mapped(tmp_path, "--image-dir", tmp_path / directory)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


OUTPUT = "3, 4\n0.1,0.7,0.2,0,0.4,0.3,0.2,0.1,0.25,0.25,0.25,0.25\n"


@pytest.mark.parametrize(
    ("output", "top", "correct"),
    [
        (OUTPUT, 1, 1),
        (OUTPUT, 2, 2),
        (OUTPUT, 4, 3),
        (OUTPUT.partition("\n")[2], 1, 1),
        (OUTPUT.partition("\n")[2].replace(",", "\n"), 2, 2),
        ("3,4\n" + "1e-3,0,0,0\n0,1,0,0\n0,0,0,1\n", 1, 2),
    ],
)
def test_an_image_counts_where_its_label_is_among_the_first(tmp_path: Path, output: str, top: int, correct: int) -> None:
    result = tmp_path / "accuracy_0.txt"
    done = compared(tmp_path, output, "0,1,/a\n1,1,/b\n2,3,/c\n", "--top", top, "--result-file", result, "--name", "net")
    assert done.stderr == ""
    assert json.loads(result.read_text()) == {"name": "net", "top": top, "correct": correct, "total": 3}


def test_one_comparison_can_print_its_record_itself(tmp_path: Path) -> None:
    done = compared(tmp_path, "1,2\n0.1,0.9\n", "1\n", "--metric-keyword", "Caffe2Observer ")
    assert done.stdout.splitlines()[-1] == 'Caffe2Observer {"type": "NET", "metric": "accuracy", "unit": "%", "value": 100.0}'


@pytest.mark.parametrize(
    ("output", "labels", "said"),
    [
        (OUTPUT, "0,1,/a\n", "3 x 4 numbers are not those of 1 images"),
        ("0.1,0.2,0.3", "0,1,/a\n1,1,/b\n", "3 numbers are not those of 2 images"),
        ("", "0,1,/a\n", "not those of 1 images"),
        ("1,2\n0.1,nan\n", "0,1,/a\n", "holds nan"),
        ("1,2\n0.1,x\n", "0,1,/a\n", "could not convert"),
        ("1,2\n0.1,0.9\n", "0,2,/a\n", "label 2 is none of the output's 2 categories"),
        ("1,2\n0.1,0.9\n", "0,dog,/a\n", "expected rows of number,label,path"),
        ("1,2\n0.1,0.9\n", "\n", "holds no labels"),
    ],
)
def test_an_output_that_is_none_says_so(tmp_path: Path, output: str, labels: str, said: str) -> None:
    done = compared(tmp_path, output, labels)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_results_are_added_up(tmp_path: Path) -> None:
    for number, (correct, total) in enumerate(((1, 4), (3, 4), (2, 2))):
        (tmp_path / f"accuracy_{number}.txt").write_text(json.dumps({"correct": correct, "total": total}))
    done = script("aggregate_classification_results.py", "--dir", tmp_path, "--prefix", "accuracy")
    assert json.loads(done.stdout)["value"] == 60.0
    done = script("aggregate_classification_results.py", "--dir", tmp_path, "--prefix", "accuracy", "--limit", 2)
    assert json.loads(done.stdout)["value"] == 50.0


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("{}", ("--limit", 1), "holds no result"),
        ("[]", (), "holds no result"),
        ('{"correct": 2, "total": 1}', (), "cannot be"),
        ('{"correct": 0, "total": 0}', (), "cannot be"),
        ('{"correct": 1, "total": 1}', ("--limit", 2), "No such file"),
        ('{"correct": 1, "total": 1}', ("--prefix", "other"), "holds no other_0.txt"),
        ('{"correct": 1, "total": 1}', ("--limit", 0), "expected a whole number from 1"),
    ],
)
def test_results_that_are_none_say_so(tmp_path: Path, text: str, arguments: tuple[object, ...], said: str) -> None:
    (tmp_path / "accuracy_0.txt").write_text(text)
    done = script("aggregate_classification_results.py", "--dir", tmp_path, *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
