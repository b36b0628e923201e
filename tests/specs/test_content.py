"""A model cache that two processes share: a lock of one open file stands for the other's."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

import pytest

from aibenchd.specs import content

BODY = b"weights" * 1_000
SHA256 = hashlib.sha256(BODY).hexdigest()


def test_bytes_that_two_processes_fetch_at_once_do_not_mix(tmp_path: Path) -> None:
    kept = content.Content(tmp_path)
    with kept.partial("origin", ()) as one, content.Content(tmp_path).partial("origin", ()) as other:
        for partial in (one, other):
            partial.write(BODY[:100])
        for partial in (one, other):
            partial.write(BODY[100:])
        found = [kept.keep(partial, "net.pb") for partial in (one, other)]
    assert {(file.digest, file.path.read_bytes()) for file in found} == {(SHA256, BODY)}
    assert list((tmp_path / "partial").iterdir()) == []


def test_who_opened_what_another_takes_over_just_then_does_not_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = content.Content(tmp_path)
    with kept.partial("origin", ()) as one:
        one.write(BODY)
    taken = tmp_path / "taken over"

    def lock(_file: object, _how: int) -> None:
        one.path.rename(taken)

    monkeypatch.setattr(fcntl, "flock", lock)
    with kept.partial("origin", ()) as other:
        other.write(b"more")
    assert taken.read_bytes() == BODY


def test_a_crash_just_before_bytes_are_taken_over_is_no_obstacle(tmp_path: Path) -> None:
    kept = content.Content(tmp_path)
    with kept.partial("origin", ()) as one:
        one.write(BODY)
    one.path.chmod(0o444)
    with kept.partial("origin", ()) as again:
        assert again.size in (len(BODY), 0)  # 0: of who is not root, and must begin anew


def test_directories_that_two_processes_copy_at_once_do_not_mix(tmp_path: Path) -> None:
    kept = content.Content(tmp_path)
    with kept.partial("origin", ()) as one, content.Content(tmp_path).partial("origin", ()) as other:
        first = kept.staging(one)
        first.mkdir()
        assert kept.staging(other) != first
        assert first.is_dir()


def test_nothing_is_shown_in_the_place_of_verified_bytes(tmp_path: Path) -> None:
    kept = content.Content(tmp_path / content.DIRECTORY)
    with kept.partial("origin", ()) as one:
        one.write(BODY)
        found = kept.keep(one, "net.pb")
    content.show(tmp_path, found.path, tmp_path / "other")  # of a format .content, a model sha256 and a file of that digest
    assert found.unchanged()
