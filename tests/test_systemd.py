"""What the service manager hears, on a socket such as it listens on."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from aibenchd import errors, systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The manager's socket, and its address as NOTIFY_SOCKET has it."""
    name = f"@aibenchd-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(10)
        yield listening, name


def heard(manager: tuple[socket.socket, str]) -> dict[str, str]:
    lines = manager[0].recv(4096).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)


def test_each_state_is_told(manager: tuple[socket.socket, str]) -> None:
    notifier = systemd.Notifier({"NOTIFY_SOCKET": manager[1]})
    notifier.ready("2 devices\nREADY=0")
    assert heard(manager) == {"READY": "1", "STATUS": "2 devices READY=0"}
    before = time.monotonic_ns() // 1_000
    notifier.reloading()
    told = heard(manager)
    assert told.pop("RELOADING") == "1"
    assert before <= int(told.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1_000
    assert not told
    notifier.stopping(2.5)
    assert heard(manager) == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "2500000"}
    notifier.extend(1)
    assert heard(manager) == {"EXTEND_TIMEOUT_USEC": "1000000"}
    notifier.status("idle")
    assert heard(manager) == {"STATUS": "idle"}


def test_children_do_not_inherit_the_manager() -> None:
    environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "10", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    systemd.Notifier(environment)
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/no/such/socket"])
def test_nothing_happens_where_nobody_listens(address: str) -> None:
    systemd.Notifier({"NOTIFY_SOCKET": address}).ready("up")


async def test_the_watchdog_is_fed_only_while_the_journal_answers(manager: tuple[socket.socket, str]) -> None:
    answers = [None, errors.StoreError("disk full"), None]
    asked = anyio.Event()

    async def alive() -> None:
        if not answers:
            asked.set()
            await anyio.sleep_forever()
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    notifier = systemd.Notifier({"NOTIFY_SOCKET": manager[1], "WATCHDOG_USEC": "20000"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(notifier.watchdog, alive)
        await asked.wait()
        tasks.cancel_scope.cancel()
    assert [heard(manager), heard(manager)] == [{"WATCHDOG": "1"}] * 2
    manager[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        manager[0].recv(1)


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "often"}])
async def test_there_is_no_watchdog_where_none_is_asked_for(environment: dict[str, str]) -> None:
    async def alive() -> None:
        pytest.fail("nobody asked")

    await systemd.Notifier(dict(environment)).watchdog(alive)
