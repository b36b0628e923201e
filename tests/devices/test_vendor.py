"""A device behind a command line tool. The tools are real programs: a shell's, and a board's whose files are a directory."""

import contextlib
import json
import math
import os
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import launchers
import pytest
import structlog.testing

from aibenchd import digests, errors, plugins, settings
from aibenchd.devices import base, vendor

# A board whose files lie below ROOT/files: board ROOT VERB …; each call is a row of ROOT/calls.
BOARD = """#!/bin/sh
root=$1; verb=$2; shift 2
echo "$verb $*" >> "$root/calls"
test ! -e "$root/away" || { echo 'board: no answer' >&2; exit 9; }
case $verb in
push) cp -R "$1" "$root/files$2" ;;
pull) cp "$root/files$1" "$2" ;;
rm) rm -rf "$root/files$1" ;;
mkdir) mkdir -p "$root/files$1" ;;
run) cd "$root/files$1" && shift && exec env "$@" ;;
health | reset | stop) ;;
*) exit 2 ;;
esac
"""
# What programs of the board name is absolute there, so they are told where their directory is by their own path.
PROGRAM = '#!/bin/sh\necho "$1 $COLOUR" > result; cat "$(dirname "$0")/beside"\n'


def chosen(**more: Any) -> vendor.Settings:
    given = {"name": "board", "kind": "vendor", "run": ["env", "{program}", "{arguments}"], "minimum_free": "1MiB", **more}
    return vendor.Settings.model_validate_json(json.dumps(given), strict=True)


def device(place: Path, **more: Any) -> vendor.Vendor:
    return vendor.Vendor(chosen(**more), place / more.get("name", "board"), base.RunSettings())


def session(place: Path, **more: Any) -> AbstractAsyncContextManager[base.Session]:
    return device(place, **more).session()


def script(place: Path, name: str, text: str) -> str:
    path = place / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def board(place: Path) -> dict[str, Any]:
    """The keys of a device behind the board's tool."""
    (place / "files").mkdir()
    tool = [script(place, "loader", BOARD), str(place)]
    return {
        "push": [*tool, "push", "{source}", "{target}"],
        "pull": [*tool, "pull", "{source}", "{target}"],
        "remove": [*tool, "rm", "{target}"],
        "make": [*tool, "mkdir", "{target}"],
        "health": [*tool, "health"],
        "stop": [*tool, "stop"],
        "reset": [*tool, "reset"],
        "run": [*tool, "run", "{directory}", "{env}", f"{place}/files{{program}}", "{arguments}"],
        "directory": "/data/bench",
        "exit_codes": {"lost": [9]},
    }


def calls(place: Path) -> list[str]:
    return (place / "calls").read_text().splitlines()


def pushed(path: Path) -> base.Push:
    return base.Push(path, digests.of_tree(path) if path.is_dir() else digests.of_file(path), path.name)


async def ran(place: Path, *argv: str, shell: bool = False, timeout: float = 60.0, **more: Any) -> base.Completed:
    """What running this on a device of these keys comes to."""
    env = more.pop("program_env", {})
    async with session(place, **more) as opened:
        command = base.Command(argv, await opened.directory("work"), shell=shell, env=env, timeout=timeout)
        return await opened.run(command)


# ---- settings


FILES = "push: [t, '{source}', '{target}'], pull: [t, '{source}', '{target}'], remove: [t, '{target}']"


def test_the_kind_is_installed() -> None:
    assert plugins.load("devices", "vendor") is vendor.Vendor


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        (
            "run: [tool, '{progam}']",
            "run[1]",
            "no placeholder is called {progam}; known here: {program}, {arguments}, {command},",
        ),
        ("run: [tool, '{program}', '{arguments}', '{']", "run[3]", "a brace belongs to no placeholder"),
        ("run: [tool, '{program}', '{arguments!r}']", "run[2]", "a brace belongs to no placeholder"),
        ("run: [tool, '{program}', '{arguments}{env}']", "run[2]", "{arguments} and {env} each need an argument of their own"),
        ("run: [tool, '{program}']", "run", "must name {program} and {arguments}, or {command}"),
        ("run: []", "run", "expected a list of 1 or more"),
        ("run: tool", "run", "expected a list, found the text 'tool'; put brackets around it"),
        ("run: [t, '{command}'], health: [t, '{target}']", "health[1]", "no placeholder is called {target}"),
        ("run: [t, '{command}'], push: [t, '{source}', '{target}']", "", "push, pull and remove go together, but only push is"),
        (f"run: [t, '{{command}}'], {FILES}", "", "the key 'directory' must be an absolute path there"),
        (f"run: [t, '{{command}}'], {FILES}, directory: a", "", "must be an absolute path there"),
        ("run: [t, '{command}'], make: [t, '{target}']", "", "make is of a device with files of its own"),
        ("run: [t, '{command}'], push: [cp, '{source}']", "push", "must name {target}, so that the tool is told which file"),
        ("run: [t, '{command}'], pull: [t]", "pull", "must name {source} and {target}, so that"),
        ("run: [t, '{command}'], remove: [t]", "remove", "must name {target}, so that"),
        ("run: [t, '{command}', '{arguments}']", "run", "names {command}, which is program and arguments as one text, beside"),
        ("run: [t, '{command}'], cpus: [0, 1, 0]", "cpus", "CPU 0 is named twice; name each once"),
        ("run: [t, '{command}'], exit_codes: {lost: [2], failed: [2]}", "exit_codes", "2 is both failed and lost; remove one"),
        ("run: [t, '{command}'], exit_codes: {ok: [0]}", "exit_codes.ok[0]", "expected 1 or more"),
        ("run: [t, '{command}'], exit_codes: {okay: [1]}", "exit_codes.okay", "is no key here; did you mean 'ok'?"),
        ("run: [t, '{command}'], helth: [t]", "helth", "is no key here; did you mean 'health'?"),
        ("run: [t, '{command}'], metrics: [{pattern: '('}]", "metrics[0].pattern", "is no regular expression"),
        ("run: [t, '{command}'], metrics: [{pattern: 'a'}]", "metrics[0].pattern", "needs one group that is named value or text"),
        ("run: [t, '{command}'], metrics: [{pattern: '(?P<value>.)(?P<x>.)'}]", "metrics[0].pattern", "a group that is named x"),
        ("run: [t, '{command}'], metrics: [{pattern: '(?P<value>.)', type: A}]", "metrics[0]", "nothing says the metric"),
        (
            "run: [t, '{command}'], metrics: [{pattern: '(?P<type>.)(?P<value>.)', type: A, metric: b}]",
            "metrics[0]",
            "type is said twice",
        ),
    ],
)
def test_a_fault_names_file_line_and_key(tmp_path: Path, keys: str, key: str, words: str) -> None:
    path = tmp_path / "aibenchd.yaml"
    path.write_text(f"devices:\n- {{name: board, kind: vendor, {keys}}}\n")
    with pytest.raises(errors.InvalidFileError) as caught:
        settings.load(path)
    (fault,) = caught.value.faults
    assert (fault.file, fault.line) == (str(path), 2)
    assert fault.key == ".".join(filter(None, ["devices[0]", key]))
    assert words in fault.message


# ---- a tool on this host's files


async def test_arguments_stay_apart_and_nothing_goes_through_a_shell(tmp_path: Path) -> None:
    tool = script(tmp_path, "tool", '#!/bin/sh\nfor text; do echo "<$text>"; done\n')
    run = [tool, "-x={{{device}}}", "{program}", "--of={arguments}", "$HOME", "{timeout}", "-D{env}"]

    completed = await ran(tmp_path, "/bin/program", "a b", "$(id)", run=run, timeout=59.5, program_env={"A": "1", "B": "2 3"})

    assert completed.stdout.splitlines() == [
        "<-x={board}>",
        "</bin/program>",
        "<--of=a b>",
        "<--of=$(id)>",
        "<$HOME>",
        "<60>",
        "<-DA=1>",
        "<-DB=2 3>",
    ]
    as_one = await ran(tmp_path, "/bin/program", "a b", "$(id)", run=[tool, "{command}"])
    assert as_one.stdout == "</bin/program 'a b' '$(id)'>\n"


async def test_the_environment_goes_to_the_tool_unless_run_hands_it_on(tmp_path: Path) -> None:
    keys = {"env": {"OF": "device"}, "tool_env": {"LICENCE": "27000@here"}, "program_env": {"OF_PROGRAM": "yes"}}
    to_tool = await ran(tmp_path, "env", **keys)
    to_program = await ran(tmp_path, "env", run=["env", "-i", "{env}", "{program}", "{arguments}"], **keys)
    beside = await ran(tmp_path, "true", run=["sh", "-c", "env", "{env}", "{program}", "{arguments}"], **keys)

    assert {"OF=device", "OF_PROGRAM=yes", "LICENCE=27000@here"} <= set(to_tool.stdout.splitlines())
    assert to_program.stdout.splitlines() == ["OF=device", "OF_PROGRAM=yes"]
    assert "LICENCE=27000@here" in beside.stdout
    assert "OF_PROGRAM" not in beside.stdout


async def test_a_command_for_a_shell_needs_a_run_that_takes_one(tmp_path: Path) -> None:
    completed = await ran(tmp_path, "echo a | tr a b", shell=True, run=["sh", "-c", "{command}"])
    assert completed.stdout == "b\n"
    with pytest.raises(errors.CommandError, match=r"board: 'echo a \| tr a b' needs a shell, for which run has no place"):
        await ran(tmp_path, "echo a | tr a b", shell=True)


CODES = {"ok": [20], "failed": [21], "timed_out": [22], "lost": [23], "harness": [24]}


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (0, ""),
        (20, ""),
        (21, "exit code 21: words"),
        (22, "timed out after 0 s"),
        (3, "exit code 3: words\n[exit_codes says nothing of 3: it is taken for the program's own]"),
    ],
)
async def test_exit_codes_mean_what_the_configuration_says(tmp_path: Path, code: int, failure: str) -> None:
    completed = await ran(tmp_path, "sh", "-c", f"echo words >&2; exit {code}", exit_codes=CODES)
    assert completed.failure == failure
    assert math.isnan(completed.cpu_seconds)  # the tool's are not the program's
    assert math.isnan(completed.peak_bytes)


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (23, errors.DeviceLostError, "board: run says that the device is lost: exit code 23: words"),
        (24, errors.HarnessError, "board: run says that it is at fault itself: exit code 24: words"),
    ],
)
async def test_an_exit_code_may_blame_device_or_tool(tmp_path: Path, code: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        await ran(tmp_path, "sh", "-c", f"echo words >&2; exit {code}", exit_codes=CODES)


async def test_a_tool_that_dies_is_a_program_that_failed(tmp_path: Path) -> None:
    completed = await ran(tmp_path, "sh", "-c", "kill -11 $$")
    assert completed.failure == "killed by signal 11"


async def test_a_tool_that_is_not_there_is_a_lost_device(tmp_path: Path) -> None:
    with pytest.raises(errors.DeviceLostError, match=r"board: hexagon-sim cannot be found in /usr/local/bin:.*; install it, or"):
        await ran(tmp_path, "true", run=["hexagon-sim", "{program}", "{arguments}"])
    with pytest.raises(errors.DeviceLostError, match="board: hexagon-sim cannot be found"):
        await device(tmp_path, health=["hexagon-sim"]).reach()


async def test_a_tool_whose_whole_path_is_wrong_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for tool, words in (
        ("/no/such/tool", "board: /no/such/tool is not there, or is no file; correct the path"),
        (str(tmp_path), f"board: {tmp_path} is not there, or is no file"),
        (f"{tmp_path}/plain", rf"board: {tmp_path}/plain is there, and cannot be executed; .*'chmod a\+x {tmp_path}/plain'"),
    ):
        with pytest.raises(errors.DeviceLostError, match=words):
            await device(tmp_path, health=[tool]).reach()
    with pytest.raises(errors.DeviceLostError, match=f"{tmp_path}/plain is there, and cannot be executed"):
        await device(tmp_path, health=["plain"], tool_env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).reach()


async def test_a_limit_on_what_is_not_told_says_how_it_can_be(tmp_path: Path) -> None:
    limits, tells = {"min_battery": 50}, script(tmp_path, "tells", "#!/bin/sh\necho 'load: 1'\n")
    for verbs, words in (({}, "or add state, which prints it"), ({"state": [tells]}, "or have state print it")):
        with pytest.raises(errors.CommandError, match=rf"its battery; remove conditioning\.min_battery, {words}"):
            await device(tmp_path, conditioning=limits, **verbs).reach()


async def test_a_tool_that_is_removed_later_is_no_fault_of_the_program(tmp_path: Path) -> None:
    tool = script(tmp_path, "tool", '#!/bin/sh\nexec "$@"\n')
    async with session(tmp_path, run=[tool, "{program}", "{arguments}"]) as opened:
        work = await opened.directory("work")
        Path(tool).unlink()
        with pytest.raises(errors.DeviceLostError, match=r"board: run: .*tool is not there"):
            await opened.run(base.Command(("true",), work))
        with pytest.raises(errors.DeviceLostError, match=r"board: .*tool is not there"):
            await opened.health()


async def test_a_program_is_killed_with_its_children_at_its_timeout(tmp_path: Path) -> None:
    child = tmp_path / "board" / "work" / "work" / "child"
    for timeout in (0.5, 4, 32):  # until it is enough for it to begin
        with anyio.fail_after(60 + timeout):
            completed = await ran(tmp_path, "sh", "-c", "sleep 1000 & echo $! > child; wait", timeout=timeout)
        assert completed.ending is base.Ending.TIMED_OUT
        if child.exists() and child.read_text():
            break
    await launchers.until_gone(int(child.read_text()))


async def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    stop = script(tmp_path, "stop", f"#!/bin/sh\necho stopped >> {tmp_path}/stopped\n")
    async with session(tmp_path, stop=[stop]) as opened, anyio.create_task_group() as tasks:
        work = await opened.directory("work")
        tasks.start_soon(opened.run, base.Command(("sh", "-c", "setsid sleep 1000 & echo $! > child; wait"), work))
        child = int(await launchers.until_written(Path(work) / "child"))
        tasks.cancel_scope.cancel()

    await launchers.until_gone(child)
    assert (tmp_path / "stopped").read_text() == "stopped\n" * 2  # what an earlier session left, and this


async def test_output_is_bounded(tmp_path: Path) -> None:
    async with session(tmp_path) as opened:
        work = await opened.directory("work")
        completed = await opened.run(base.Command(("seq", "100000"), work, output_limit=1000))

    assert completed.stdout.startswith("1\n2\n")
    assert completed.stdout.endswith("\n100000\n")
    assert len(completed.stdout) < 1100


# ---- what the tool says


METRICS = [
    {"pattern": r"^(?P<type>\w+) took (?P<value>\S+) (?P<unit>\w+)$", "metric": "latency"},
    {"pattern": r"on (?P<text>\w+)$", "type": "NET", "metric": "backend"},
]


async def test_the_tools_own_text_becomes_observer_lines(tmp_path: Path) -> None:
    completed = await ran(tmp_path, "printf", "NET took 12.5 us\nrun on dsp\nconv took 7 us", metrics=METRICS)

    assert completed.stdout.splitlines() == [
        "NET took 12.5 us",
        "run on dsp",
        "conv took 7 us",
        'PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "value": "12.5"}',
        'PyTorchObserver {"type": "NET", "metric": "backend", "unit": "", "info_string": "dsp"}',
        'PyTorchObserver {"type": "conv", "metric": "latency", "unit": "us", "value": "7"}',
    ]
    assert completed.stderr == ""


async def test_garbage_is_said_to_be_it(tmp_path: Path) -> None:
    completed = await ran(tmp_path, "printf", "NET took long us\nNET took nan us\n\\377\\376{", metrics=METRICS)

    assert not completed.failure  # the framework finds no sample, and fails the trial
    assert [f"[{note}]" for note in completed.notes] == completed.stderr.splitlines()
    assert completed.stdout.count("PyTorchObserver") == 1  # who judges the trial must see that it is not finite
    assert completed.stderr.splitlines() == [
        r"[metrics: 'long' is no number, which the group value of '^(?P<type>\\w+) took (?P<value>\\S+) (?P<unit>\\w+)$' found]",
        r"[metrics: no row that was printed matches 'on (?P<text>\\w+)$']",
    ]


async def test_what_is_never_found_is_logged_once_also_beside_observer_lines(tmp_path: Path) -> None:
    observed = ("printf", 'PyTorchObserver {"type": "NET", "metric": "latency", "unit": "us", "value": "1"}')
    with structlog.testing.capture_logs() as logged:
        async with session(tmp_path, metrics=METRICS) as opened:
            work = await opened.directory("work")
            for _ in range(2):
                completed = await opened.run(base.Command(observed, work))
                assert completed.stderr.count("no row that was printed matches") == 2
            await opened.run(base.Command(("printf", "NET took 12.5 us\nrun on dsp"), work))

    said = [line["reason"] for line in logged if line["log_level"] == "warning"]
    assert said == [f"metrics: no row that was printed matches {metric['pattern']!r}" for metric in METRICS]


async def test_many_samples_are_read_and_too_many_are_left_out(tmp_path: Path) -> None:
    completed = await ran(tmp_path, "sh", "-c", "yes 'NET took 1 us' | head -n 100001", metrics=METRICS[:1])

    assert completed.stdout.count("PyTorchObserver") == 100_000
    assert completed.stderr == "[more than 100000 samples were printed; the others are left out]"


@pytest.mark.parametrize("text", ['{"model": "V68", "cores": 4}', "Simulator 2.1\nmodel: V68\n  cores : 4\n\n"])
async def test_a_fingerprint_is_rows_or_json_beside_what_the_host_is(tmp_path: Path, text: str) -> None:
    async with session(tmp_path, fingerprint=["printf", text.replace("{", "{{").replace("}", "}}")]) as opened:
        found = await opened.fingerprint()

    assert (found["model"], found["cores"]) == ("V68", "4")
    assert found["kernel"] == os.uname().release


async def test_state_is_what_the_tool_says_now(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("temperature: 41.5\nthrottled:\n")
    async with session(tmp_path, state=["cat", str(tmp_path / "state")]) as opened:
        found = await opened.state()
        assert (found["temperature"], found["throttled"]) == ("41.5", "")
        assert float(found["load"]) >= 0  # the host's
    async with session(tmp_path, **board(tmp_path), state=["cat", str(tmp_path / "state")]) as opened:
        assert await opened.state() == {"temperature": "41.5", "throttled": ""}
        assert await opened.fingerprint() == {}
        assert await opened.changes(base.Conditioning()) == ()
        with pytest.raises(errors.CommandError, match="the frequency of this kind of device cannot be set"):
            await opened.changes(base.Conditioning(governor="performance"))


@pytest.mark.parametrize("text", ["", "no colon", "{broken", "[1]"])
async def test_a_fingerprint_of_garbage_is_a_lost_device(tmp_path: Path, text: str) -> None:
    async with session(tmp_path, fingerprint=["printf", "%s", text.replace("{", "{{")]) as opened:
        with pytest.raises(
            errors.DeviceLostError, match="board: fingerprint: expected rows 'name: value' or a JSON object, found"
        ):
            await opened.fingerprint()


# ---- health and reset


async def test_health_is_the_exit_code(tmp_path: Path) -> None:
    async with session(tmp_path, health=["test", "!", "-e", f"{tmp_path}/away"]) as opened:
        await opened.health()
        (tmp_path / "away").touch()
        with pytest.raises(errors.DeviceLostError, match=r"board: health: test '!' -e .*away: exit code 1"):
            await opened.health()
    with pytest.raises(errors.DeviceLostError, match="board: health:"):
        await device(tmp_path, health=["test", "!", "-e", f"{tmp_path}/away"]).reach()


async def test_a_tool_that_hangs_is_a_lost_device(tmp_path: Path) -> None:
    with pytest.raises(errors.DeviceLostError, match=r"board: health: sleep 1000: it hangs: killed after 0.2 s \(timeouts\)"):
        async with session(tmp_path, health=["sleep", "1000"], timeouts={"health": "200ms"}):
            pass


async def test_reset_waits_until_the_device_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "PROBE_SECONDS", 0.05)
    (tmp_path / "up").touch()
    keys = {"reset": ["sh", "-c", f"rm {tmp_path}/up; cp /dev/null {tmp_path}/down"], "health": ["test", "-e", f"{tmp_path}/up"]}
    async with session(tmp_path, **keys) as opened, anyio.create_task_group() as tasks:
        tasks.start_soon(comes_up, tmp_path)
        await opened.reboot()
        assert (tmp_path / "up").exists()


async def comes_up(place: Path) -> None:
    """A board that is up again some time after it went down."""
    while not (place / "down").exists():
        await anyio.sleep(0.01)
    await anyio.sleep(0.2)
    (place / "up").touch()


async def test_a_device_that_stays_down_is_lost(tmp_path: Path) -> None:
    async with session(tmp_path, reset=["true"]) as opened:
        await opened.reboot()
    (tmp_path / "up").touch()
    keys = {"reset": ["rm", f"{tmp_path}/up"], "health": ["test", "-e", f"{tmp_path}/up"], "timeouts": {"reset": "300ms"}}
    async with session(tmp_path, **keys) as opened:
        with pytest.raises(errors.DeviceLostError, match=r"board: not healthy 0.3 s after reset"):
            await opened.reboot()


async def test_without_reset_a_device_cannot_be_rebooted(tmp_path: Path) -> None:
    async with session(tmp_path) as opened:
        with pytest.raises(errors.CommandError, match="this kind of device cannot be rebooted"):
            await opened.reboot()


# ---- a device with files of its own


async def test_a_program_goes_to_the_device_and_its_result_comes_back(tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    script(build, "program", PROGRAM)
    (build / "beside").write_text("beside\n")
    async with session(tmp_path, **board(tmp_path)) as opened:
        directory = await opened.push(pushed(build))
        assert directory == await opened.push(pushed(build))
        work = await opened.directory("work")
        completed = await opened.run(base.Command((str(directory / "program"), "a b"), work, env={"COLOUR": "light blue"}))
        await opened.pull(work / "result", tmp_path / "result")
        await opened.remove(work / "result")
        again = await opened.directory("work")

    assert directory == PurePosixPath("/data/bench/programs") / pushed(build).digest[:32] / "build"
    assert work == again == PurePosixPath("/data/bench/work/work")
    assert (completed.code, completed.stdout) == (0, "beside\n")
    assert (tmp_path / "result").read_text() == "a b light blue\n"
    assert list((tmp_path / "files/data/bench/work/work").iterdir()) == []
    assert sum(call.startswith("push ") for call in calls(tmp_path)) == 1


async def test_a_session_begins_with_an_empty_device_and_pushes_again(tmp_path: Path) -> None:
    keys = board(tmp_path)
    (tmp_path / "data").write_text("data")
    async with session(tmp_path, **keys) as opened:
        first = await opened.push(pushed(tmp_path / "data"))
        await opened.directory("left")
    async with session(tmp_path, **keys) as opened:
        assert not (tmp_path / f"files{first}").exists()
        assert not (tmp_path / "files/data/bench/work/left").exists()
        assert await opened.push(pushed(tmp_path / "data")) == first
        await opened.reboot()
        assert await opened.push(pushed(tmp_path / "data")) == first
    assert sum(call.startswith("push ") for call in calls(tmp_path)) == 3


async def test_what_is_outside_is_neither_pulled_nor_removed(tmp_path: Path) -> None:
    async with session(tmp_path, **board(tmp_path)) as opened:
        for path in ("/etc/passwd", "/data/bench", "/data/bench/../x", "/"):
            with pytest.raises(errors.CommandError, match="not inside /data/bench"):
                await opened.pull(PurePosixPath(path), tmp_path / "pulled")
            with pytest.raises(errors.CommandError, match="not inside /data/bench"):
                await opened.remove(PurePosixPath(path))


async def test_a_file_that_is_not_there_is_the_programs_fault(tmp_path: Path) -> None:
    async with session(tmp_path, **board(tmp_path)) as opened:
        with pytest.raises(errors.CommandError, match=r"board: pull: .*/none .*: exit code 1: cp: cannot stat"):
            await opened.pull(PurePosixPath("/data/bench/none"), tmp_path / "pulled")


async def test_a_pull_that_brings_nothing_is_told(tmp_path: Path) -> None:
    async with session(tmp_path, **(board(tmp_path) | {"pull": ["true", "{source}", "{target}"]})) as opened:
        with pytest.raises(errors.CommandError, match="has not written it"):
            await opened.pull(PurePosixPath("/data/bench/none"), tmp_path / "pulled")


async def test_a_device_that_goes_away_is_lost_whatever_is_asked(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    async with session(tmp_path, **board(tmp_path)) as opened:
        work = await opened.directory("work")
        (tmp_path / "away").touch()
        for asked in (
            opened.push(pushed(tmp_path / "data")),
            opened.directory("work"),
            opened.run(base.Command(("true",), work)),
            opened.pull(work / "result", tmp_path / "pulled"),
            opened.remove(work / "result"),
            opened.health(),
            opened.reboot(),
        ):
            with pytest.raises(errors.DeviceLostError, match=r"board: .*: exit code 9: board: no answer"):
                await asked


async def test_a_push_that_fails_is_the_harness_fault(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    async with session(tmp_path, **(board(tmp_path) | {"push": ["false", "{source}", "{target}"]})) as opened:
        with pytest.raises(errors.HarnessError, match=r"board: push: false .*data .*data: exit code 1"):
            await opened.push(pushed(tmp_path / "data"))


async def test_a_device_that_is_full_begins_anew(tmp_path: Path) -> None:
    keys = board(tmp_path) | {"store_size": "10kB"}
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    async with session(tmp_path, **keys) as opened:
        await opened.push(pushed(tmp_path / "first"))
        with pytest.raises(errors.DeviceLostError, match=r"has reached store_size .*emptied, and what is needed pushed again"):
            await opened.push(pushed(tmp_path / "second"))
    async with session(tmp_path, **keys) as opened:
        await opened.push(pushed(tmp_path / "second"))


async def test_the_program_is_ended_where_its_tool_was_killed(tmp_path: Path) -> None:
    async with session(tmp_path, **(board(tmp_path) | {"run": ["sh", "-c", "sleep 1000", "{command}"]})) as opened:
        before = calls(tmp_path).count("stop ")
        work = await opened.directory("work")
        completed = await opened.run(base.Command(("program",), work, timeout=0.2))

    assert completed.ending is base.Ending.TIMED_OUT
    assert calls(tmp_path).count("stop ") == before + 1


# ---- a lock


@contextlib.asynccontextmanager
async def siblings(place: Path, *names: str, **more: Any) -> AsyncIterator[list[tuple[vendor.Vendor, base.Session]]]:
    """Devices with one lock, each with its session."""
    async with contextlib.AsyncExitStack() as stack:
        made = [device(place, name=name, lock="accelerator", **more) for name in names]
        yield [(one, await stack.enter_async_context(one.session())) for one in made]


async def test_devices_of_one_lock_never_work_at_the_same_time(tmp_path: Path) -> None:
    """mkdir fails where another's directory is there: a program that meets another says so."""
    program = ("sh", "-c", f"mkdir {tmp_path}/in_use && sleep 0.05 && rmdir {tmp_path}/in_use")
    failures: list[str] = []

    async def work(opened: base.Session) -> None:
        directory = await opened.directory("work")
        failures.extend([(await opened.run(base.Command(program, directory))).failure for _ in range(5)])

    async with siblings(tmp_path, "a", "b", "c") as made, anyio.create_task_group() as tasks:
        for _, opened in made:
            tasks.start_soon(work, opened)

    assert failures == [""] * 15


async def test_a_turn_is_held_for_a_block_and_health_asks_nothing_meanwhile(tmp_path: Path) -> None:
    asked = script(tmp_path, "asked", f"#!/bin/sh\necho >> {tmp_path}/asked.log\n")
    async with siblings(tmp_path, "a", "b", health=[asked]) as ((first, one), (second, other)):
        before = (tmp_path / "asked.log").read_text()
        turns: list[str] = []
        taken, asked_too = anyio.Event(), anyio.Event()

        async def take_a_turn() -> None:
            await taken.wait()
            await other.health()
            asked_too.set()
            turns.append("asked")
            async with second.turn():
                turns.append("had")
                await other.health()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_a_turn)
            async with first.turn():
                taken.set()
                await asked_too.wait()
                assert not (await one.run(base.Command(("true",), await one.directory("work")))).failure
                await one.health()
                assert turns == ["asked"]
                assert (tmp_path / "asked.log").read_text() == before + "\n"  # by the one whose turn it is
    assert turns == ["asked", "had"]
    assert (tmp_path / "asked.log").read_text() == before + "\n\n"


async def test_a_session_that_waits_for_anothers_block_can_be_cancelled(tmp_path: Path) -> None:
    opening = anyio.CancelScope()
    taken, ended = anyio.Event(), anyio.Event()
    waiting = device(tmp_path, name="b", lock="accelerator", stop=["true"])

    async def open_and_wait() -> None:
        await taken.wait()
        with opening:
            async with waiting.session():
                pass
        ended.set()

    async with siblings(tmp_path, "a") as ((first, _),), anyio.create_task_group() as tasks:
        tasks.start_soon(open_and_wait)  # before the turn is taken, which its tasks would have too
        async with first.turn():
            taken.set()
            with anyio.fail_after(60):
                while not (tmp_path / "b/work/tool").is_dir():  # made right before the tool is asked for the first time
                    await anyio.sleep(0.01)
            await anyio.sleep(0.1)
            opening.cancel()
            with anyio.move_on_after(10):
                await ended.wait()
            cancelled = ended.is_set()
    assert cancelled


async def test_files_that_are_pushed_are_not_writable(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    async with session(tmp_path) as opened:
        path = Path(await opened.push(pushed(tmp_path / "data")))
    assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
