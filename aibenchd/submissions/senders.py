"""Who sent what is kept: whoever sent it first, for as long as it is there. Blocking throughout.

<directory>/<name>     a small file: the number of that user, on this host
"""

from __future__ import annotations

import contextlib
from pathlib import Path


class Senders:
    """Who sent each file, directory or specification, by the name that it is kept under; ``directory`` may not be there yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def note(self, name: str, uid: int) -> None:
        """To be called before what was sent is in its place: what nobody has sent counts for nobody."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / name).write_text(f"{uid}\n")

    def of(self, name: str) -> int | None:
        """The user that sent it; None where that is not known, as of what is older than these notes."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._directory / name).read_text())
        return None

    def forget(self, name: str) -> None:
        """What they sent is there no more."""
        (self._directory / name).unlink(missing_ok=True)

    def names(self, until: float) -> list[str]:
        """What somebody was noted for until then, in seconds since 1970, whether it is there or not."""
        found = self._directory.iterdir() if self._directory.is_dir() else ()
        return [path.name for path in found if path.stat().st_mtime <= until]
