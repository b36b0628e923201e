from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from aibenchd.oneshot import options


def read(*words: str) -> options.Options:
    parser = argparse.ArgumentParser()
    options.add_bench(parser)
    return options.read(parser.parse_args(words))


def test_what_is_not_said_is_empty() -> None:
    assert read() == options.Options()


def test_words_become_values() -> None:
    said = read(
        *("-b", "/a.json", "-b", "/b.json", "-d", "local, phone", "--backend", "cpu,mkl", "--cpus", "0,2", "--min-effect", "5%"),
        *("--alpha", "0.001", "--timeout", "1m30s", "--seconds", "20", "--env", "A=1", "B=x=y", "--env", "A=2"),
        *("--string-map", '{"size": "64"}'),
    )
    assert said.benchmarks == (Path("/a.json"), Path("/b.json"))
    assert (said.devices, said.backends, said.cpus) == (("local", "phone"), ("cpu", "mkl"), (0, 2))
    assert (said.min_effect, said.alpha, said.timeout, said.seconds) == (0.05, 0.001, 90.0, 20.0)
    assert (said.env, said.string_map) == ({"A": "2", "B": "x=y"}, {"size": "64"})


def test_the_old_spelling_is_taken_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    said = read(
        *("--benchmark_file", "/a.json", "--local_reporter", "/r", "--simple_screen_reporter", "--user_identifier", "me"),
        *("--root_model_dir", "/m", "--excluded_devices", "x", "--set_freq", "max", "--reset_options"),
    )
    assert said.benchmarks == (Path("/a.json"),)
    assert (said.local_reporter, said.root_model_dir, said.excluded_devices) == (Path("/r"), Path("/m"), ("x",))
    assert (said.simple_screen_reporter, said.user_identifier, said.set_freq, said.reset_options) == (True, "me", "max", True)
    with pytest.raises(SystemExit):
        read("--help")
    assert "local_reporter" not in (shown := capsys.readouterr().out)
    assert "--benchmark-file" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--remote_access_token", "hunter2"), "does not belong on the command line"),
        (("--min-effect", "2"), "a share between 0 and 1"),
        (("--min-effect", "nan"), "a share between 0 and 1"),
        (("--timeout", "soon"), "such as 90s"),
        (("--timeout", "-1"), "seconds from 0 on"),
        (("--env", "A"), "NAME=VALUE"),
        (("--string-map", "[]"), "a JSON object"),
        (("--string-map", '{"a": 1}'), "expected text for 'a'"),
        (("--blocks", "0"), "from 1 to 1000000"),
        (("--cpus", "0,x"), "a number from 0 on, not 'x'"),
        (("--vcs", "cvs"), "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_said(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*words)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "hunter2" not in shown
