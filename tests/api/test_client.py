"""The client, as a process of its own, against a real status socket."""

import contextlib
import grp
import io
import itertools
import json
import os
import pty
import re
import shlex
import socket
import subprocess
import sys
import termios
import threading
from datetime import UTC, datetime
from pathlib import Path
from urllib import parse

import anyio
import pytest
import statusd
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import events, model
from aibenchd.api import call, client, commandline, commands, experiments, naming, requests, screen, server, waiting
from aibenchd.store import requests as stored
from aibenchd.store import schema, store, submissions

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
                "once more:  aibenchctl ab bbbbbbbbbbbb aaaaaaaaaaaa --repository engine --benchmark squeeze --device lab-host",
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
    ("command", "suggested"),
    [
        (
            "finding 1",
            ["show 1", "ab bbbbbbbbbbbb aaaaaaaaaaaa --repository engine --benchmark squeeze --device lab-host --wait"],
        ),
        ("show 1", ["log trial 4"]),
        ("coverage", ["compare MODEL CELL CELL"]),
        ("ab --repository engine b a", ["request "]),
        ("compare net a/b a/c", ["request 1"]),
        ("status", ["undrain phone"]),
        ("devices", ["undrain phone"]),
        ("show 99", ["experiments"]),
        ("rebuild 1", ["builds --state failed"]),
        ("ab --repository engine --wait --timeout 0 b a", []),
    ],
)
async def test_what_it_suggests_asks_the_daemon_that_it_asked(full: statusd.Daemon, command: str, suggested: list[str]) -> None:
    full.house.board.put("device/phone", "draining", "drained until 'aibenchctl undrain phone'", fault=True)
    told = [(await ask(full, *words, *command.split()))[1:] for words in ((), ("-s", str(full.path)))]
    by_environment, by_option = ["".join(texts) for texts in told]
    for words in suggested:
        assert f"aibenchctl {words}" in by_environment
        assert f"aibenchctl -s {full.path} {words}" in by_option
    assert by_option.count(f"aibenchctl -s {full.path} ") == by_environment.count("aibenchctl ") >= len(suggested)
    assert str(full.path) not in by_environment


async def test_a_command_that_is_pasted_works_where_no_environment_names_the_daemon(full: statusd.Daemon, tmp_path: Path) -> None:
    odd = tmp_path / "an odd place's.sock"
    odd.symlink_to(full.path)
    _, shown, _ = await ask(full, f"--socket={odd}", "finding", "1")
    (words,) = re.findall(r"its blocks: (.*)", shown)
    program, *rest = shlex.split(words)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AIBENCHD_")}
    told = await anyio.run_process([*CLIENT, *rest], check=False, env=bare)
    assert (program, told.returncode) == ("aibenchctl", 0)
    assert told.stdout.startswith(b"experiment 1: regressed")


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["show", "1"], "aibenchctl"),
        (["--json", "show", "1"], "aibenchctl"),
        (["show", "1", "-s", "a.sock"], "aibenchctl -s a.sock"),
        (["-s", "a.sock", "--socket=b.sock", "show", "1"], "aibenchctl -s b.sock"),
        (["--host", "ssh://me@lab:2222/run/a.sock", "show", "1"], "aibenchctl -H ssh://me@lab:2222/run/a.sock"),
        (["-s", "ü$(x)", "show", "1"], "aibenchctl -s 'ü$(x)'"),
        (["-s", "/run/a b.sock", "-Hssh://lab", "show", "1"], "aibenchctl -H ssh://lab -s '/run/a b.sock'"),
    ],
)
def test_what_a_command_line_begins_with_is_what_it_was_called_with(
    words: list[str], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIBENCHD_SOCKET", "/the/environment.sock")
    monkeypatch.setenv("AIBENCHD_HOST", "ssh://environment")
    assert commandline.Call(words, commands.COMMANDS).program == program


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


async def test_what_is_inconclusive_says_what_would_help_and_how_to_ask_again(daemon: statusd.Daemon) -> None:
    def rows(tx: store.Transaction) -> None:
        built = statusd.build(tx, "b" * 40)
        facts = {"control_build": built, "reason": model.BLOCKS_SPENT, "blocks": 60, "design": {"rule": {"max_blocks": 60}}}
        for run_type, request in (("benchmark", None), ("submission", 1)):
            if request:
                asked = {
                    "repository": "engine",
                    "treatment": "b",
                    "requested_by": "me",
                    "created_at": statusd.NOW,
                    "state": "new",
                }
                tx.connection.execute(schema.requests.insert().values(asked | {"control": "", "benchmarks": [], "devices": []}))
            pair = statusd.pair(tx, "b" * 40, "a" * 40, run_type=run_type, request=request)
            statusd.experiment(tx, pair, built, **facts, **statusd.decided("inconclusive"))
        statusd.experiment(tx, pair, built, backend="x", control_build=built, **statusd.decided("unchanged"))

    await daemon.house.store.write(rows)
    code, shown, _ = await ask(daemon, "-s", str(daemon.path), "show", "1")
    assert code == 0
    assert (
        "\nwhat would help: how small a change is found here is not known yet "
        f"('aibenchctl -s {daemon.path} calibrate lab-host' measures it); raise max_blocks (60) or min_effect, or have the "
        "device quieter, and ask again\n"
        f"once more: aibenchctl -s {daemon.path} ab bbbbbbbbbbbb aaaaaaaaaaaa --repository engine --benchmark squeeze "
        "--device lab-host --wait\n"
    ) in shown
    _, sent, _ = await ask(daemon, "show", "2")
    assert ("what would help: " in sent, "once more" in sent) == (True, False)
    _, other, _ = await ask(daemon, "show", "3")
    assert "what would help" not in other
    narrow = await on_terminal([*CLIENT, "-s", str(daemon.path), "show", "1"], 50, {"NO_COLOR": "1"})
    said = " ".join(narrow.partition("what would help:")[2].partition("once more")[0].split())
    assert said.endswith("have the device quieter, and ask again")


async def test_of_what_ran_under_a_profiler_no_effect_is_shown(daemon: statusd.Daemon) -> None:
    def rows(tx: store.Transaction) -> None:
        built = statusd.build(tx, "b" * 40)
        first = statusd.experiment(tx, statusd.pair(tx, "b" * 40, "a" * 40), built, **statusd.decided("regressed"))
        found = statusd.finding(tx, first)
        profiled = {"design": {"profiled": True}, "control_build": built, "finding": found}
        pair = statusd.pair(tx, "b" * 40, "a" * 40, run_type="profile")
        number = statusd.experiment(tx, pair, built, **profiled, **statusd.decided("measured"))
        statusd.block(tx, number, 0)
        measured = {"type": "NET", "metric": "latency", "unit": "us", "treatment": {"p50": 987.0}, "control": {"p50": 876.0}}
        for experiment in (first, number):
            tx.connection.execute(schema.results.insert().values(experiment=experiment, **measured))

    await daemon.house.store.write(rows)
    assert "987" in (await ask(daemon, "show", "1"))[1]
    _, shown, _ = await ask(daemon, "show", "2")
    assert shown.startswith(
        "experiment 2: measured\n  under a profiler: its times have the profiler's own costs in them, and compare"
    )
    assert "  where time goes aibenchctl finding 1\n" in shown
    assert [text for text in ("987", "876", "+5.0 %", "1.1") if text in shown] == []
    assert re.search(r"\n0 +CT +control 1 s; treatment 1 s\n", shown)
    _, listed, _ = await ask(daemon, "experiments")
    assert [("+5.0 %" in line) for line in listed.splitlines()[1:]] == [False, True]


async def test_a_history_says_what_its_verdicts_are_worth(daemon: statusd.Daemon) -> None:
    """What no second look has confirmed has that beside it, and where another specification was measured is said."""

    def rows(tx: store.Transaction) -> None:
        built = {name: statusd.build(tx, name) for name in "abc"}
        for place, (name, more) in enumerate({"a": {}, "b": {"benchmark": "e" * 64}, "c": {"benchmark": "e" * 64}}.items()):
            statusd.revision(tx, name, place)
            control = {"control_build": built["b"]} if name == "c" else {}
            pair = statusd.pair(tx, name, "b" if name == "c" else None)
            statusd.experiment(tx, pair, built[name], **statusd.decided("regressed"), **control, **more)
        statusd.finding(tx, 1, state="refuted")
        own = statusd.decided("unchanged") | {"estimate": 0.0, "low": -0.01, "high": 0.01, "finding": 1}
        statusd.experiment(tx, statusd.pair(tx, "a", run_type="verify"), built["a"], **own)

    await daemon.house.store.write(rows)
    _, history, _ = await ask(daemon, "history", "squeeze", "lab-host")
    assert [columns(line)[1] for line in history.splitlines()[1:4]] == [
        "regressed",
        "regressed",
        "regressed (refuted: inconclusive)",
    ]
    assert "from experiment 2 on: another specification\n" in history
    assert "over that of b, " in history  # levels go back to where that began
    _, one, _ = await ask(daemon, "show", "1")
    assert one.startswith("experiment 1: regressed (refuted: inconclusive) +5.0 %")


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


async def test_what_requests_ask_for_can_be_told_apart(daemon: statusd.Daemon) -> None:
    deep = "/home/kim/work/engine/build/release/arm64-v8a/bin"
    asked = [
        ("e" * 40, "d" * 40, None),
        ("topic/winograd-2", "topic/winograd-1", None),
        ("pytorch@host/mkl", "pytorch@host/eigen", None),
        ("a" * 64, "b" * 64, {"treatment": "./bench", "control": "./bench"}),
        ("c" * 64, "", {"treatment": f"{deep}/bench"}),
    ]

    def rows(tx: store.Transaction) -> None:
        for treatment, control, names in asked:
            facts = {"repository": "engine", "benchmarks": [], "devices": [], "priority": 0, "requested_by": "me"}
            number = stored.add(tx, treatment=treatment, control=control, **facts)
            if names:
                submissions.add(tx, request=number, uid=1, note="", names=names, specification="")

    await daemon.house.store.write(rows)
    _, out, _ = await ask(daemon, "requests")
    shown = [columns(line)[4:6] for line in out.splitlines()[1:6]]
    assert shown[::-1] == [
        ["e" * 12, "d" * 12],
        ["topic/winograd-2", "topic/winograd-1"],
        ["pytorch@host/mkl", "pytorch@host/eigen"],
        [f"./bench {'a' * 12}", f"./bench {'b' * 12}"],
        [f"…{deep[-33:]}/bench {'c' * 12}", "me"],
    ]


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
    assert experiments._build(screen.Screen(), {"id": 14, "state": state, "digest": digest}) == said


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
    assert experiments._trial(screen.Screen(), trial) == f"control {said}"


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


@pytest.mark.parametrize(
    ("now", "code", "said"),
    [
        ({"state": "refuted"}, 0, "it was measured again, and refuted"),
        ({"state": "unconfirmed"}, 2, "neither confirmed nor refuted"),
        ({"state": "open", "search": "found"}, 1, "confirmed, it stands; its search ended: found"),
        ({"state": "open", "search": "no culprit"}, 1, "confirmed, it stands; its search ended: no culprit"),
        ({"state": "open", "search": "found", "mended": 2}, 0, "confirmed, mended in experiment 2; its search ended: found"),
        ({"state": "accepted", "search": "stopped"}, 0, "accepted as the new baseline"),
    ],
)
async def test_watching_a_finding_ends_once_nothing_more_is_to_come(
    full: statusd.Daemon, now: dict[str, object], code: int, said: str
) -> None:
    def settle(tx: store.Transaction) -> None:
        row = {"finding": 1, "action": "accept", "by": "kim", "why": "", "state": "open", "at": statusd.NOW}
        tx.connection.execute(schema.triages.insert().values(row))
        tx.connection.execute(schema.findings.update().values(now))

    await full.house.store.write(settle)
    with anyio.fail_after(60):
        ended, out, err = await ask(full, "finding", "1", "--watch")
    assert (ended, err) == (code, "")
    assert out.splitlines()[-1] == f"nothing more is to come of finding 1: {said}"
    assert (await ask(full, "finding", "1"))[0] == 0
    ended, out, _ = await ask(full, "--json", "finding", "1", "--watch")
    assert (ended, json.loads(out)["coming"]) == (code, [])


async def test_watching_a_finding_goes_on_through_all_that_is_to_come(full: statusd.Daemon) -> None:
    full.configure(bisect=full.configuration.bisect.model_copy(update={"enabled": True}))

    async def become(**values: object) -> None:
        await full.house.store.write(lambda tx: tx.connection.execute(schema.findings.update().values(values)))

    async def be_profiled(**values: object) -> None:
        row = {"finding": 1, "experiment": 2, "reason": ""}
        table = schema.profiles
        work = table.update().values(values) if values else table.insert().values(row)
        await full.house.store.write(lambda tx: tx.connection.execute(work))

    steps = [
        ("it is measured again", lambda: become(state="open", search="")),
        ("its commits are searched", lambda: become(search="running")),
        ("running", be_profiled),
        ("its commits are searched, it is profiled", lambda: become(search="found")),
        ("still to come   it is profiled", lambda: be_profiled(reason="its program is no ELF file", made_at=statusd.NOW)),
    ]
    await become(state="suspect", search="", culprits=None)
    received = ""
    async with await anyio.open_process([*CLIENT, "-s", str(full.path), "finding", "1", "--watch"]) as process:
        assert process.stdout is not None
        with anyio.move_on_after(90) as limit:
            for awaited, go_on in steps:
                while awaited not in received:
                    received += (await process.stdout.receive()).decode()
                received = ""
                await go_on()
            async for piece in process.stdout:
                received += piece.decode()
        if limit.cancelled_caught:
            process.kill()
    assert process.returncode == 1
    assert "not profiled: its program is no ELF file" in received
    assert received.endswith("nothing more is to come of finding 1: confirmed, it stands; its search ended: found\n")


async def test_a_finding_whose_commits_are_not_searched_is_not_waited_for(full: statusd.Daemon) -> None:
    search = schema.findings.update().values(search="", state="open")
    await full.house.store.write(lambda tx: tx.connection.execute(search))
    full.configure(bisect=full.configuration.bisect.model_copy(update={"enabled": False}))
    with anyio.fail_after(60):
        ended, out, _ = await ask(full, "finding", "1", "--watch")
    assert (ended, out.splitlines()[-1].endswith("it stands; its commits are not searched (bisect.enabled)")) == (1, True)


async def test_a_profile_that_is_to_be_asked_for_is_to_come(full: statusd.Daemon) -> None:
    confirmed = schema.findings.update().values(verified_at=datetime.now(UTC))
    await full.house.store.write(lambda tx: tx.connection.execute(confirmed))
    assert (await full.get("/v1/findings/1"))[1]["coming"] == ["it is profiled"]
    full.configure(verify=full.configuration.verify.model_copy(update={"profile": False}))
    assert (await full.get("/v1/findings/1"))[1]["coming"] == []


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
