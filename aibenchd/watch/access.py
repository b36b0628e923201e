"""How the programs reach a remote: over SSH, and whether it is on this host at all."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from aibenchd import credentials, errors, settings

_SSH_OPTIONS = (
    "BatchMode=yes",  # never ask
    "StrictHostKeyChecking=yes",
    "ControlMaster=no",  # a shared connection would outlive the call, and hold what the call held
    "ControlPath=none",
    "ConnectTimeout=30",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
)


def ssh_command(access: settings.Credentials) -> str:
    """The SSH client as one text that git and hg hand to a shell; each path in it is quoted.

    Raises:
        CredentialError: a file is a systemd credential, and there are none.
    """
    command = ["ssh"]
    for option in _SSH_OPTIONS:
        command += ["-o", option]
    if access.ssh_key_file is not None:
        command += [
            "-o",
            f'IdentityFile="{_literal(access.ssh_key_file)}"',
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ]
    if access.known_hosts_file is not None:
        command += ["-o", f'UserKnownHostsFile="{_literal(access.known_hosts_file)}"', "-o", "GlobalKnownHostsFile=none"]
    return shlex.join(command)


def is_local(url: str) -> bool:
    """Whether ``url`` is a path or a file URL. As git has it, ``host:path`` is neither."""
    return url.startswith("file://") or ("://" not in url and not re.match(r"[^/]*:", url))


def absolute(url: str) -> str:
    """``url``, a relative path made absolute: the programs run elsewhere."""
    return str(Path(url).absolute()) if is_local(url) and "://" not in url else url


def origin(url: str) -> str:
    """Scheme, host and port of an HTTP URL, such as ``https://git.example.org:8443``; empty where it is none.

    A user name in it is left out.
    """
    match = re.match(r"(https?://)(?:[^/@]*@)?([^/?#\s]+)", url, re.IGNORECASE)
    return f"{match[1]}{match[2]}" if match else ""


def _literal(source: Path) -> str:
    """A path that ssh takes as it is: it expands ``%`` and splits lists at spaces."""
    path = str(credentials.path_of(source).absolute())
    if '"' in path or not path.isprintable():
        raise errors.CredentialError(f"{path!r}: ssh cannot be given a path with a quote or a control character in it")
    return path.replace("%", "%%")
