"""How a command is run, and how what it printed is judged."""

import pytest

from aibenchd import errors, model
from aibenchd.devices import base
from aibenchd.frameworks import base as frameworks
from aibenchd.frameworks import generic, glow
from aibenchd.measure import trial


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/p/bench --iter 5", ("/p/bench", "--iter", "5")),
        ('/p/bench --shape="1,3,224,224"', ("/p/bench", "--shape=1,3,224,224")),
        ("'/with space/bench' a", ("/with space/bench", "a")),
    ],
)
def test_a_plain_command_needs_no_shell(command: str, argv: tuple[str, ...]) -> None:
    assert trial.words(command) == (argv, False)


@pytest.mark.parametrize(
    "command",
    [
        "/p/bench | awk '{print $1}'",
        "/p/bench > out.txt",
        "THREADS=2 /p/bench",
        "cd x && /p/bench",
        "/p/bench *.pb",
        "/p/bench ~/model",
        "/p/bench 'unbalanced",
        "echo `date`",
        "",
        "/p/a; /p/b",
        "/p/bench\n/p/other",
    ],
)
def test_what_only_a_shell_can_run_is_left_to_it(command: str) -> None:
    assert trial.words(command) == ((command,), True)


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/p/app --dims '1,3;1,10' --what \"$(reboot) 'a b'\"", ("/p/app", "--dims", "1,3;1,10", "--what", "$(reboot) 'a b'")),
        ("/p/app --empty '' --mark '#' --home ~/x", ("/p/app", "--empty", "", "--mark", "#", "--home", "~/x")),
    ],
)
def test_what_is_quoted_is_handed_to_an_app_as_it_is(command: str, argv: tuple[str, ...]) -> None:
    assert trial.app_words(command) == (argv, False)


@pytest.mark.parametrize(
    "command",
    [
        "/p/app --a 1 > out.txt",
        "cd x && /p/app",
        "/p/app | cat",
        "/p/app --a 1;2",
        "A=1 /p/app",
        "/p/app $(date)",
        "/p/app 'x",
        "",
    ],
)
def test_what_only_a_shell_can_make_of_an_apps_command_is_left_to_it(command: str) -> None:
    assert trial.app_words(command) == ((command,), True)


def test_the_network_is_decided_on_before_any_operator() -> None:
    operator = model.Series("ID_0_Conv", "latency", "us", (1.0,))
    network = model.Series("NET", "latency", "us", (2.0,))
    assert model.decisive([operator, network]) is network
    assert model.decisive([model.Series("NET", "backend", text="mkl"), operator]) is operator
    assert model.decisive([]) is None


def test_a_program_that_sums_its_runs_up_is_not_run_again_for_each() -> None:
    latency, runs = model.Series("NET", "latency", "us", (8.0,)), model.Series("NET", "runs", "", (50.0,))
    operator = model.Series("ID_0_Conv", "latency", "us", (1.0,) * 9)
    assert trial._count({one.key: one for one in (latency, operator)}) == 1
    assert trial._count({one.key: one for one in (latency, runs, operator)}) == 50
    assert trial._count({operator.key: operator}) == 9


def test_what_could_not_be_read_says_what_the_device_has_to_say_of_it() -> None:
    notes = ("metrics: no row that was printed matches 'took'",)
    ran = [base.Completed(base.Ending.EXITED, 0, "", "", 1.0, notes=notes)] * 2
    empty = trial._emptiness({}, model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "delay"}))
    assert trial._explained(empty, ran, generic.Generic.line) == f"the program printed no sample that could be read; {notes[0]}"
    assert trial._explained("", ran, generic.Generic.line) == ""


def test_what_could_not_be_read_shows_a_line_that_can_be() -> None:
    benchmark = model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "delay"})
    said = trial._explained(trial._emptiness({}, benchmark), [], generic.Generic.line)
    head, _, line = said.partition("; expected a line such as ")
    assert head == "the program printed no sample that could be read"
    assert [(one.key, one.values) for one in generic.Generic().parse(line, benchmark).series] == [(model.NETWORK, (812.0, 809.5))]


@pytest.mark.parametrize("watts", [(), (0.0,)])
def test_a_meter_that_has_not_moved_is_no_fault_of_the_arms(watts: tuple[float, ...]) -> None:
    benchmark = model.Benchmark({"name": "net"}, {"identifier": "net_power", "metric": "power"})
    measured = {"NET power": model.Series("NET", "power", "W", watts)} if watts else {}
    for latency in ({}, {"NET latency": model.Series("NET", "latency", "us", (8.0,))}):
        with pytest.raises(errors.CommandError, match="have the program run for longer"):
            trial._emptiness({**latency, **measured}, benchmark)
    assert trial._emptiness({"NET power": model.Series("NET", "power", "W", (2.0,))}, benchmark) == ""


@pytest.mark.parametrize(
    ("framework", "asked", "stated", "reason"),
    [
        (generic.Generic(), "", "", ""),
        (generic.Generic(), "cuda", "cuda", ""),
        (generic.Generic(), "cuda", "cpu", "asked for the backend cuda, but cpu executed"),
        (generic.Generic(), "cuda", "", "the program does not say which one executed (expected: a row NET backend)"),
        (glow.Glow(), "cpu", "", f"the program does not say which one executed (expected: {glow.Glow.backends['cpu']})"),
    ],
)
def test_a_backend_that_was_asked_for_is_proven_or_the_trial_failed(
    framework: frameworks.Framework, asked: str, stated: str, reason: str
) -> None:
    benchmark = model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "delay"})
    found = trial._mismatch(model.Variant(benchmark, framework.name, asked), framework, stated)
    assert found.endswith(reason)
    assert bool(found) is bool(reason)
