"""The client, as a process of its own, against a real status socket."""

import contextlib
import grp
import io
import itertools
import json
import os
import pty
import re
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path
from urllib import parse

import anyio
import pytest
import statusd
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import events
from aibenchd.api import call, client, commandline, commands, experiments, naming, requests, screen, server, waiting
from aibenchd.store import requests as stored
from aibenchd.store import schema, store

CLIENT = [sys.executable, "-m", "aibenchd.api.client"]


async def ask(daemon: statusd.Daemon, *words: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``aibenchctl WORDS``."""
    told = await anyio.run_process(
        [*CLIENT, *words], check=False, env={**os.environ, "AIBENCHD_SOCKET": str(daemon.path), **environment}
    )
    return told.returncode, told.stdout.decode(), told.stderr.decode()


def columns(line: str) -> list[str]:
    """What stands in a row of a table."""
    return re.split(r" {2,}", line.strip())


@pytest.fixture
async def full(daemon: statusd.Daemon) -> statusd.Daemon:
    """A daemon with one of each."""

    def rows(tx: object) -> None:
        built = statusd.build(tx, "b" * 40, log="build.log")
        pair = statusd.pair(tx, "b" * 40, "a" * 40)
        statusd.revision(tx, "b" * 40, 2, subject="make it\x1b[31m red\nand slow")
        first = statusd.experiment(tx, pair, built, control_build=built, **statusd.decided("regressed"))
        culprit = {"commits": ["d" * 40, "e" * 40], "probability": 0.983, "effect": 0.05, "low": 0.04, "high": 0.06}
        statusd.revision(tx, "e" * 40, 2, subject="faster, or so", author="Eve", on_branch=False, state="side")
        found = {
            "culprits": [culprit | {"within": ["b" * 40, "c" * 40]}],
            "by_commit": {"e" * 40: 0.9, "d" * 40: 0.083, "c" * 40: 0.017},
            "merges": [{"commit": "b" * 40, "base": "a" * 40, "commits": 3, "search": "inconclusive", "reason": "too dear"}],
            "devices": {"lab-host": 24, "phone": 20},
            "builds": 7,
            "reason": "its budget is spent",
        }
        statusd.finding(tx, first, state="open", search="found", culprits=found)
        measured = {"type": "NET", "metric": "latency", "unit": "us", "treatment": {"p50": 105.0}, "control": {"p50": 100.0}}
        tx.connection.execute(statusd.schema.results.insert().values(experiment=first, **measured))
        statusd.block(tx, first, 0)
        statusd.block(tx, first, 1, log="trial.log")
        left_out = {"arm": "treatment", "cause": "device lost", "reason": "gone", "excluded_at": statusd.NOW}
        tx.connection.execute(statusd.schema.exclusions.insert().values(experiment=first, block=1, **left_out))
        statusd.experiment(tx, pair, built, device="phone")
        tx.connection.execute(statusd.schema.repositories.insert().values(name="engine", head="b" * 40))

    await daemon.house.store.write(rows)
    (daemon.house.state_directory / "build.log").write_bytes(b"cc -c a.c\n")
    daemon.house.board.put("sink/lab", "paused", "401 Unauthorized", fault=True)
    return daemon


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "status",
            [
                "FAULTS",
                "sink/lab",
                "401 Unauthorized",
                "1 regressed",
                "findings     1 open",
                "LAST VERDICTS",
                "make it [31m red and slow",
            ],
        ),
        ("devices", ["lab-host", "phone", "unknown"]),
        ("experiments", ["1 ", "regressed", "+5.0 % (+3.0 … +7.0)", "bbbbbbbbbbbb", "2 ", "open"]),
        ("experiments --state open", ["phone"]),
        (
            "show 1",
            [
                "experiment 1: regressed +5.0 %",
                "treatment failed",
                "aibenchctl log trial 4",
                "one number of each process, the mean of the fastest eighth of a process's iterations",
                "the median of all",
                "  1 trial of the treatment does not",
            ],
        ),
        ("coverage", ["model  pytorch@lab-host", "pytorch@phone", "net    1.1", "queued"]),
        ("history squeeze lab-host", ["regressed", "latency 105 us"]),
        ("history squeeze lab-host --metric latency", ["regressed", "latency 105 us"]),
        ("revisions", ["engine", "1 open, 1 regressed"]),
        (
            "finding 1",
            [
                "finding 1: open, regressed",
                "dddddddddddd/eeeeeeeeeeee (merged by bbbbbbbbbbbb > cccccccccccc): +5.0 % (+4.0 … +6.0)",
                "eeeeeeeeeeee faster, or so (Eve)",
                " 90.0% eeeeeeeeeeee",
                "inside merge bbbbbbbbbbbb, commits 3: inconclusive; too dear",
                "searched on, with blocks: lab-host (24), phone (20); commits built for all: 7",
                "search: its budget is spent",
                "its blocks: aibenchctl show 1",
                "once more:  aibenchctl ab bbbbbbbbbbbb aaaaaaaaaaaa --benchmark squeeze --device lab-host --wait",
            ],
        ),
        (
            "findings",
            [
                "open",
                "regressed",
                "dddddddddddd/eeeeeeeeeeee (merged by bbbbbbbbbbbb > cccccccccccc) 98%, on 2 devices",
                "  faster, or so (Eve)  ",
            ],
        ),
        ("builds", ["built"]),
        ("log build 1", ["cc -c a.c"]),
        ("sinks", ["lab", "paused"]),
        ("requests", ["none"]),
        ("config", ['"name": "engine"']),
        ("pause", ["paused: yes"]),
        ("resume", ["paused: no"]),
        ("drain phone", ["device: phone", "state: unknown"]),
        ("release phone", ["device: phone", "released: no", "was: unknown"]),
        ("reload", ["changes: device phone: added"]),
        ("resend lab", ["resent: 0"]),
        ("ab --repository engine HEAD~1 v1", ["see: aibenchctl request 1"]),
        ("compare net pytorch@host/mkl host/eigen", ["see: aibenchctl request 1"]),
    ],
)
async def test_each_command_shows_what_the_daemon_knows(full: statusd.Daemon, command: str, expected: list[str]) -> None:
    code, out, err = await ask(full, *command.split())
    assert (code, err) == (0, "")
    for text in expected:
        assert text in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "command", ["status", "devices", "experiments", "show 1", "coverage", "history squeeze lab-host", "sinks", "pause", "config"]
)
async def test_json_is_what_the_daemon_sent(full: statusd.Daemon, command: str) -> None:
    code, out, _ = await ask(full, "--json", *command.split())
    assert code == 0
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("frob", "there is no command 'frob'; see 'aibenchctl --help'"),
        ("status --frob", "there is no option --frob of 'aibenchctl status'"),
        ("show", "usage: aibenchctl show ID"),
        ("show 1 2", "usage: aibenchctl show ID"),
        ("experiments --limit", "--limit needs a value: --limit NUMBER"),
        ("experiments --limit=0", "limit: expected 1 or more, found the text '0'"),
        ("status --watch=3", "--watch takes no value"),
        ("log trial", "usage: aibenchctl log build|trial ID"),
        ("log device 1", "usage: aibenchctl log build|trial ID"),
        ("experiments --limit=many", "limit: expected a whole number, found the text 'many'"),
        ("experiments --verdict=slow", "verdict: expected 'regressed', 'improved', "),
        ("show 99", "there is no experiment 99; 'aibenchctl experiments' lists them"),
        ("show x", "ID: expected a number, not 'x'; usage: aibenchctl show ID"),
        ("log build 1.5", "ID: expected a number, not '1.5'; usage: aibenchctl log build|trial ID"),
        ("history squeeze lab-host --metric nonsense", "there is no metric 'nonsense'; known: latency"),
        ("history squeese lab-host", "there is no benchmark 'squeese'; did you mean 'squeeze'?"),
        ("history squeeze lab-hots", "there is no device 'lab-hots'; did you mean 'lab-host'?"),
        ("experiments --device tablet", "there is no device 'tablet'; known: lab-host, phone"),
        ("builds --repository enigne", "there is no repository 'enigne'; did you mean 'engine'?"),
        ("ab --repository engine --benchmark squeese HEAD", "there is no benchmark 'squeese'; did you mean 'squeeze'?"),
        ("ab HEAD", "which of them is meant?; name one of engine, other"),
        ("ab --repository engine --wait --timeout soon HEAD", "--timeout SECONDS: 'soon' is no number"),
        ("drain tablet", "there is no device 'tablet'; known: lab-host, phone"),
        ("compare net host", "usage: aibenchctl compare MODEL CELL CELL"),
        ("rebuild 1", "there is no failed build 1; 'aibenchctl builds --state failed' lists them"),
        ("backup aibenchd.sock", "aibenchd.sock exists; name a new file"),
    ],
)
async def test_what_cannot_be_is_one_line_that_says_why(full: statusd.Daemon, command: str, error: str) -> None:
    words = [str(full.path) if word == "aibenchd.sock" else word for word in command.split()]
    code, out, err = await ask(full, *words)
    assert (code, out) == (3, "")
    assert err.startswith("aibenchctl: ")
    assert error in err
    assert err.count("\n") == 1


async def test_what_is_measured_alone_has_no_control(daemon: statusd.Daemon) -> None:
    def rows(tx: object) -> None:
        pair, built = statusd.pair(tx, "b" * 40, "a" * 40), statusd.build(tx, "b" * 40)
        for arms, control in ((1, None), (2, built)):
            statusd.experiment(tx, pair, built, control_build=control, backend=f"{arms}", design={"seed": 1, "arms": arms})

    await daemon.house.store.write(rows)
    shown = [(await ask(daemon, "show", number))[1] for number in ("1", "2")]
    assert [f"treatment       {'b' * 40}" in text for text in shown] == [True, True]
    assert [f"control         {'a' * 40}" in text for text in shown] == [False, True]


async def test_what_is_regressed_in_the_tail_shows_its_slow_iterations(daemon: statusd.Daemon) -> None:
    def rows(tx: store.Transaction) -> None:
        pair, built = statusd.pair(tx, "b" * 40, "a" * 40), statusd.build(tx, "b" * 40)
        for in_tail in (True, False):
            number = statusd.experiment(tx, pair, built, backend=f"{in_tail}", **statusd.decided("regressed"), in_tail=in_tail)
            statusd.block(tx, number, 0)
            tails = {"treatment_tail": 1414.87, "control_tail": 1040.78}
            tx.connection.execute(statusd.schema.blocks.update().values(tails))
        again = statusd.experiment(tx, pair, built, backend="again", **statusd.decided("regressed"), in_tail=True)
        statusd.block(tx, again, 0)  # of what measures nothing but the tail

    await daemon.house.store.write(rows)
    tail, other, again = [(await ask(daemon, "show", number))[1] for number in ("1", "2", "3")]
    assert "experiment 1: regressed in the tail +5.0 %" in tail
    assert "experiment 3: regressed in the tail +5.0 %" in again
    assert "tail: treatment" not in again
    assert ["tail: treatment  tail: control" in text for text in (tail, other)] == [True, False]
    assert ["1414.87          1040.78" in text for text in (tail, other)] == [True, False]
    _, history, _ = await ask(daemon, "history", "squeeze", "lab-host")
    assert [columns(line)[1] for line in history.splitlines()[1:4]] == [
        "regressed in the tail",
        "regressed",
        "regressed in the tail",
    ]


async def test_requests_say_what_became_of_them(daemon: statusd.Daemon) -> None:
    def rows(tx: store.Transaction) -> None:
        built = statusd.build(tx, "b")
        for verdicts in (["regressed", "unchanged", "unchanged"], ["cancelled"], []):
            number = stored.add(
                tx, repository="engine", treatment="b", control="a", benchmarks=[], devices=[], priority=0, requested_by="me"
            )
            pair = statusd.pair(tx, "b", "a", request=number)
            for place, verdict in enumerate(verdicts):
                statusd.experiment(tx, pair, built, backend=f"{place}", **statusd.decided(verdict))

    await daemon.house.store.write(rows)
    _, out, _ = await ask(daemon, "requests")
    assert [columns(line)[2] for line in out.splitlines()[1:4]] == ["none", "1 cancelled", "1 regressed, 2 unchanged"]


async def test_a_reload_that_fails_lists_the_faults(daemon: statusd.Daemon) -> None:
    daemon.controls.reloading = server.ReloadResult(applied=False, faults=("a.yaml:1:1: devices: no", "a.yaml:2:1: sinks: no"))
    code, _, err = await ask(daemon, "reload")
    assert code == 3
    assert err.splitlines()[1:] == ["  a.yaml:1:1: devices: no", "  a.yaml:2:1: sinks: no"]


async def test_no_daemon_is_said_in_one_line(tmp_path: Path) -> None:
    daemon_less = await anyio.run_process([*CLIENT, "-s", str(tmp_path / "a.sock"), "status"], check=False)
    assert daemon_less.returncode == 4
    assert b"a.sock: aibenchd does not run there; start it with 'aibenchd serve CONFIG', or name" in daemon_less.stderr
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    left_over = await anyio.run_process([*CLIENT, f"--socket={tmp_path / 'left.sock'}", "status"], check=False)
    assert left_over.returncode == 4
    assert b"does not run any more; see what it printed, and start it with 'aibenchd serve CONFIG'" in left_over.stderr


@pytest.mark.parametrize(("place", "advice"), [("aibenchd", "'systemctl start aibenchd'"), ("mine", "'aibenchd serve CONFIG'")])
def test_only_what_is_at_the_place_of_a_service_is_started_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], place: str, advice: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("AIBENCHD_SOCKET", str(tmp_path / place / "aibenchd.sock"))
    assert client.main(["status"]) == 4
    assert f"aibenchd does not run there; start it with {advice}, or name" in capfd.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")
async def test_who_may_not_use_the_socket_hears_which_group_may(daemon: statusd.Daemon) -> None:
    daemon.path.parent.chmod(0o711)
    daemon.path.chmod(0o660)
    program = (
        "import grp, os, sys\nfrom aibenchd.api import client\n"
        "os.setgid(65534); os.setuid(65534)\nsys.exit(client.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", program, "-s", "aibenchd.sock", "status"]
    told = await anyio.run_process(argv, cwd=daemon.path.parent, check=False)
    assert told.returncode == 4
    assert b"you may not use this socket; it is root's alone: have the daemon set status.group" in told.stderr
    assert b"usermod" not in told.stderr  # the group root is no group to join
    os.chown(daemon.path, -1, 4)
    told = await anyio.run_process(argv, cwd=daemon.path.parent, check=False)
    assert f"ask to be added to the group {grp.getgrgid(4).gr_name}".encode() in told.stderr


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "the connection was closed"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{}", "broke off in the middle of its answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not aibenchd"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n<html>", "answers with 502"),
        (b'HTTP/1.0 403 Forbidden\r\n\r\n{"error": "no", "hint": "ask"}', "no; ask"),
    ],
)
def test_whatever_answers_there_is_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], answer: bytes, error: str
) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def reply() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        replying = threading.Thread(target=reply)
        replying.start()
        assert client.main(["-s", str(path), "status"]) in (3, 4)
        replying.join()
    assert error in capfd.readouterr().err


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ({"unchanged": 3}, 0),
        ({"improved": 1, "identical": 2}, 0),
        ({"measured": 1}, 2),
        ({"regressed": 1, "improved": 5, "inconclusive": 1}, 1),
        ({"broken": 1}, 1),
        ({"inconclusive": 1, "unchanged": 3}, 2),
        ({"skipped": 1, "unchanged": 3}, 2),
        ({"cancelled": 1}, 2),
        ({}, 2),
    ],
)
async def test_the_exit_code_of_a_comparison_is_its_verdict(daemon: statusd.Daemon, outcomes: dict[str, int], code: int) -> None:
    async def decide() -> None:
        async with daemon.house.events.subscribe() as happening:
            event = await anext(happening)
            await daemon.house.store.write(lambda tx: settle(tx, event.facts["id"]))

    def settle(tx: object, request: int) -> None:
        pair, built = statusd.pair(tx, "b", "a", request=request), statusd.build(tx, "b")
        for outcome, count in outcomes.items():
            ended = {"state": outcome} if outcome in ("skipped", "cancelled") else statusd.decided(outcome)
            for number in range(count):
                statusd.experiment(tx, pair, built, backend=f"{outcome}{number}", **ended)
        tx.connection.execute(statusd.schema.requests.update().values(state="planned"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(decide)
        got, out, _ = await ask(daemon, "ab", "--repository", "engine", "--wait", "b")
    assert got == code
    assert out.endswith(f"request 1: {screen.tally(outcomes)}\n")


async def test_a_request_that_is_refused_says_why(daemon: statusd.Daemon) -> None:
    async def refuse() -> None:
        async with daemon.house.events.subscribe() as happening:
            await anext(happening)
            update = statusd.schema.requests.update().values(state="refused", reason="no commit 'b'")
            await daemon.house.store.write(lambda tx: tx.connection.execute(update) and None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse)
        code, _, err = await ask(daemon, "ab", "--repository", "engine", "--wait", "b")
    assert (code, err) == (3, "aibenchctl: request 1 is refused: no commit 'b'\n")


async def test_waiting_ends_at_its_timeout(daemon: statusd.Daemon) -> None:
    code, _, err = await ask(daemon, "ab", "--repository", "engine", "--wait", "--timeout", "0", "b")
    assert (code, err) == (2, "aibenchctl: request 1 is not decided after 0 s; it goes on\n")


async def test_a_request_is_shown_with_its_experiments(daemon: statusd.Daemon) -> None:
    assert (await ask(daemon, "ab", "--repository", "engine", "b", "a"))[0] == 0
    text = (await ask(daemon, "request", "1"))[1]
    assert text.startswith("request 1: new\n")

    def rows(tx: object) -> None:
        pair, built = statusd.pair(tx, "b", "a", request=1), statusd.build(tx, "b")
        statusd.experiment(tx, pair, built, **statusd.decided("regressed"))
        tx.connection.execute(statusd.schema.requests.update().values(state="planned"))

    await daemon.house.store.write(rows)
    text = (await ask(daemon, "request", "1"))[1]
    assert text.startswith("request 1: done, 1 regressed\n")
    for told in ("  repository      engine\n", "  treatment       b\n", "squeeze"):
        assert told in text
    assert re.search(r"^  asked           \d+s ago by ", text, re.MULTILINE)


def test_who_waits_hears_how_far_it_is_and_for_what() -> None:
    def item(state: str, device: str, seconds_left: int | None = None) -> dict[str, object]:
        return {"state": state, "device": device, "run_type": "benchmark", "seconds_left": seconds_left}

    asked = {"id": 7, "state": "new", "experiments": [], "outcomes": {}}
    devices = [
        {"name": "board", "state": "waiting", "reason": "81 °C, begins at 70 or below"},
        {"name": "host", "state": "ready", "reason": ""},
        {"name": "phone", "state": "lost", "reason": "gone"},
    ]
    assert requests.standing(asked, devices) == "request 7: waits to be planned"
    items = [item("open", "board"), item("open", "host"), item("decided", "phone"), item("waiting", "phone")]
    planned = asked | {"state": "planned", "experiments": items, "outcomes": {"open": 2, "unchanged": 1, "waiting": 1}}
    told = "request 7: 2 open, 1 unchanged, 1 waiting; builds are waited for; "
    assert requests.standing(planned, devices) == f"{told}board waiting: 81 °C, begins at 70 or below; host ready"
    items[0]["seconds_left"] = items[1]["seconds_left"] = 150
    told = told.replace("builds", "about 5m of device time left for 2 of 3; builds")
    assert requests.standing(planned, devices).startswith(told)


async def test_how_far_it_is_is_told_on_a_terminal_alone(daemon: statusd.Daemon) -> None:
    argv = [*CLIENT, "-s", str(daemon.path), "ab", "--repository", "engine", "--wait", "--timeout", "0", "b"]
    text = await on_terminal(argv, 40, {"TERM": "xterm"}, 2)
    assert "\r\x1b[Krequest 1: waits to be planned\r\x1b[K" in text
    assert text.endswith("aibenchctl: request 1 is not decided after 0 s; it goes on\n")
    text = await on_terminal(argv, 40, {"TERM": "dumb"}, 2)
    assert text == "aibenchctl: request 2 is not decided after 0 s; it goes on\n"


def test_that_the_daemon_is_away_is_told_while_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    status = screen.Status()
    monkeypatch.setattr(status, "show", told.append)
    monkeypatch.setattr(waiting, "RESTART_SECONDS", 0.0)
    with pytest.raises(call.Unreachable):
        waiting._patient(commandline.Call(["-s", str(tmp_path / "none"), "ab", "b"], commands.COMMANDS), "/v1/requests/1", status)
    assert told == ["no daemon answers; it is waited for, 0 s at most"]


async def test_events_are_shown_as_they_come(daemon: statusd.Daemon) -> None:
    argv = [*CLIENT, "-s", str(daemon.path), "events"]
    async with await anyio.open_process(argv, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        received = b""
        with anyio.fail_after(60):
            while b"\n" not in received:
                daemon.house.events.publish(events.Event("experiment.decided", {"id": 7, "verdict": "regressed"}))
                with anyio.move_on_after(0.2):
                    received += await process.stdout.receive()
        process.terminate()
    assert re.match(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d experiment.decided id=7 verdict=regressed\n", received)


async def test_who_has_read_enough_is_not_complained_at(full: statusd.Daemon) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["status"], ["--json", "status"], ["log", "build", "1"]):
        told = await anyio.run_process([*CLIENT, "-s", str(full.path), *words], stdout=writer, check=False)
        assert (told.returncode, told.stderr) == (0, b"")
    os.close(writer)


@pytest.mark.parametrize(("environment", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str)
async def test_a_terminal_has_colours_and_an_edge(full: statusd.Daemon, environment: dict[str, str], colours: bool) -> None:
    text = await on_terminal([*CLIENT, "-s", str(full.path), "status"], 40, {"TERM": "xterm"} | environment)
    assert ("\x1b[31m" in text) is colours
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert max(map(len, plain.splitlines())) == 40
    assert "…" in plain


async def on_terminal(argv: list[str], columns: int, environment: dict[str, str], code: int = 0) -> str:
    """What a command that exits with ``code`` shows on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    told = await anyio.run_process(argv, stdout=theirs, stderr=theirs, env=os.environ | environment, check=False)
    assert told.returncode == code
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(ours, 65536):
            text += piece
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


WORDS = st.one_of(st.text(), st.sampled_from(["--", "-s", "--json", "show", "status", "ab", "--wait", "--limit=3", "-h"]))


@given(st.lists(WORDS))
def test_no_command_line_ends_in_a_traceback(words: list[str]) -> None:
    assert client.main(["-s", "/no/such/socket", *words]) in (0, 3, 4)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_quoted_comes_back(text: str) -> None:
    assert parse.unquote(call.quoted(text)) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12_345.0, "us", "12.3 ms"),
        (0.5, "ms", "500 us"),
        (90.0, "s", "90 s"),
        (1_234_567.0, "s", "1234567 s"),
        (0.2, "ns", "0.2 ns"),
        (0.0, "us", "0 us"),
        (98.7654, "%", "98.8 %"),
        (3.0, "", "3"),
    ],
)
def test_a_quantity_has_three_digits_and_a_time_the_unit_that_suits_it(value: float, unit: str, text: str) -> None:
    assert screen.quantity(value, unit) == text


@pytest.mark.parametrize(("value", "text"), [(-4008.0, "-4.01 ms"), (2630.0, "+2.63 ms"), (0.0, "+0 us")])
def test_a_change_has_its_sign_and_the_unit_that_suits_its_size(value: float, text: str) -> None:
    assert screen.change(value, "us") == text


@given(st.lists(st.text("abc", max_size=12), min_size=1, max_size=8), st.integers(1, 4), st.integers(28, 60))
def test_a_wide_table_is_cut_into_bands_that_fit_and_lacks_no_column(head: list[str], count: int, width: int) -> None:
    names = [f"{index}{name}" for index, name in enumerate(head)]
    rows = [[f"{column}.{row}" for column in range(len(names))] for row in range(count)]
    text = bands(names, rows, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert set(text.split()) == {*names, *itertools.chain.from_iterable(rows)}
    assert len(bands(names, rows, 0).splitlines()) == 1 + count


@pytest.mark.parametrize(
    ("state", "digest", "said"),
    [
        ("failed", "", "14, failed, 'aibenchctl log build 14'"),
        ("ready", "abcdef0123456789", f"14, ready, {'abcdef0123456789'[: screen.SHORT]}"),
        ("waiting", "", "14, waiting"),
    ],
)
def test_a_build_says_what_it_holds_or_what_to_read(state: str, digest: str, said: str) -> None:
    assert experiments._build({"id": 14, "state": state, "digest": digest}) == said


@pytest.mark.parametrize(
    ("state", "outcomes", "said"),
    [
        ("planned", {"regressed": 1, "skipped": 2}, "done"),
        ("planned", {"regressed": 1, "open": 1}, "planned"),
        ("planned", {"waiting": 1}, "planned"),
        ("planned", {}, "planned"),
        ("refused", {}, "refused"),
    ],
)
def test_a_request_is_done_once_all_its_experiments_have_ended(state: str, outcomes: dict[str, int], said: str) -> None:
    assert requests.stands({"state": state, "outcomes": outcomes}) == said


def bands(head: list[str], rows: list[list[str]], width: int) -> str:
    out = screen.Screen()
    out.width = width
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        out.bands(head, rows)
    return printed.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (86400 * 3, "3d"), (86400 * 800, "2y")]
)
def test_spans_are_in_their_largest_unit(seconds: float, text: str) -> None:
    assert screen.span(seconds) == text


@pytest.mark.parametrize(("seconds", "said"), [(0.0034, "3.4 ms"), (0.25, "250 ms"), (11.23, "11.2 s"), (0.0, "0 s")])
def test_a_short_trial_takes_more_than_nothing(seconds: float, said: str) -> None:
    trial = {"arm": "control", "outcome": "ok", "seconds": seconds, "reason": ""}
    assert experiments._trial(trial) == f"control {said}"


def test_it_imports_nothing_but_the_standard_library_and_little_of_that() -> None:
    program = "import sys; from aibenchd.api import client; print(*sorted(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=Path(client.__file__).parents[2]
    )
    modules = set(told.stdout.split())
    ours = {name for name in modules if name.startswith("aibenchd")}
    assert ours == {
        "aibenchd",
        "aibenchd.api",
        *(f"aibenchd.api.{name}" for name in ("call", "client", "commandline", "commands", "screen", "waiting")),
        *(f"aibenchd.api.{name}" for name in ("devices", "experiments", "findings", "pages", "requests")),
    }
    assert not modules & {
        "argparse",
        "asyncio",
        "dataclasses",
        "email",
        "http",
        "inspect",
        "pathlib",
        "ssl",
        "subprocess",
        "typing",
    }
    assert {name.partition(".")[0] for name in modules - ours} <= sys.stdlib_module_names | {"__main__"}


async def test_a_finding_is_triaged_and_tells_who_did(full: statusd.Daemon) -> None:
    code, told, _ = await ask(full, "mute", "1", "--until", "2999-01-01", "--why", "the driver")
    assert code == 3
    code, told, _ = await ask(full, "acknowledge", "1", "--why", "looking into it")
    assert (code, told) == (0, "finding: 1\nstate: acknowledged\n")
    code, _, told = await ask(full, "accept", "1")
    assert (code, "--why: is required" in told) == (3, True)
    code, _, told = await ask(full, "mute", "1", "--until", "tomorow", "--why", "the driver")
    assert (code, "--until: expected a day, such as 2031-01-15, not 'tomorow'" in told) == (3, True)
    assert (await ask(full, "accept", "1", "--why", "worth it"))[0] == 0
    _, listed, _ = await ask(full, "findings", "--state", "accepted")
    assert re.search(r"^1 +accepted +", listed, re.MULTILINE)
    _, shown, _ = await ask(full, "finding", "1")
    assert re.search(r"accept +\d+s ago by \w+: worth it\n +acknowledge +\d+s ago by \w+: looking into it", shown)
    assert (await ask(full, "reopen", "1"))[0] == 0
    assert "none" in (await ask(full, "findings", "--state", "accepted"))[1]


async def test_a_finding_shows_what_each_profiler_says(full: statusd.Daemon) -> None:
    def table(by: str, *rows: dict[str, object]) -> dict[str, object]:
        return {"profiler": by, "per": "process", "unit": "us", "rows": rows, "files": {"control": f"logs/profile/1-{by}"}}

    sampled = {"name": "convolve", "control": 100.0, "treatment": 300.0, "change": 200.0, "within": 90.0, "told": True}
    untold = {"name": "copy", "control": 9.0, "treatment": 5.0, "change": -4.0, "within": 7.0, "told": False}
    earlier = {"name": "relu", "control": 9.0, "treatment": 5.0, "change": -4.0, "within": 7.0}
    counted = {"name": "migrations", "control": 3.0, "treatment": 41.0, "change": 38.0, "within": 0.0, "unit": ""}
    taken = {"samples": {"control": 1012, "treatment": 15}}
    also = [table("Perfetto", counted), table("Perfetto samples", untold) | taken, table("perf", earlier)]
    facts = table("simpleperf", sampled, untold) | taken | {"also": also, "unread": ["perf: it holds no sample"]}

    def write(tx: store.Transaction) -> None:
        tx.connection.execute(schema.profiles.insert().values(finding=1, experiment=1, facts=facts, reason=""))

    await full.house.store.write(write)
    _, shown, _ = await ask(full, "finding", "1")
    assert re.search(r"profile, a process, by simpleperf +was +is +change\nconvolve +100 us +300 us +\+200 us ±90 us", shown)
    assert re.search(r"\ncopy +9 us +5 us +±7 us\n", shown)
    assert "at 95 %; 1,012 in the control, 15 in the treatment\n" in shown
    assert "at 95 %; too few to tell a difference: 1,012 in the control, 15 in the treatment\n" in shown
    assert re.search(r"\nrelu +9 us +5 us +±7 us\n.*; too few to tell a difference\n", shown)
    assert re.search(r"by Perfetto +was +is +change\nmigrations +3 +41 +\+38\n", shown)
    assert "not read: perf: it holds no sample" in shown


def test_names_hold_nothing_that_a_terminal_obeys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(naming, "of", lambda *_: iter(["lab\x1b[2J", "phone"]))
    assert commands.names(commandline.Call(["-s", "/nowhere", "names", "devices"], commands.COMMANDS)) == commandline.DONE
    assert capsys.readouterr().out == "lab [2J\nphone\n"
