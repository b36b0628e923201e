"""Digests of files and of trees. Blocking: call them in a worker thread."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

# SHA-256 of a tree is also that of the file which lists it, so where anybody may send files and trees, one could be sent in the
# other's place. Of another function no file can be found that has by SHA-256 the digest of a tree.
OF_TREES_SENT = "sha3_256"


def of_file(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's bytes in hexadecimal; ``algorithm`` as hashlib names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def of_tree(root: Path, algorithm: str = "sha256") -> str:
    """One digest over the names, executable bits and bytes of all that lies below ``root``; links count as their text."""
    total = hashlib.new(algorithm)
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        total.update(entry(path.relative_to(root).as_posix(), path).encode(errors="surrogateescape"))
    return total.hexdigest()


def entry(name: str, path: Path) -> str:
    """What a file, link or directory adds to the digest of a tree in which it has this name."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link {name}\0{path.readlink()}\n"
    if stat.S_ISDIR(mode):
        return f"directory {name}\n"
    return f"{'program' if mode & 0o111 else 'file'} {name}\0{of_file(path)}\n"
