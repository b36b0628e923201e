"""What comes from a device over SFTP, on this host."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from aibenchd.devices import ssh_upload


def test_where_there_is_room_for_a_part_only_is_an_error_and_no_shorter_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "pulled").open("wb") as file:
        ssh_upload._write(file.fileno(), b"b" * 500, 500)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            assert os.pwrite(file.fileno(), b"a" * 1_000, (1 << 20) - 300) == 300  # and says nothing
            with pytest.raises(OSError, match="File too large"):
                ssh_upload._write(file.fileno(), b"a" * 1_000, (1 << 20) - 300)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "pulled").read_bytes()[400:1_000] == bytes(100) + b"b" * 500
