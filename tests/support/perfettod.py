"""A real Perfetto for a phone of the tests: its services on sockets of their own, and its program among the phone's.

It is Debian's package (14 and later), installed, or unpacked in a directory that AIBENCHD_PERFETTO names, together with
libc6, libstdc++6, libgcc-s1 and zlib1g of the same release where this host's are older. It has no traced_perf, so it samples no
stacks. simpleperf is the NDK's for Linux, where AIBENCHD_SIMPLEPERF names it, or it is in the search path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import adbd

LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
SECONDS = 10.0  # for its services to be there
MOUNTED = "[ -r /sys/kernel/tracing/trace ] || mount -t tracefs none /sys/kernel/tracing"  # for the one who asks alone


def simpleperf() -> str:
    """Where it is; empty where it is not."""
    return os.environ.get("AIBENCHD_SIMPLEPERF") or shutil.which("simpleperf") or ""


def missing() -> str:
    """Why there is no Perfetto to be had; empty where there is."""
    if not _program("bin/perfetto").exists():
        return "no perfetto (Debian 14 has it; or AIBENCHD_PERFETTO names a directory that it is unpacked in)"
    if subprocess.run(_privately(MOUNTED), capture_output=True, check=False).returncode:
        return "no tracefs that this user may read, so Perfetto is told no scheduling"
    return ""


def _privately(text: str) -> list[str]:
    """A shell whose mounts nobody else sees, where that may be."""
    return [*(["unshare", "--mount"] if os.geteuid() == 0 else []), "sh", "-c", text]


def _root() -> Path:
    return Path(os.environ.get("AIBENCHD_PERFETTO") or "/")


def _program(name: str) -> Path:
    return _root() / "usr" / name


def _command(name: str) -> list[str]:
    """By the loader and libraries that lie beside it, where it does not lie in this host's root."""
    loader = _root() / LOADER
    by = [str(loader), "--library-path", f"{loader.parent}:{_program('lib/perfetto')}"] if _root() != Path("/") else []
    return [*by, str(_program(name))]


@contextlib.contextmanager
def on(phone: adbd.Phone) -> Iterator[None]:
    """A phone that has it, while its services run. The kernel traces for one at a time, so others wait."""
    (phone.root / "data/misc/perfetto-traces").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory, (Path(tempfile.gettempdir()) / "aibenchd-perfetto.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sockets = {f"PERFETTO_{name}_SOCK_NAME": f"{directory}/{name}" for name in ("PRODUCER", "CONSUMER")}
        exported = " ".join(f"{name}={value}" for name, value in sockets.items())
        phone.script("perfetto", f'export {exported}\nexec {shlex.join(_command("bin/perfetto"))} "$@"')
        probes = f"{{ {MOUNTED}; }} && exec {shlex.join(_command('sbin/traced_probes'))}"
        log = Path(directory) / "log"
        with (
            log.open("w") as out,
            _running(_command("sbin/traced"), sockets, out.fileno()),
            _running(_privately(probes), sockets, out.fileno()),
        ):
            deadline = time.monotonic() + SECONDS
            while "Connected to the service" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], log: int) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
