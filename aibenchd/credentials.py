"""Secrets, read from the files that the configuration names. Blocking, but the files are small."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Any

import pydantic

from aibenchd import errors, redaction

SIZE_LIMIT = 64 << 10  # bytes
EMPTY = "is empty; write the secret into it"


def _beside(value: Any, info: pydantic.ValidationInfo) -> Any:
    """With a slash, relative to the configuration's directory; done here, because ``Path("./x")`` is a bare name again."""
    if isinstance(value, str) and "/" in value and info.context:
        return str(info.context["directory"] / value)
    return value


MARK = pydantic.BeforeValidator(_beside)
File = Annotated[Path, MARK]  # the type of a key that names a secret, as path_of takes it


def path_of(source: Path) -> Path:
    """Where a secret lies: a path as it is; a bare name among the credentials that systemd handed over.

    Raises:
        CredentialError: a bare name, and the daemon was given no credentials.
    """
    if source.parent != Path() or source.name in ("", ".."):
        return source
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise errors.CredentialError(
            f"'{source}' has no slash, so it is a systemd credential, and CREDENTIALS_DIRECTORY is not set; "
            f"add a line LoadCredential= for it to the unit, or, for a file beside the configuration, write ./{source}"
        )
    return Path(directory) / source.name


def read(source: Path) -> str:
    """The secret in a file, without white space around it; from then on it is masked in logs.

    Args:
        source: as :func:`path_of` takes it.

    Raises:
        CredentialError: the file is missing, empty, too large, not text, or open to all users of this host.
    """
    path = path_of(source)
    try:
        secret = _contents(path).decode().strip()
    except OSError as error:
        raise errors.CredentialError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise errors.CredentialError(f"'{path}' should hold the secret as UTF-8 text, and holds other bytes") from error
    if not secret:
        raise errors.CredentialError(f"'{path}' {EMPTY}")
    if not secret.isprintable():
        raise errors.CredentialError(f"'{path}' should hold the secret in one line, and holds {len(secret.splitlines())}")
    redaction.register(secret)
    return secret


def _contents(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is refused, not waited for
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise errors.CredentialError(f"'{path}' is no regular file")
        if mode & stat.S_IRWXO:
            raise errors.CredentialError(
                f"'{path}' is open to all users of this host ({mode & 0o777:04o}); run 'chmod o= {path}'"
            )
        data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise errors.CredentialError(f"'{path}' is larger than {SIZE_LIMIT} bytes, so no secret of one line")
    return data
