import os
from pathlib import Path

import pytest

from aibenchd import errors
from aibenchd.devices import beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "file").write_text("file")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to("inner")
    return root


def test_links_that_stay_inside_are_followed(root: Path, tmp_path: Path) -> None:
    beneath.copy_out(root, root / "in" / "file", tmp_path / "copy", 100)
    beneath.delete(root, root / "in" / "file")

    assert (tmp_path / "copy").read_text() == "file"
    assert list((root / "inner").iterdir()) == []


def test_a_root_may_be_reached_by_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)

    beneath.copy_out(tmp_path / "alias", tmp_path / "alias" / "inner" / "file", tmp_path / "copy", 100)

    assert (tmp_path / "copy").read_text() == "file"


def test_links_that_lead_out_are_not_followed(root: Path, tmp_path: Path) -> None:
    for path in (root / "out" / "file", root / ".." / "outside" / "file", root):
        with pytest.raises(errors.CommandError, match="not inside"):
            beneath.delete(root, path)
    with pytest.raises(errors.CommandError, match="not inside"):
        beneath.copy_out(root, root / "out" / "file", tmp_path / "copy", 100)

    assert (tmp_path / "outside" / "file").read_text() == "outside"


def test_a_link_itself_is_deleted_and_not_what_it_leads_to(root: Path, tmp_path: Path) -> None:
    beneath.delete(root, root / "out")

    assert not os.path.lexists(root / "out")
    assert (tmp_path / "outside" / "file").read_text() == "outside"


def test_a_directory_that_becomes_a_link_meanwhile_is_no_way_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is resolved; then, before it is walked, a program puts a link in its place."""
    resolve = os.path.realpath

    def swap(path: Path) -> str:
        resolved = resolve(path)
        if path == root / "inner":
            (root / "inner").rename(root / "moved")
            (root / "inner").symlink_to(tmp_path / "outside")
        return resolved

    monkeypatch.setattr(os.path, "realpath", swap)

    beneath.delete(root, root / "inner" / "file")

    assert (root / "inner").is_symlink()
    assert (tmp_path / "outside" / "file").read_text() == "outside"


def test_a_link_where_the_copy_is_made_is_not_followed(root: Path, tmp_path: Path) -> None:
    """Programs may write in the directory that it is copied to, too."""
    (tmp_path / ".copy.partial").symlink_to(tmp_path / "outside" / "file")
    (tmp_path / "copy").symlink_to(tmp_path / "outside" / "file")

    beneath.copy_out(root, root / "inner" / "file", tmp_path / "copy", 100)

    assert (tmp_path / "copy").read_text() == "file"
    assert (tmp_path / "outside" / "file").read_text() == "outside"


def test_a_copy_is_whole_or_not_there(root: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("before")

    with pytest.raises(errors.CommandError, match="4 bytes are more than the 3"):
        beneath.copy_out(root, root / "inner" / "file", tmp_path / "copy", 3)

    assert (tmp_path / "copy").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "outside", "root"]
