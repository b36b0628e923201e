from __future__ import annotations

from pathlib import Path

import pytest

from aibenchd import errors
from aibenchd.oneshot import answers


def asking(*given: str) -> answers.Ask:
    left = iter(given)
    return lambda _: next(left)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "config" / "answers.json"


def framework(known: answers.Answers) -> str:
    return known.of("framework", "Which framework", "--framework", known=("caffe2", "pytorch"))


def test_an_answer_is_asked_for_once(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert framework(answers.Answers(kept, asking("caffe2"))) == "caffe2"
    assert framework(answers.Answers(kept, None)) == "caffe2"
    assert "framework: caffe2, as you answered before" in capsys.readouterr().err
    answers.forget(kept)
    assert framework(answers.Answers(kept, asking("pytorch"))) == "pytorch"


def test_what_is_none_of_the_answers_is_asked_again(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert framework(answers.Answers(kept, asking("pytroch", "pytorch"))) == "pytorch"
    assert "'pytroch' is none of them; did you mean 'pytorch'?" in capsys.readouterr().err


def test_what_an_answer_comes_to_is_kept_and_what_comes_to_nothing_is_asked_again(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def meant(text: str) -> str:
        if text == "gone":
            raise errors.CommandError("gone: there is no such program")
        return f"/here/{text}"

    def program(known: answers.Answers) -> str:
        return known.of("program", "Where is the program", "--program", meant=meant)

    assert program(answers.Answers(kept, asking("gone", "net"))) == "/here/net"
    assert "gone: there is no such program\n" in capsys.readouterr().err
    assert program(answers.Answers(kept, None)) == "/here/net"


@pytest.mark.parametrize("ask", [None, asking("", "x", "y")])
def test_where_nobody_knows_the_option_is_named(kept: Path, ask: answers.Ask | None) -> None:
    with pytest.raises(errors.CommandError, match=r"^Which framework\? \(caffe2, pytorch\) Say it with --framework$"):
        framework(answers.Answers(kept, ask))
    assert not kept.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"framework": 1}'])
def test_a_file_that_is_none_of_ours_is_named(kept: Path, text: str) -> None:
    kept.parent.mkdir()
    kept.write_text(text)
    with pytest.raises(errors.CommandError, match=r"answers\.json: .* forget it with --reset-options"):
        answers.Answers(kept, None)
    answers.forget(kept)
    answers.forget(kept)


def test_an_answer_that_cannot_be_kept_holds_all_the_same(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kept.parent / ".answers.json.new").mkdir(parents=True)  # where it would be written first
    assert framework(answers.Answers(kept, asking("caffe2"))) == "caffe2"
    assert "so you will be asked again" in capsys.readouterr().err
    assert not kept.exists()


def test_the_directories_are_those_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    monkeypatch.setenv("XDG_CACHE_HOME", "not absolute, which the specification has ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert answers.path() == Path("/c/aibenchd/answers.json")
    assert answers.cache() == tmp_path / ".cache/aibenchd"
