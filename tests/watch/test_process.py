import contextlib
import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from aibenchd import errors, redaction
from aibenchd.watch import process


def python(timeout=60.0):
    """The interpreter, as a program that can be made to do anything."""
    return process.Program((sys.executable, "-c"), process.environment(), timeout)


async def test_output():
    assert await python().output("print('two'); print('lines \\n')") == "two\nlines"


async def test_a_failure_says_the_end_of_what_the_program_said():
    with pytest.raises(process.ProgramFailedError) as raised:
        await python().output("import sys; sys.stderr.write('x' * 100_000 + ' the reason'); sys.exit(3)")
    assert raised.value.code == 3
    assert raised.value.said.endswith("x the reason")
    assert len(raised.value.said) <= process.SAID_BOUND
    assert "ended with 3" in str(raised.value)


async def test_no_secret_is_said():
    redaction.register("s3cret-token")
    with pytest.raises(process.ProgramFailedError) as raised:
        await python().output("import sys; sys.exit('fatal: http://ada:pass@host/ refused s3cret-token')")
    assert "s3cret-token" not in str(raised.value)
    assert "pass" not in raised.value.said


async def test_yes_no_and_neither():
    assert await python().says_yes("")
    assert not await python().says_yes("raise SystemExit(1)")
    with pytest.raises(process.ProgramFailedError):
        await python().says_yes("raise SystemExit(2)")


async def test_output_is_bounded():
    with pytest.raises(process.ProgramFailedError, match="more than expected"):
        await python().output(f"print('x' * {process.OUTPUT_BOUND + 1})")


async def test_what_is_not_installed_or_cannot_be_an_argument():
    with pytest.raises(errors.HarnessError, match="nowhere is not installed"):
        await process.Program(("nowhere",), process.environment(), 1).output()
    with pytest.raises(errors.HarnessError, match="cannot be run"):
        await python().output("\0")


async def test_nothing_is_read_from_the_daemons_own_input():
    assert await python().output("import sys; print(len(sys.stdin.read()))") == "0"


TREE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(process, "CHILDREN_SECONDS", 0.1)


def is_running(pid):
    """Whether a process runs; one that nobody waits for yet has ended all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ended(pids):
    with anyio.fail_after(60):
        while any(map(is_running, pids)):
            await anyio.sleep(0.01)


async def test_a_deadline_ends_the_whole_tree(short_grace):
    pids = []

    async def read(seconds):
        async for chunk in python(timeout=seconds).chunks(TREE):
            pids.extend(map(int, chunk.split()))

    for seconds in (1, 8, 64):  # until it is enough for both to begin
        with pytest.raises(process.ProgramFailedError, match=f"did not end within {seconds} s") as raised:
            await read(seconds)
        assert raised.value.code is None
        if pids:
            break
    assert len(pids) == 2
    await ended(pids)


async def test_being_cancelled_ends_the_whole_tree(short_grace):
    pids = []

    async def read():
        async for chunk in python().chunks(TREE):
            pids.extend(map(int, chunk.split()))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        with anyio.fail_after(60):
            while not pids:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    await ended(pids)


async def test_a_reader_that_has_enough_ends_it(short_grace):
    async with contextlib.aclosing(python().chunks(TREE)) as chunks:
        pids = [int(pid) for pid in (await anext(chunks)).split()]
    await ended(pids)


async def test_it_is_asked_before_it_is_killed(tmp_path):
    script = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1]).write_text("in order")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""
    async with contextlib.aclosing(python().chunks(script, tmp_path / "ended")) as chunks:
        await anext(chunks)
    assert (tmp_path / "ended").read_text() == "in order"


async def test_fields_are_cut_at_nul_and_bounded():
    script = "import sys; sys.stdout.buffer.write(b'a\\0\\0' + b'x' * 1_000_000 + b'\\0\\xff\\0rest')"
    fields = [field async for field in python().fields(script)]
    assert fields == [b"a", b"", b"x" * process.FIELD_BOUND, b"\xff", b"rest"]


async def test_inherited_descriptors(tmp_path):
    reading, writing = os.pipe()
    try:
        held = process.Program((sys.executable, "-c"), process.environment(), 60, (writing,))
        await held.output(f"import os; os.write({writing}, b'held')")
        assert os.read(reading, 10) == b"held"
    finally:
        os.close(reading)
        os.close(writing)


def test_environment(monkeypatch):
    for name in ("GIT_DIR", "GIT_CONFIG_COUNT", "HGRCPATH", "SSH_ASKPASS", "LANGUAGE", "GIT_SSL_CAINFO", "https_proxy"):
        monkeypatch.setenv(name, "x")
    environment = process.environment(GIT_TERMINAL_PROMPT="0")
    assert environment.keys() & {"GIT_DIR", "GIT_CONFIG_COUNT", "HGRCPATH", "SSH_ASKPASS", "LANGUAGE"} == set()
    assert environment["GIT_SSL_CAINFO"] == environment["https_proxy"] == "x"
    assert (environment["LC_ALL"], environment["GIT_TERMINAL_PROMPT"]) == ("C", "0")


def test_the_signals_number_is_told():
    error = process.ProgramFailedError("git fetch", -signal.SIGKILL, "", 1)
    assert str(error) == "git fetch ended with -9"
