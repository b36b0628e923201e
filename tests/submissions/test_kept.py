"""What people sent: kept for as long as it is used, needed, or there is room; laid out without a copy."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import digests, errors
from aibenchd.api import sending
from aibenchd.submissions import kept

HOUR = 3600.0


def put(store: kept.Kept, content: bytes, age: float = 0.0, sender: int = 1) -> str:
    """Keep bytes that were used so long ago; their digest."""
    digest = hashlib.sha256(content).hexdigest()
    coming = store.begin(digest, len(content), 1 << 20, sender=sender, is_directory=False)
    coming.write(content)
    coming.settle()
    coming.close()
    mark, then = store.directory / ".content" / "used" / digest, time.time() - age
    os.utime(mark, (then, then))
    return digest


def test_what_is_old_goes_and_what_is_needed_stays(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    old, needed, new = put(store, b"old", 3 * HOUR), put(store, b"needed", 3 * HOUR), put(store, b"new", HOUR / 2)
    store.forget(2 * HOUR, 1 << 20, {needed})
    assert [store.has(one) for one in (old, needed, new)] == [False, True, True]


def test_a_crash_while_something_goes_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sent").mkdir()
    for name in ("a", "b"):
        (tmp_path / "sent" / name).write_text(name)
    sent = sending.of(tmp_path / "sent")
    store = kept.Kept(tmp_path / "kept")
    coming = store.begin(sent.digest, sent.size, 1 << 20, sender=1, is_directory=True)
    for piece in sent.pieces():
        coming.write(piece)
    coming.settle()
    coming.close()

    def crash(path: Path) -> None:
        next(one for one in path.rglob("*") if one.is_file()).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(kept.trees, "delete", crash)
    with pytest.raises(KeyboardInterrupt):
        store.forget(-1.0, 1 << 20, set())
    assert not store.has(sent.digest)
    monkeypatch.undo()
    store.sweep()
    assert list((store.directory / "incoming").iterdir()) == []


def test_two_may_let_go_of_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = kept.Kept(tmp_path)
    digests_of = [put(store, bytes([number]), 3 * HOUR) for number in range(2)]
    sizes, first = kept.trees.sizes, True

    def meanwhile(paths: Iterable[Path]) -> dict[Path, int]:
        nonlocal first
        found = list(paths)
        if first:
            first = False
            kept.Kept(tmp_path).forget(2 * HOUR, 1 << 20, set())
        return sizes(found)

    monkeypatch.setattr(kept.trees, "sizes", meanwhile)
    store.forget(2 * HOUR, 1 << 20, set())
    assert [store.has(one) for one in digests_of] == [False, False]


def test_what_is_too_much_goes_least_recently_used_first(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    ages = (5, 4, 3, 2)
    each = [put(store, bytes([age]) * 100, age * HOUR) for age in ages]
    store.forget(100 * HOUR, 250, {each[0]})  # what is needed has its place, though it is the oldest
    assert [(store.path(one)).exists() for one in each] == [True, False, False, True]
    just_now = put(store, b"x" * 200)
    store.forget(100 * HOUR, 0, set())
    assert store.has(just_now)


def test_room_is_made_for_more_or_it_is_refused(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    old, needed = put(store, b"old" * 50, 5 * HOUR), put(store, b"needed" * 20, 6 * HOUR)
    store.make_room(100, 100 * HOUR, 400, {needed})
    assert store.path(old).exists()
    store.make_room(200, 100 * HOUR, 400, {needed})
    assert not store.path(old).exists()
    with pytest.raises(errors.NoSpaceError, match=r"leaves too little of submissions.cache_size \(400B\); raise it, or wait"):
        store.make_room(300, 100 * HOUR, 400, {needed})
    assert store.path(needed).exists()


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_disk_that_fills_while_something_comes_keeps_the_journals_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_directory: bool
) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "program").write_bytes(b"sent")
    sent = sending.of(tmp_path / "sent") if is_directory else sending.of(tmp_path / "sent" / "program")
    store = kept.Kept(tmp_path / "kept")
    coming = store.begin(sent.digest, sent.size, 1 << 20, sender=1, is_directory=is_directory)
    if is_directory:
        for piece in sent.pieces():
            coming.write(piece)
    monkeypatch.setattr(kept, "LEAST_FREE", 1 << 60)
    with pytest.raises(errors.NoSpaceError, match=r"is full; free some space, or lower submissions.cache_size"):
        coming.settle() if is_directory else coming.write(b"sent")
    coming.close()
    assert not store.has(sent.digest)
    assert list((store.directory / "incoming").iterdir()) == []


def test_what_is_asked_for_is_kept_for_longer(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    digest = put(store, b"asked", 3 * HOUR)
    assert store.has(digest)
    store.forget(2 * HOUR, 1 << 20, set())
    assert store.has(digest)


def test_a_specification_is_laid_out_once_and_takes_no_room(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    files = {"net.json": put(store, b"{}"), "data/in.txt": put(store, b"seven")}
    place = store.lay_out(files, 1)
    assert store.lay_out(dict(reversed(files.items())), 1) == place
    assert (place / "data" / "in.txt").read_text() == "seven"
    assert (place / "net.json").samefile(store.path(files["net.json"]))
    assert list((tmp_path / "incoming").iterdir()) == []
    with pytest.raises(errors.UploadError, match="would be a file and a directory"):
        store.lay_out({"a": files["net.json"], "a/b": files["net.json"]}, 1)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_what_a_crash_left_on_its_way_is_swept(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    (tmp_path / "incoming" / "half.d").mkdir(parents=True)
    (tmp_path / "incoming" / "half.d" / "file").touch()
    store.sweep(HOUR)
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    store.sweep()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_directory_comes_as_it_was_with_what_links_lead_to(tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "lib").mkdir(parents=True)
    (build / "empty").mkdir()
    (build / "lib" / ("long" * 60)).write_bytes(os.urandom(100_000))
    (build / "engine").write_text("#!/bin/sh\n")
    (build / "engine").chmod(0o750)
    (build / "nothing").touch()
    (build / "lib64").symlink_to("lib")
    (build / "same").symlink_to("engine")
    sent = sending.of(build)
    store = kept.Kept(tmp_path / "kept")
    coming = store.begin(sent.digest, sent.size, 1 << 20, sender=1, is_directory=True)
    packed = b"".join(sent.pieces())
    assert len(packed) == sent.size
    coming.write(packed)
    coming.settle()
    coming.close()
    found = store.path(sent.digest)
    assert digests.of_tree(found, digests.OF_TREES_SENT) == sent.digest
    assert sorted(path.name for path in found.iterdir()) == ["empty", "engine", "lib", "lib64", "nothing", "same"]
    assert not any(path.is_symlink() for path in found.rglob("*"))
    assert (found / "same").stat().st_mode & 0o111


@given(st.dictionaries(st.text("ab/.é", min_size=1, max_size=6), st.binary(max_size=2000), max_size=5))
def test_the_digest_of_what_is_sent_is_that_of_what_lies_there(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        path = Path(os.path.normpath(root / name.lstrip("/")))
        if path.is_relative_to(root) and not path.exists() and not any(one.is_file() for one in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    assert sending.Directory(root).digest == digests.of_tree(root, digests.OF_TREES_SENT)


def test_a_file_that_lists_a_directory_does_not_take_its_place(tmp_path: Path) -> None:
    root = tmp_path / "build"
    root.mkdir()
    (root / "engine").write_text("#!/bin/sh\n")
    (root / "engine").chmod(0o755)
    listing = digests.entry("engine", root / "engine").encode()
    assert hashlib.sha256(listing).hexdigest() == digests.of_tree(root)  # which is why another function is asked of what is sent
    store, sent = kept.Kept(tmp_path / "kept"), sending.Directory(root)
    put(store, listing)
    assert not store.has(sent.digest)
    for digest, pieces, is_directory in ((sent.digest, [listing], False), (digests.of_tree(root), sent.pieces(), True)):
        coming = store.begin(digest, 0, 1 << 20, sender=1, is_directory=is_directory)
        for piece in pieces:
            coming.write(piece)
        with pytest.raises(errors.UploadError, match=f", and {digest} was announced"):
            coming.settle()
        coming.close()


def test_links_that_lead_out_or_round_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for number, target in enumerate(("../secret", ".", "gone", "/etc")):
        build = tmp_path / str(number)
        build.mkdir()
        (build / "link").symlink_to(target)
        with pytest.raises(sending.Unfit, match="link"):
            sending.of(build)
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "pipe")
    with pytest.raises(sending.Unfit, match="neither a file nor a directory"):
        sending.of(tmp_path / "pipes")


def test_what_is_hidden_in_a_directory_that_is_asked_for_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "net" / ".git").mkdir(parents=True)
    (tmp_path / "net" / ".git" / "config").write_text("a token")
    with pytest.raises(sending.Unfit, match=r"net/\.git: is hidden; nothing hidden is sent, so remove it"):
        sending.Files(tmp_path).name("net")
    assert sending.of(tmp_path / "net").size > 0  # as a program it is what a person named


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(sending.Unfit, match="pipe: is neither a file nor a directory"):
        sending.Files(tmp_path).name("pipe")


def test_a_file_that_shrinks_while_it_is_sent_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    sent = sending.of(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(sending.Unfit, match="was changed while it was sent"):
        list(sent.pieces())


def ask(store: kept.Kept, size: int, sender: int, needed: Iterable[str] = ()) -> kept.Incoming:
    """Begin to send as much as that, where 1,000 bytes are one user's share; it is on its way until it is closed."""
    coming = store.begin("0" * 64, size, 1 << 20, sender=sender, is_directory=False)
    try:
        store.share_out(coming, 1_000, set(needed))
    except errors.ShareError:
        coming.close()
        raise
    return coming


def test_nobody_has_more_than_a_share_and_others_have_theirs(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    first = put(store, b"a" * 400, HOUR / 2)
    put(store, b"b" * 400, HOUR / 4)
    ask(store, 200, sender=1).close()
    with pytest.raises(errors.ShareError, match=r"too little of your share of submissions.cache_size \(1kB\)") as refused:
        ask(store, 201, sender=1)
    assert refused.value.seconds == pytest.approx(HOUR / 2, abs=60)  # when the older of both may go
    with pytest.raises(errors.ShareError) as refused:
        ask(store, 601, sender=1)
    assert refused.value.seconds == pytest.approx(3 * HOUR / 4, abs=60)  # both have to
    with pytest.raises(errors.ShareError) as refused:
        ask(store, 601, sender=1, needed={first})
    assert refused.value.seconds is None
    ask(store, 1_000, sender=2).close()
    assert kept.Kept(tmp_path).has(first)  # and who sent what is known after a restart
    with pytest.raises(errors.ShareError):
        ask(kept.Kept(tmp_path), 201, sender=1)


def test_what_somebody_sent_before_makes_room_for_what_they_send_now(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    oldest, old, theirs = (put(store, bytes([age]) * 400, age * HOUR, sender=3 - age // 9) for age in (8, 7, 9))
    ask(store, 500, sender=3).close()
    assert [store.path(one).exists() for one in (oldest, old, theirs)] == [False, True, True]


def test_what_is_on_its_way_counts_until_it_ends(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    one, other = ask(store, 500, sender=1), ask(store, 500, sender=1)
    with pytest.raises(errors.ShareError):
        ask(store, 1, sender=1)
    ask(store, 900, sender=2).close()
    one.close()
    ask(store, 500, sender=1).close()
    other.close()


def test_what_is_sent_again_is_of_who_sent_it_first(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    put(store, b"a" * 900, sender=1)
    put(store, b"a" * 900, sender=2)
    ask(store, 900, sender=2).close()
    with pytest.raises(errors.ShareError):
        ask(store, 900, sender=1)


def test_a_specification_costs_what_its_files_do_and_once(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    digest = put(store, b"a" * 600, HOUR / 2)
    places = [store.lay_out({name: digest}, 1) for name in ("one", "another")]
    ask(store, 400, sender=1).close()
    store.make_room(400, 100 * HOUR, 1_000, set())
    os.utime(store.directory / ".content" / "used" / digest, (0, 0))
    store.forget(100 * HOUR, 1_000, {place.name for place in places})
    assert not store.has(digest)
    with pytest.raises(errors.ShareError):  # the file is no more, and its bytes are there
        ask(store, 401, sender=1)
    ask(store, 400, sender=1).close()


def test_who_sent_what_is_forgotten_with_it(tmp_path: Path) -> None:
    store = kept.Kept(tmp_path)
    old, new = put(store, b"old", 3 * HOUR), put(store, b"new")
    store.forget(2 * HOUR, 1 << 20, set())
    (tmp_path / "senders" / "cut off before it came").write_text("1\n")
    store.sweep()
    assert [path.name for path in (tmp_path / "senders").iterdir()] == [new]
    assert old != new
