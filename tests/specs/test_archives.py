"""Archives as no packer writes them: each is refused with a reason, soon and within memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import resource
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aibenchd import digests, errors
from aibenchd.specs import archives, trees

LIMIT = 1 << 20  # bytes
ROUNDS = 300


def unpacked(tmp_path: Path, body: bytes) -> Path:
    archive = tmp_path / "archive"
    archive.write_bytes(body)
    archives.unpack(archive, tmp_path / "unpacked", LIMIT)
    return tmp_path / "unpacked"


def refusal(tmp_path: Path, body: bytes) -> str:
    with pytest.raises(errors.ModelFileError) as caught:
        unpacked(tmp_path, body)
    return str(caught.value)


def tar(*members: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return packed.getvalue()


def member(name: str, *, size: int = 0, directory: bool = False) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return made


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else b"weights" * 1_000)
    return packed.getvalue()


@pytest.mark.parametrize(
    "body", [tar(member(".", directory=True), member("net/w", size=9), member("none", directory=True)), zipped("net/w", "none/")]
)
def test_a_directory_that_is_empty_counts_as_in_one_of_this_host(tmp_path: Path, body: bytes) -> None:
    found = unpacked(tmp_path, body)
    trees.copy(found, tmp_path / "copy", LIMIT)
    assert (found / "none").is_dir()
    assert digests.of_tree(found) == digests.of_tree(tmp_path / "copy")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, None], ids=["tar", "gz", "bz2", "xz", "zip"])
def test_whatever_is_spoilt_is_refused_or_harmless(tmp_path: Path, pack: Callable[[bytes], bytes] | None) -> None:
    packed = tar(member("net/é", size=3_000), member("net/b", size=2_000))
    whole = zipped("net/é", "net/b") if pack is None else pack(packed)
    chance = random.Random(1)
    for number in range(ROUNDS):
        spoilt = bytearray(whole)
        end = min(len(spoilt), 400) if number % 2 else len(spoilt)  # half of the time where a .zip has its list
        for _ in range(chance.choice((1, 1, 5))):
            spoilt[-1 - chance.randrange(end)] ^= 1 + chance.randrange(255)
        place = tmp_path / str(number)
        place.mkdir()
        try:
            unpacked(place, bytes(spoilt))
        except errors.ModelFileError as error:
            assert str(error)  # noqa: PT017  it may as well be harmless
        assert {path.name for path in place.iterdir()} == {"archive", "unpacked"}


@pytest.mark.parametrize("body", [tar(member("x" * 300)), zipped("x" * 300)])
def test_a_name_that_no_file_can_have(tmp_path: Path, body: bytes) -> None:
    assert "is no archive that can be unpacked: File name too long" in refusal(tmp_path, body)


def test_more_directories_than_there_may_be_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ENTRIES", 100)
    body = gzip.compress(tar(*[member("again", directory=True)] * 101))
    assert refusal(tmp_path, body) == "holds more than 100 files and directories"


def test_directories_within_each_other_that_nobody_could_remove(tmp_path: Path) -> None:
    body = tar(*[member("/".join("a" * depth), directory=True) for depth in range(1, 1_500)])
    assert refusal(tmp_path, body) == "holds more than 100 directories within each other"
    trees.delete(tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_a_header_that_unpacks_to_more_than_there_is_memory(tmp_path: Path) -> None:
    header = member("header")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is no archive that can be unpacked: headers of more than 1048576 bytes" in refusal(tmp_path, packed.getvalue())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def sparse(*more: bytes) -> bytes:
    """An old GNU header of a file with holes, which says that headers with its map follow, and what does."""
    made = member("holes")
    made.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(made.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * ord(" "))
    return bytes(header) + b"".join(more)


def test_a_map_of_holes_that_ends_too_soon(tmp_path: Path) -> None:
    assert "is no archive that can be unpacked" in refusal(tmp_path, sparse())


def test_a_map_of_holes_that_unpacks_to_more_than_there_is_memory(tmp_path: Path) -> None:
    further = b"00000000001 " * 42 + b"\1" + bytes(7)
    body = gzip.compress(sparse(further * 100_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "headers of more than 1048576 bytes" in refusal(tmp_path, body)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def test_who_gives_up_is_obeyed_in_the_midst_of_a_file(tmp_path: Path) -> None:
    class GivenUpError(Exception):
        pass

    def going_on() -> None:
        raise GivenUpError

    (tmp_path / "archive").write_bytes(zipped("net"))
    with pytest.raises(GivenUpError):
        archives.unpack(tmp_path / "archive", tmp_path / "unpacked", LIMIT, going_on)
