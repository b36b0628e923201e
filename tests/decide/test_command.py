"""``aibenchd decide`` on files, good and bad."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aibenchd import cli


def tape(path: Path, ratio: float, count: int = 40) -> Path:
    lines = [
        {
            "block": number,
            "order": "TC" if number * 7 % 3 else "CT",
            "control": [100 + number % 3, 103.0],
            "treatment": [ratio * (100 + (number + 1) % 3), 104.0 * ratio],
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_each_tape_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tape(tmp_path / "slow", 1.1), tape(tmp_path / "same", 1.0), tape(tmp_path / "fast", 0.9)]
    assert cli.main(["decide", "--json", *map(str, paths)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["verdict"] for line in lines] == ["regressed", "unchanged", "improved"]
    assert [line["tape"] for line in lines] == [str(path) for path in paths]
    for line, ratio in zip(lines, (1.1, 1.0, 0.9), strict=True):
        assert line["low"] <= ratio - 1 <= line["high"]
        assert 0 < line["blocks"] <= 40


@pytest.mark.parametrize(("iterations", "verdict"), [(20, "regressed"), (7, "unchanged")])
def test_a_tail_is_judged_where_all_processes_have_one(
    iterations: int, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def process(number: int, slow: float) -> list[float]:
        return [(100 + number % 3 / 10 + place / 100) * (slow if place % 5 == 4 else 1) for place in range(iterations)]

    lines = [
        {
            "block": number,
            "order": "TC" if number * 7 % 3 else "CT",
            "control": process(number, 1),
            "treatment": process(number + 1, 2),
        }
        for number in range(40)
    ]
    path = tmp_path / "tape"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.main(["decide", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["in_tail"]) == (verdict, verdict == "regressed")
    assert cli.main(["decide", str(path)]) == 0
    assert ("in the tail: the slowest quarter" in capsys.readouterr().out) is found["in_tail"]


def test_for_a_person_it_is_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["decide", str(tape(tmp_path / "slow", 1.1))]) == 0
    assert "regressed after" in capsys.readouterr().out


@pytest.mark.parametrize("budget", [[], ["--max-blocks", "60"], ["--max-blocks", "1"]])
def test_a_tape_that_runs_out_is_inconclusive(budget: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["decide", "--json", *budget, str(tape(tmp_path / "short", 1.1, count=2))]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "inconclusive"


GOOD = {"block": 0, "order": "TC", "control": [1.0], "treatment": [1.0]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "expected a JSON object"),
        ("[1]", "expected an object with"),
        ('{"trial": 0, "us": [1.0]}', """"control" and "treatment", not 'trial', 'us'"""),
        ("\n".join(["{}"] * 10), "10:1: expected an object"),
        ("\n".join(["{}"] * 300), "12:1: from here on, 290 more faults are not listed"),
        (json.dumps(GOOD | {"order": "TCT"}), '"order": expected "CT" or "TC"'),
        (json.dumps(GOOD | {"block": -1}), '"block": expected its number'),
        (json.dumps(GOOD | {"block": True}), '"block": expected its number'),
        (json.dumps(GOOD | {"control": []}), '"control": expected a list'),
        (json.dumps(GOOD | {"treatment": [1, 0]}), '"treatment"[1]: expected a positive'),
        (json.dumps(GOOD | {"treatment": [float("nan")]}), '"treatment"[0]: expected a positive'),
        (json.dumps(GOOD | {"treatment": [10**400]}), '"treatment"[0]: expected a positive'),
        (json.dumps(GOOD | {"treatment": ["1"]}), '"treatment"[0]: expected a positive'),
        (f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}", '"block": 0 was on line 2 already'),
        (f"{json.dumps(GOOD | {'block': 5})}\n{json.dumps(GOOD | {'block': 4})}", '"block": expected one after 5, not 4'),
        (f'{{"block": {"9" * 5000}}}', "expected a JSON object"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "block"}), '"block": expected its number'),
        ("[" * 100_000, "expected a JSON object"),
    ],
)
def test_a_bad_line_is_named(line: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tape"
    path.write_text(f"\n{line}\n")
    good = tape(tmp_path / "good", 1.1)
    assert cli.main(["decide", "--json", str(path), str(good)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{path}:")
    assert expected in printed.err
    assert "Traceback" not in printed.err
    assert json.loads(printed.out)["tape"] == str(good)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ": holds no block; expected one JSON object a line"),
        (b"\xff\xfe{}\n" * 9, ":1:1: is no text in UTF-8; expected a JSON object a line"),
        (b"\x00\xff\n" * 9, ":1:1: is no text in UTF-8; expected a JSON object a line"),
        (b'\n{"block": 1, }\n', ":2:14: expected a JSON object: "),
    ],
)
def test_a_file_that_is_no_tape_is_named(
    content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tape"
    path.write_bytes(content)
    assert cli.main(["decide", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{path}{expected}")
    assert said.count("\n") == 1
    assert "line 1" not in said


def test_that_blocks_are_in_no_order_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tape(tmp_path / "tape", 1.1)
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert cli.main(["decide", str(path)]) == 1
    assert capsys.readouterr().err == (
        f'{path}:2:1: "block": expected one after 39, not 38; sort the lines by "block", which is the order in which they ran\n'
    )


def test_a_tape_may_come_by_standard_input(tmp_path: Path) -> None:
    content = tape(tmp_path / "tape", 1.1).read_bytes()
    told = subprocess.run(
        [sys.executable, "-m", "aibenchd", "decide", "-"], input=content, capture_output=True, check=True, cwd=tmp_path
    )
    assert told.stdout.startswith(b"-: regressed after ")


def test_one_block_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["decide", str(tape(tmp_path / "short", 1.1, count=1))]) == 0
    assert "inconclusive after 1 block: " in capsys.readouterr().out


def test_orders_that_are_no_pairs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, good = tmp_path / "tape", tape(tmp_path / "good", 1.1)
    path.write_text("".join(json.dumps(GOOD | {"block": number}) + "\n" for number in range(2)))
    assert cli.main(["decide", "--order", "pairs", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: blocks 0 and 1 are both TC: expected opposite orders\n"
    assert cli.main(["decide", str(path), str(good)]) == 0


def test_times_of_any_size_are_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even the estimate fits a float: it is not known then."""
    path = tmp_path / "tape"
    huge = GOOD | {"treatment": [1e308] * 16, "control": [1e-308]}
    path.write_text(
        "".join(json.dumps(huge | {"block": number, "order": ("TC", "CT")[number % 2]}) + "\n" for number in range(20))
    )
    assert cli.main(["decide", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["estimate"]) == ("regressed", None)


def test_a_missing_file_and_a_bad_rate_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["decide", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["decide", "--alpha", "0.6", str(tmp_path / "none")])
    assert "between 0 and 0.5" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["10%", "0.1"])
def test_shares_are_told_as_bench_takes_them(said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tape(tmp_path / "slow", 1.06))
    assert cli.main(["decide", "--json", "--alpha", "1%", "--min-effect", said, path]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "unchanged"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--min-effect", "200%"), "a share between 0 and 1, such as 0.02 or 2%, not '200%'"),
        (("--min-effect", "%"), "a share between 0 and 1"),
        (("--alpha", "50%"), "a share between 0 and 0.5, not '50%'"),
    ],
)
def test_what_is_no_share_is_said(words: tuple[str, str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["decide", *words, "tape"])
    assert expected in capsys.readouterr().err
