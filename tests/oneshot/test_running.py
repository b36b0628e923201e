"""A run whose device does not answer, or whose sink does not take anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import desk
import pytest

from aibenchd.oneshot import answers, arranging, command, fleet, options, running
from aibenchd.oneshot.exits import Exit


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def run(at_desk: desk.Desk, said: options.Options) -> running.Ended:
    said = replace(said, benchmarks=(Path(at_desk.specification()),), treatment=at_desk.program("engine"))
    directory = at_desk.directory / "state"
    known = answers.Answers(at_desk.directory / "answers.json", None)
    arranged = arranging.arrange(said, known, await fleet.chosen(said), directory)
    return await running.Run(arranged, directory, running.Watcher(), patience=0.2).run()


async def test_a_device_that_does_not_answer_is_not_waited_for_for_ever(at_desk: desk.Desk) -> None:
    ended = await run(at_desk, options.Options(devices=("bench@127.0.0.1:1",)))
    (stuck,) = ended.stuck
    assert stuck.startswith("device/bench-127.0.0.1-1: lost: ")
    assert "Connection refused" in ended.results[0].reason
    assert [one.exit for one in ended.results] == [Exit.HARNESS_ERROR]


async def test_a_name_that_no_device_has_is_told_once(at_desk: desk.Desk, capsys: pytest.CaptureFixture[str]) -> None:
    said = options.Options(devices=("phnoe",))
    ended = await run(at_desk, said)
    assert command._conclude(said, ended, at_desk.directory) == Exit.HARNESS_ERROR
    out, err = capsys.readouterr()
    assert "not finished" in out
    assert ended.results[0].reason.startswith("lost: phnoe: ")
    assert (out + err).count(ended.results[0].reason) == 1
    assert err.count("no device is called 'phnoe' (this host is this-host or local or host or localhost, and --config FILE") == 1
    assert fleet.remarks(options.Options(devices=("local", "me@board", "10.0.0.7:5555"))) == {}
    assert fleet.remarks(options.Options(devices=("phnoe",), config=Path("lab.yaml"))) == {}


async def test_what_one_device_cannot_do_does_not_keep_another_from_it(at_desk: desk.Desk) -> None:
    ended = await run(at_desk, options.Options(devices=("local", "bench@127.0.0.1:1"), blocks=1))
    assert sorted(one.verdict for one in ended.results) == ["", "measured"]


async def test_a_directory_that_cannot_be_written_is_told(at_desk: desk.Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "DELIVERY_SECONDS", 1.0)
    (at_desk.directory / "file").write_text("where the directory would be")
    ended = await run(at_desk, options.Options(local_reporter=at_desk.directory / "file", blocks=1))
    assert [one.verdict for one in ended.results] == ["measured"]
    (stuck,) = ended.stuck
    assert stuck.startswith("not all results were delivered: ")
    assert "file" in stuck
