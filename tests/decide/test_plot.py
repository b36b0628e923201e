"""``aibenchd decide --plot``: pictures are read back, and what cannot be drawn is said."""

import json
import re
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from aibenchd import cli
from aibenchd.decide import command

SVG = "{http://www.w3.org/2000/svg}"


def tape(path: Path, ratio: float, count: int = 40, noise: float = 0.01) -> Path:
    rng = np.random.default_rng(50)
    with path.open("w") as file:
        for number in range(count):
            control, treatment = np.exp(rng.standard_normal(2) * noise)
            order = ("TC", "CT")[rng.integers(2)]
            file.write(
                json.dumps({"block": number, "order": order, "control": [control], "treatment": [ratio * treatment]}) + "\n"
            )
    return path


def points(svg: ElementTree.Element, name: str) -> np.ndarray:
    """Of the path that bears the name, in the picture's own units; shape (points, 2)."""
    found = svg.find(f".//{SVG}g[@id='{name}']/{SVG}path")
    assert found is not None
    return np.array(re.findall(r"[ML] (\S+) (\S+)", found.attrib["d"]), dtype=float)


def marked(svg: ElementTree.Element, name: str) -> np.ndarray:
    found = svg.find(f".//{SVG}g[@id='{name}']//{SVG}use")
    assert found is not None
    return np.array([found.attrib["x"], found.attrib["y"]], dtype=float)


def words(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]


@pytest.mark.parametrize(("ratio", "verdict"), [(1.04, "regressed"), (1.0, "unchanged"), (0.96, "improved")])
def test_a_picture_says_what_the_decision_says(
    ratio: float, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The zone's edges, which are known, give the scale by which all else is read."""
    picture = tmp_path / "picture.svg"
    assert cli.main(["decide", "--json", "--plot", str(picture), str(tape(tmp_path / "tape", ratio))]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == verdict
    svg = ElementTree.parse(picture).getroot()
    heights = points(svg, "tape-1-zone")[:, 1]
    slope = (0.02 - (1 / 1.02 - 1)) / (heights.min() - heights.max())

    def change(height: float) -> float:
        return float(0.02 + (height - heights.min()) * slope)

    estimate, low, high = (points(svg, f"tape-1-{name}") for name in ("estimate", "low", "high"))
    assert marked(svg, "tape-1-verdict") == pytest.approx(estimate[-1], abs=1e-3)
    for line, side in ((estimate, "estimate"), (low, "low"), (high, "high")):
        assert change(line[-1, 1]) == pytest.approx(said[side], abs=1e-5)
    assert len(estimate) == said["blocks"]
    assert np.ptp(np.diff(estimate[:, 0])) < 1e-3
    assert points(svg, "tape-1-interval")[:, 1].max() >= low[-1, 1]
    assert any(f"{verdict} after {said['blocks']} blocks" in text for text in words(svg))


def test_several_tapes_are_panels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that cannot be read has none."""
    picture = tmp_path / "picture.svg"
    paths = [tape(tmp_path / "one", 1.1), tmp_path / "none", tape(tmp_path / "two", 1.0), tape(tmp_path / "three", 1.0, count=2)]
    assert cli.main(["decide", "--plot", str(picture), *map(str, paths)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert "none: cannot be read" in printed.err
    found = ElementTree.parse(picture).getroot()
    assert sum("-verdict" in group.get("id", "") for group in found.iter(f"{SVG}g")) == 3
    assert {"one", "two", "three"} <= set(words(found))
    assert any("inconclusive after 2 blocks" in text for text in words(found))


def test_a_reason_is_wrapped(tmp_path: Path) -> None:
    """4 % slower for 5 blocks, then 5 % faster."""
    picture, path = tmp_path / "picture.svg", tmp_path / "tape"
    lines = [
        {"block": n, "order": ("TC", "CT")[n % 3 % 2], "control": [1.0], "treatment": [1.04 if n < 5 else 0.95 + n % 7 / 1000]}
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.main(["decide", "--plot", str(picture), str(path)]) == 0
    said = words(ElementTree.parse(picture).getroot())
    assert max(map(len, said)) < 70
    assert any("it changed while it was measured" in text for text in said)


def test_the_same_tapes_make_the_same_bytes(tmp_path: Path) -> None:
    path = tape(tmp_path / "tape", 1.0)
    for name in ("one.svg", "two.svg"):
        assert cli.main(["decide", "--plot", str(tmp_path / name), str(path)]) == 0
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_png_is_one(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    assert cli.main(["decide", "--plot", str(picture), *[str(tape(tmp_path / "tape", 1.1))] * 3]) == 0
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (1040, 640)


@pytest.mark.parametrize("name", ["$x_2$", "a\nb", "<&>", "bell\a", b"no text \xff".decode(errors="surrogateescape")])
def test_a_tape_may_have_any_name(name: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    arguments = cli._parser().parse_args(["decide", "--json", "--plot", str(picture), str(tape(tmp_path / name, 1.0))])
    assert arguments.run(arguments) == 0
    expected = re.sub("[\a\n\udcff]", "?", name)
    assert expected in words(ElementTree.parse(picture).getroot())


def test_times_of_any_size_are_drawn(tmp_path: Path) -> None:
    """Not even the estimate fits a float, or an axis."""
    for name, far in (("infinite", 1e300), ("huge", 1e100)):
        lines = [{"block": n, "order": ("TC", "CT")[n % 2], "control": [1 / far], "treatment": [far]} for n in range(20)]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        picture = tmp_path / "picture.svg"
        assert cli.main(["decide", "--plot", str(picture), str(tmp_path / name)]) == 0
        assert any("regressed after" in text for text in words(ElementTree.parse(picture).getroot()))


def test_a_long_tape_is_drawn_at_some_of_its_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, path = tmp_path / "picture.svg", tape(tmp_path / "tape", 1.0, count=130, noise=0.5)
    assert cli.main(["decide", "--json", "--plot", str(picture), str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["blocks"] == 130
    svg = ElementTree.parse(picture).getroot()
    estimate = points(svg, "tape-1-estimate")
    assert marked(svg, "tape-1-verdict") == pytest.approx(estimate[-1], abs=1e-3)
    assert np.unique(estimate[:, 0]).size <= command.POINTS + 1


def test_what_cannot_be_written_is_said_after_the_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tape(tmp_path / "tape", 1.1)
    directory = tmp_path / "directory.svg"
    directory.mkdir()
    for picture, reason in ((tmp_path / "no" / "picture.svg", "No such file or directory"), (directory, "Is a directory")):
        assert cli.main(["decide", "--plot", str(picture), str(path)]) == 1
        printed = capsys.readouterr()
        assert "regressed after" in printed.out
        assert printed.err == f"{picture}: cannot be written: {reason}\n"


@pytest.mark.parametrize("name", ["picture.gif", "picture", "svg", ""])
def test_a_picture_of_another_kind_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["decide", "--plot", name, str(tape(tmp_path / "tape", 1.1))])
    assert "--plot: expected a file that ends in .png or .svg" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["decide", "--plot", str(tmp_path / "picture.svg"), str(tape(tmp_path / "tape", 1.1))]) == 1
    assert "pip install 'aibenchd[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "picture.svg").exists()


def test_where_no_tape_can_be_read_there_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["decide", "--plot", str(tmp_path / "picture.svg"), str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "picture.svg").exists()
