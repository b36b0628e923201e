"""``aibenchd spec pin``: fetch the files of specifications and write their SHA-256 into them."""

from __future__ import annotations

import argparse

from aibenchd import errors


async def run(parsed: argparse.Namespace) -> int:
    """Pin the files that the command line names; the exit code."""
    raise errors.AibenchdError(f"{parsed.files[0]}: pinning is not there yet")
