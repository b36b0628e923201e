import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import digests, errors
from aibenchd.devices import base, pushed


def opened(root: Path, size_limit: int = 1 << 30) -> pushed.Pushed:
    root.mkdir(exist_ok=True)
    store = pushed.Pushed(root, size_limit)
    store.open()
    return store


def file(path: Path, data: bytes, mode: int = 0o644) -> base.Push:
    path.write_bytes(data)
    path.chmod(mode)
    return base.Push(path, digests.of_file(path), path.name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "programs"


@pytest.mark.parametrize(("mode", "kept"), [(0o644, 0o440), (0o600, 0o440), (0o755, 0o550), (0o700, 0o550)])
def test_a_file_is_copied_and_cannot_be_written(root: Path, tmp_path: Path, mode: int, kept: int) -> None:
    push = file(tmp_path / "program", b"data", mode)

    copy = opened(root).put(push)

    assert copy == root / push.digest[:32] / "program"
    assert copy.read_bytes() == b"data"
    assert copy.stat().st_mode & 0o777 == kept


@given(data=st.binary(max_size=64))
def test_paths_are_of_equal_length_for_every_digest(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("push")
    store = opened(directory / "programs")

    copies = [store.put(file(directory / "program", content)) for content in (data, data + b"x")]

    assert len(str(copies[0])) == len(str(copies[1]))
    assert copies[0] != copies[1]


def test_a_directory_is_copied_with_its_links_and_modes(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "build"
    (source / "lib" / "deep").mkdir(parents=True)
    (source / "empty").mkdir()
    file(source / "program", b"program", 0o755)
    file(source / "lib" / "data", b"data")
    (source / "lib" / "deep" / "up").symlink_to("../../program")
    (source / "libs").symlink_to("lib")
    push = base.Push(source, digests.of_tree(source), "build")

    copy = opened(root).put(push)

    assert digests.of_tree(copy) == push.digest
    assert (copy / "lib" / "deep" / "up").read_bytes() == b"program"
    assert os.access(copy / "program", os.X_OK)


@pytest.mark.parametrize("text", ["/etc/passwd", "../outside", "inner/../../outside"])
def test_a_link_that_leads_out_is_refused(root: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "link").symlink_to(text)

    with pytest.raises(errors.CommandError, match="which is not in what is pushed"):
        opened(root).put(base.Push(tmp_path / "build", "0" * 64, "build"))


def test_what_is_no_file_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    os.mkfifo(tmp_path / "build" / "pipe")

    with pytest.raises(errors.CommandError, match="pipe: neither a file nor a directory"):
        opened(root).put(base.Push(tmp_path / "build", "0" * 64, "build"))


def test_what_is_there_is_not_sent_again(root: Path, tmp_path: Path) -> None:
    push = file(tmp_path / "program", b"data")
    store = opened(root)
    copy = store.put(push)
    push.source.unlink()

    assert store.put(push) == copy
    assert opened(root).put(push) == copy


def test_a_copy_that_was_changed_is_made_again(root: Path, tmp_path: Path) -> None:
    push = file(tmp_path / "program", b"data")
    store = opened(root)
    copy = store.put(push)
    for again in (store, opened(root)):
        copy.chmod(0o600)
        copy.write_bytes(b"atad")

        assert again.put(push).read_bytes() == b"data"


def test_a_tree_that_a_program_wrote_to_is_made_again(root: Path, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    file(tmp_path / "build" / "program", b"data")
    push = base.Push(tmp_path / "build", digests.of_tree(tmp_path / "build"), "build")
    store = opened(root)
    (store.put(push) / "__pycache__").mkdir()

    assert digests.of_tree(store.put(push)) == push.digest


def test_bytes_that_are_not_those_of_the_digest_are_never_there(root: Path, tmp_path: Path) -> None:
    push = file(tmp_path / "program", b"data")
    push.source.write_bytes(b"other")

    with pytest.raises(errors.HarnessError, match=rf"its digest is [0-9a-f]{{64}}, not {push.digest}"):
        opened(root).put(push)
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_an_md5_is_a_digest_too(root: Path, tmp_path: Path) -> None:
    push = file(tmp_path / "model", b"data")

    copy = opened(root).put(base.Push(push.source, digests.of_file(push.source, "md5"), "model"))

    assert copy.read_bytes() == b"data"


@pytest.mark.parametrize("digest", ["", "../../../../../../../../etc/xxxx", "A" * 64, "0" * 63])
def test_a_digest_is_one(root: Path, tmp_path: Path, digest: str) -> None:
    with pytest.raises(errors.HarnessError, match="is no digest"):
        opened(root).put(base.Push(tmp_path, digest, "program"))


def test_a_source_that_is_gone_is_the_harness_fault(root: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.HarnessError, match=r"cannot be copied to .*: No such file"):
        opened(root).put(base.Push(tmp_path / "none", "0" * 64, "program"))


def test_the_least_recently_used_go_first_and_never_this_sessions(root: Path, tmp_path: Path) -> None:
    pushes = [file(tmp_path / f"file{number}", bytes([number]) * 100) for number in range(4)]
    store = opened(root, size_limit=350)
    copies = [store.put(push) for push in pushes[:3]]
    for copy, age in zip(copies, (1, 3, 2), strict=True):
        os.utime(copy.parent, (1000 - age, 1000 - age))

    again = opened(root, size_limit=250)
    again.put(pushes[1])
    new = again.put(pushes[3])

    assert [copy.exists() for copy in (*copies, new)] == [False, True, False, True]


def test_what_a_broken_copy_left_is_removed(root: Path) -> None:
    opened(root)
    (root / ".incoming" / "half").write_bytes(b"half")

    opened(root)

    assert list((root / ".incoming").iterdir()) == []


def test_what_is_evicted_can_be_pushed_again(root: Path, tmp_path: Path) -> None:
    push = file(tmp_path / "program", b"data")
    store = opened(root)
    shutil.rmtree(store.put(push).parent)

    assert store.put(push).read_bytes() == b"data"
