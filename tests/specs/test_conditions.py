from __future__ import annotations

from typing import Any

import pytest

from aibenchd import errors, model, statistics
from aibenchd.specs import conditions


def of(test: dict[str, Any] | None = None, whole: dict[str, Any] | None = None, **run: Any) -> conditions.Conditions:
    benchmark = model.Benchmark(
        {"name": "net", **(whole or {})}, {"identifier": "i", "metric": "delay", "commands": ["x"], **(test or {})}, "f.json"
    )
    return conditions.of(benchmark, **{"timeout": 100.0, **run})


def test_what_holds_where_nothing_is_said() -> None:
    found = of()
    assert (found.iterations, found.repeat, found.timeout, found.cooldown, found.sleep_before_run) == (-1, 1, 100.0, 0.0, 0.0)
    assert (found.env, found.cpus, found.log_output, found.statistics) == ({}, (), False, statistics.DEFAULT)
    assert found.threads == {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def test_the_test_wins_over_the_model_and_that_over_the_run() -> None:
    assert of(timeout=3.0).timeout == 3.0
    assert of(whole={"timeout": 2}).timeout == 2.0
    assert of({"timeout": 1}, {"timeout": 2}).timeout == 1.0
    assert of({"log_output": False}, {"log_output": True}).log_output is False
    found = of({"env": {"A": "test"}}, {"env": {"A": "model", "B": 2}}, env={"A": "run", "B": "run", "C": "run"})
    assert found.env == {"A": "test", "B": "2", "C": "run"}


def test_platform_arguments_of_the_test_replace_those_of_the_model() -> None:
    found = of({"platform_args": {"taskset": "c"}}, {"platform_args": {"taskset": "f0", "sleep_before_run": 20}})
    assert (found.cpus, found.sleep_before_run) == ((2, 3), 0.0)
    assert of(whole={"platform_args": {"env": {"A": "1"}, "sleep_before_run": 20}}).sleep_before_run == 20.0


def test_threads_are_one_unless_somebody_says_otherwise() -> None:
    assert of({"MKL_NUM_THREADS": 4, "OMP_NUM_THREADS": 0}).threads == {"MKL_NUM_THREADS": "4"}
    assert of(env={"OMP_NUM_THREADS": "2"}).threads == {"MKL_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("given", "cpus"),
    [({"cpu-list": 3}, (3,)), ({"cpu-list": "0,4-6"}, (0, 4, 5, 6)), ({"cpu-list": -1}, ()), ({"cpu-list": "0"}, (0,))],
)
def test_a_list_of_cpus(given: dict[str, Any], cpus: tuple[int, ...]) -> None:
    assert of({"platform_args": {"taskset": "1"}, **given}).cpus == cpus


@pytest.mark.parametrize(("mask", "cpus"), [("c", (2, 3)), ("0x3", (0, 1)), ("f0", (4, 5, 6, 7)), ("3", (0, 1)), ("0", ())])
def test_a_mask_of_cpus(mask: str, cpus: tuple[int, ...]) -> None:
    assert conditions.cpus_of_mask(mask) == cpus


def test_what_is_not_valid_says_where() -> None:
    with pytest.raises(errors.CommandError, match=r"f\.json: i: iter: "):
        of({"iter": "many"})
