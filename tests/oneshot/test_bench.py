"""``aibenchd bench``, run as a person runs it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import desk
import pytest
import sshd

SHIPPED = Path(__file__).parents[2] / "specifications"
FAILS = "#!/bin/sh\necho it broke >&2\nexit 3\n"
SLEEPS = "#!/bin/sh\ntouch begun\nsleep 600.125\n"
WAIT = 60.0


def test_a_number_of_a_program(at_desk: desk.Desk) -> None:
    done = at_desk.run("bench", "-b", at_desk.specification(), "--program", at_desk.program("engine"))
    assert (done.code, done.err) == (0, "")
    assert re.search(r"net .*this-host .*generic .*engine .*811 us .*3 .*measured", done.out)
    assert "\x1b" not in done.out


def test_json_is_all_that_is_printed(at_desk: desk.Desk) -> None:
    done = at_desk.run(
        *(
            "bench",
            "-b",
            at_desk.specification(),
            "--program",
            at_desk.program("engine"),
            "--blocks",
            "2",
            "--json",
            "--operators",
        )
    )
    assert (done.code, done.err, done.json["exit"], done.json["error"]) == (0, "", 0, "")
    one = done.only
    assert (one["benchmark"], one["verdict"], one["blocks"], one["key"], one["unit"]) == (
        "net",
        "measured",
        2,
        "NET latency",
        "us",
    )
    assert one["statistics"]["treatment"]["p50"] == 811.2
    assert one["outcomes"] == {"treatment": {"ok": 2}}


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_a_network_that_comes_with_aibenchd_needs_nothing_else(at_desk: desk.Desk) -> None:
    specification = SHIPPED / "models/onnxruntime/squeezenet/squeezenet.json"
    done = at_desk.run("bench", "-b", str(specification), "--backend", "cpu", "--blocks", "1", "--json")
    assert done.code == 0, done.err
    one = done.only
    assert (one["framework"], one["backend"], one["treatment"]) == ("onnxruntime", "cpu", "runner")
    assert one["outputs"] == {"treatment": {"right": 1}}
    assert one["statistics"]["treatment"]["p50"] > 0


def test_two_programs_are_interleaved_and_decided(at_desk: desk.Desk) -> None:
    slower = at_desk.program("slower", desk.PROGRAM.replace("8", "9"))
    new, old = slower, at_desk.program("old")
    done = at_desk.run("bench", "-b", at_desk.specification(), "--program", new, "--control", old, "--json")
    assert (done.code, done.only["verdict"], done.json["exit"]) == (5, "regressed", 5)
    assert done.only["estimate"] == pytest.approx(0.124, abs=0.01)
    assert (done.only["treatment"], done.only["control"]) == (new, old)
    swapped = at_desk.run("bench", "-b", at_desk.specification(), "--program", old, "--control", new)
    assert swapped.code == 0
    assert "improved" in swapped.out
    same = at_desk.run("bench", "-b", at_desk.specification(), "--program", old, "--control", old)
    assert same.code == 0
    assert "identical" in same.out


def test_fai_peps_own_way_to_say_it(at_desk: desk.Desk) -> None:
    """No framework but the model's format, a file below the root by its md5, Caffe2's old records, --info."""
    (at_desk.directory / "models").mkdir()
    (at_desk.directory / "models/net.pb").write_bytes(b"a network")
    file = {"filename": "net.pb", "location": "//net.pb", "md5": hashlib.md5(b"a network").hexdigest()}
    model = {"name": "net", "format": "caffe2", "files": {"net": file}}
    test = {"identifier": "{ID}", "metric": "delay", "iter": 1, "commands": ["{program} {files.net} && {convert}"]}
    (at_desk.directory / "net.json").write_text(json.dumps({"model": model, "tests": [test]}))
    latency = '{"NET": {"latency": {"value": 812.0, "unit": "us"}}}'
    main = at_desk.program("engine", f"#!/bin/sh\ngrep -q network $1 && echo 'Caffe2Observer {latency}'\n")
    convert = at_desk.program("convert.sh", "#!/bin/sh\ntrue\n")
    programs = {"program": {"location": main}, "convert": {"location": convert}}
    info = {"treatment": {"commit": "a" * 40, "commit_time": 1_700_000_000, "programs": programs}}
    done = at_desk.run(
        *("bench", "-b", "net.json", "--info", json.dumps(info), "--root_model_dir", "models", "--platform", "host"),
        *("--simple_local_reporter", "simple", "--local_reporter", "local", "--simple_screen_reporter"),
    )
    assert done.code == 0, done.err
    assert "0 NET latency: 812 us\n" in done.out
    assert "measured" not in done.out
    assert json.loads((at_desk.directory / "simple/0/data.txt").read_bytes())["data"]["NET latency"]["summary"]["p50"] == 812.0
    (meta,) = (at_desk.directory / "local/host/caffe2/net/delay/0/2023/11/14" / ("a" * 40)).glob("*/meta.txt")
    assert json.loads(meta.read_bytes())["commit"] == "a" * 40


def test_outputs_are_held_against_the_golden_ones(at_desk: desk.Desk) -> None:
    (at_desk.directory / "golden.txt").write_text("1.0 2.0\n")
    golden = {"filename": "golden.txt", "location": "golden.txt", "sha256": hashlib.sha256(b"1.0 2.0\n").hexdigest()}
    output = {"filename": "out.txt", "location": "{TGTDIR}out.txt", "golden": golden}
    test = {"identifier": "net", "metric": "delay", "iter": 1, "commands": ["{program} {TGTDIR}out.txt"]}
    model = {"name": "net", "format": "generic"}
    (at_desk.directory / "net.json").write_text(json.dumps({"model": model, "tests": [test | {"output_files": {"out": output}}]}))
    right, wrong = (
        at_desk.program(name, f"{desk.PROGRAM}echo {numbers} > $1\n")
        for name, numbers in (("right", "1.0 2.0"), ("wrong", "1.0 2.5"))
    )
    done = at_desk.run("bench", "-b", "net.json", "--program", wrong, "--control", right)
    assert done.code == 5
    assert re.search(r"(\d+) right, \1 wrong", done.out)
    assert "max_relative" in done.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--program", "none"), 1, "none: there is no such program"),
        (("--program", "data"), 1, "data: is not executable"),
        (("--control", "engine"), 1, "--control without --program"),
        (("--program", "engine", "--framework", "none"), 1, "'none' is none of the installed kinds of frameworks"),
        (("--program", "engine", "--framework", "pytorch"), 1, "the specification is for generic; see --framework"),
        (("--program", "engine", "-d", "x@"), 1, "device x: host:"),
        (("--program", "engine", "--set-freq", "fast"), 1, "--set-freq: frequency:"),
        (("--program", "engine", "--reboot"), 1, "this host, which cannot be rebooted"),
        (("--program", "engine", "--excluded-devices", "this-host"), 1, "no device is left"),
        (("--info", '{"control": {}}'), 1, "expected a 'treatment'"),
        (("--info", '{"treatment": {"programs": {"program": 1}}}'), 1, "--info: treatment: expected {'programs'"),
        (("--repo", "nowhere", "--treatment", "main"), 1, "nowhere: there is no such directory"),
        (("--program", "engine", "--backend", "x", "--framework", "onnxruntime"), 1, "the specification is for generic"),
        (
            ("--program", "engine", "--backend", "cuda"),
            1,
            "cuda; the program does not say which one executed (expected: a row NET",
        ),
        (
            ("--program", "engine", "--control", "other", "--backend", "cuda", "--max-blocks", "9"),
            1,
            "asked for the backend cuda",
        ),
        ((), 1, "Say it with --program"),
        (("--program", "fails"), 1, "treatment: exit code 3: it broke"),
        (("--program", "fails", "--control", "engine", "--max-blocks", "20"), 5, "treatment: exit code 3: it broke"),
        (("--program", "engine", "--control", "fails", "--max-blocks", "20"), 1, "control: exit code 3: it broke"),
        (("--program", "sleeps", "--timeout", "1"), 4, "timed out after 1 s"),
        (("--program", "engine", "--control", "other", "--max-blocks", "1"), 6, "the budget of"),
        (("--program", "engine", "--control", "other", "--max-blocks", "1"), 6, "there is no interval yet: allow more (--max-b"),
        (("--program", "engine", "--blocks", "none"), 2, "expected a number"),
    ],
)
def test_each_way_to_end_is_told_apart(at_desk: desk.Desk, words: tuple[str, ...], code: int, said: str) -> None:
    for name, text in {"engine": desk.PROGRAM, "other": desk.PROGRAM + "#", "fails": FAILS, "sleeps": SLEEPS}.items():
        at_desk.program(name, text)
    (at_desk.directory / "data").write_text("x")
    done = at_desk.run("bench", "-b", at_desk.specification(framework="generic"), *words)
    assert done.code == code, done.err
    assert said in done.out + done.err
    assert "Traceback" not in done.err


def test_a_specification_with_faults_names_them(at_desk: desk.Desk) -> None:
    (at_desk.directory / "net.json").write_text('{"model": {"name": "net"},\n "tests": [{"identifier": 1}]}')
    done = at_desk.run("bench", "-b", "net.json", "--program", at_desk.program("engine"), "--json")
    assert (done.code, done.json["exit"], done.json["experiments"]) == (1, 1, [])
    assert "net.json:2:" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_block_ends_it_and_leaves_nothing(at_desk: desk.Desk, number: signal.Signals, code: int) -> None:
    sleeps = at_desk.program("sleeps", SLEEPS.replace("touch begun", f"touch {at_desk.directory}/begun"))
    process = at_desk.start("bench", "-b", at_desk.specification(), "--program", sleeps, "--json")
    _until((at_desk.directory / "begun").exists)
    assert any("generic_benchmark" in one for one in at_desk.processes())
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT)
    done = desk.Done(process.returncode, out, err)
    assert (done.code, done.json["exit"], done.only["state"], done.only["verdict"]) == (code, code, "open", "")
    assert at_desk.processes() == []
    again = at_desk.run("bench", "-b", at_desk.specification(), "--program", at_desk.program("engine"), "--json")
    assert (again.code, again.only["verdict"]) == (0, "measured")


def test_what_is_interrupted_is_shown_with_its_unit(at_desk: desk.Desk) -> None:
    begun = at_desk.directory / "begun"
    sleeps = f"[ $(wc -l <{begun}) -gt 2 ] && exec sleep 600"
    arms = [at_desk.program(name, f"#!/bin/sh\necho >>{begun}\n{sleeps}\n{desk.PROGRAM}# {name}") for name in ("new", "old")]
    process = at_desk.start("bench", "-b", at_desk.specification(), "--program", arms[0], "--control", arms[1])
    _until(lambda: begun.exists() and len(begun.read_text().splitlines()) > 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130, err
    (row,) = [line for line in out.splitlines() if "not finished" in line]
    assert row.count("810 us") == 2, out


def test_one_run_at_a_time_has_a_state_directory(at_desk: desk.Desk) -> None:
    sleeps = at_desk.program("sleeps", SLEEPS.replace("touch begun", f"touch {at_desk.directory}/begun"))
    first = at_desk.start("bench", "-b", at_desk.specification(), "--program", sleeps)
    _until((at_desk.directory / "begun").exists)
    try:
        other = ("bench", "-b", at_desk.specification(), "--program", at_desk.program("engine"))
        done = at_desk.run(*other)
        assert (done.code, f"in use by process {first.pid}" in done.err) == (3, True)
        assert at_desk.run(*other, "--state-directory", "beside").code == 0
    finally:
        first.terminate()
        first.communicate(timeout=WAIT)


def test_a_machine_over_ssh_of_a_configuration(at_desk: desk.Desk) -> None:
    with sshd.running(at_desk.directory / "ssh") as server:
        box = server.settings(host_key=server.fingerprint(), platform="linux")
        (at_desk.directory / "lab.yaml").write_text(json.dumps({"version": 1, "devices": [box]}))
        words = ("bench", "-b", at_desk.specification(), "--config", "lab.yaml", "-d", "box", "--json")
        done = at_desk.run(*words, "--program", at_desk.program("engine"), "--blocks", "1")
        assert (done.code, done.only["device"], done.only["verdict"]) == (0, "box", "measured"), done.err
        process = at_desk.start(*words, "--program", at_desk.program("sleeps", "#!/bin/sh\nsleep 600.375\n"))
        _until(lambda: bool(_sleeping("600.375")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT)
        assert process.returncode == 130
        assert not _sleeping("600.375")


def _sleeping(seconds: str) -> list[str]:
    """The processes that sleep for so long."""
    wanted = f"sleep\0{seconds}\0".encode()
    return [pid for pid in os.listdir("/proc") if pid.isdecimal() and _command_line(pid) == wanted]  # noqa: PTH208


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_what_is_not_known_is_asked_for_once(at_desk: desk.Desk) -> None:
    engine, named = at_desk.program("engine"), at_desk.specification()
    words = ("bench", "-b", named, "--json")
    first = at_desk.on_terminal(*words, typed=f"{engine}\n")
    assert (first.code, f"Where is the program of generic for {named}: " in first.out) == (0, True)
    second = at_desk.run(*words)
    assert (second.code, second.only["treatment"]) == (0, engine)
    assert f"program of generic for {named}: {engine}, as you answered before" in second.err
    assert at_desk.run("bench", "--reset-options").code == 0
    assert at_desk.run(*words).code == 1


def test_the_program_of_one_specification_is_not_that_of_another(at_desk: desk.Desk) -> None:
    engine, named = at_desk.program("engine"), at_desk.specification()
    other = at_desk.directory / "other.json"
    other.write_text(Path(named).read_text().replace('"net"', '"other"'))
    assert at_desk.on_terminal("bench", "-b", named, "--json", "--blocks", "1", typed=f"{engine}\n").code == 0
    done = at_desk.run("bench", "-b", str(other))
    assert done.code == 1
    assert f"Where is the program of generic for {other}? Say it with --program" in done.err


def test_a_framework_that_is_not_there_is_named_where_it_stands(at_desk: desk.Desk) -> None:
    named = at_desk.specification(framework="genric")
    done = at_desk.run("bench", "-b", named, "--program", at_desk.program("engine"))
    assert done.code == 1
    assert re.search(rf"{re.escape(named)}:1:\d+: model.framework: 'genric' is none of the installed kinds", done.err), done.err
    assert "did you mean 'generic'?" in done.err


def test_bars_on_a_terminal(at_desk: desk.Desk) -> None:
    done = at_desk.on_terminal("bench", "-b", at_desk.specification(), "--program", at_desk.program("engine"), "--blocks", "2")
    assert done.code == 0, done.out
    for shown in ("build generic-program", "0 of 1 decided", "1 of 1 decided", "\x1b[1mbenchmark"):
        assert shown in done.out


def test_no_colour_is_honoured(at_desk: desk.Desk) -> None:
    words = ("bench", "-b", at_desk.specification(), "--program", at_desk.program("engine"), "--blocks", "1")
    done = at_desk.on_terminal(*words, NO_COLOR="1")
    assert done.code == 0
    assert not re.search(r"\x1b\[(3|9)\d", done.out)


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
