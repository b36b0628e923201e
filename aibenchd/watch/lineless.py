"""What stands in place of commits and has no line of them: whatever is named, by itself, on this host."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio.to_thread

from aibenchd import model
from aibenchd.watch import base, clone


class Lineless(base.Repository):
    """A repository whose revisions have none before them; what derives from it resolves them, and checks them out."""

    async def reach(self) -> None:
        """They are on this host."""

    async def fetch(self) -> str:
        """Nothing comes by itself: what is measured is named."""
        return ""

    async def history(self, head: str, *, after: str = "") -> AsyncGenerator[model.Revision, None]:  # noqa: ARG002
        yield (await self.resolve(head))

    async def on_line(self, head: str, commit: str) -> bool:
        return head == commit

    async def sides(self, merge: str, onto: str, limit: int) -> list[list[model.Revision]]:  # noqa: ARG002
        return []

    async def discard(self, target: Path) -> None:
        await anyio.to_thread.run_sync(clone.remove, target)
