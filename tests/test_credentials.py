from __future__ import annotations

import os
from pathlib import Path

import pytest

from aibenchd import credentials, errors, redaction


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_secret_is_read_without_its_line_end_and_masked_from_then_on(tmp_path: Path) -> None:
    assert credentials.read(written(tmp_path / "token", " some-long-token\n")) == "some-long-token"
    assert "some-long-token" not in redaction.text("some-long-token")


def test_bare_name_is_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "token", "some-long-token", 0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials.read(Path("token")) == "some-long-token"


def test_bare_name_without_systemd_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(errors.CredentialError, match=r"LoadCredential= for it .* write \./token"):
        credentials.read(Path("token"))


@pytest.mark.parametrize("name", ["github-token", "./github-token", "/absent/password"])
def test_what_is_wrong_with_a_file_is_said_in_logs_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(errors.CredentialError) as caught:
        credentials.read(Path(name))
    assert redaction.text(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(errors.CredentialError, match="chmod o="):
        credentials.read(written(tmp_path / "token", "some-long-token", mode))


def test_group_may_read_it(tmp_path: Path) -> None:
    assert credentials.read(written(tmp_path / "token", "some-long-token", 0o640)) == "some-long-token"


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", b"\xff\xfe", "x" * (credentials.SIZE_LIMIT + 1), "bell\a"])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(errors.CredentialError, match="token"):
        credentials.read(written(tmp_path / "token", content))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing"):
        with pytest.raises(errors.CredentialError, match=str(path)):
            credentials.read(path)
