"""Under which conditions a benchmark runs: what its test, its model and the run say, in that precedence. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aibenchd import model
from aibenchd.specs import schema

HOSTS = ("host", "linux", "mac", "windows")  # platforms whose programs are told how many threads to run


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a trial has to heed.

    Attributes:
        iterations: samples of ``NET`` wanted; the program is run again until there are as many. -1: what one run gives.
        repeat: how often the commands are run in a trial, with ``{INDEX}`` from 0.
        timeout: seconds, of one trial.
        env: added to the program's environment.
        threads: ``MKL_NUM_THREADS`` and ``OMP_NUM_THREADS``, for programs on a host; not those that ``env`` sets.
        cpus: that the benchmark asks for; empty: those of the device.
        cooldown: seconds, before a trial.
        sleep_before_run: seconds, before each command.
        log_output: keep what the program prints, also where it succeeds.
        statistics: names for :func:`aibenchd.statistics.summary`.
        platform_args: the test's, else the model's.
    """

    iterations: int
    repeat: int
    timeout: float
    env: Mapping[str, str]
    threads: Mapping[str, str]
    cpus: tuple[int, ...]
    cooldown: float
    sleep_before_run: float
    log_output: bool
    statistics: tuple[str, ...]
    platform_args: schema.PlatformArgs

    def with_env(self, more: Mapping[str, str]) -> Conditions:
        """The same, with more variables."""
        return dataclasses.replace(self, env={**self.env, **more})


def of(benchmark: model.Benchmark, *, timeout: float, env: Mapping[str, str] | None = None) -> Conditions:
    """The conditions of one benchmark.

    Args:
        timeout: the run's own, in seconds, where neither test nor model gives one.
        env: the run's own; each variable gives way to the platform arguments', the model's and the test's.

    Raises:
        CommandError: the benchmark is not valid by its schema.
    """
    test, whole = schema.typed(benchmark, schema.UNPINNED)  # digests are the model cache's affair
    arguments = test.platform_args or whole.platform_args
    environment = {**(env or {}), **arguments.env, **whole.env, **test.env}
    log_output = next((given for given in (test.log_output, whole.log_output) if given is not None), arguments.log_output)
    return Conditions(
        iterations=test.iter,
        repeat=whole.repeat,
        timeout=test.timeout or whole.timeout or timeout,
        env=environment,
        threads={name: count for name, count in _threads(test) if name not in environment},
        cpus=_cpus(test, arguments),
        cooldown=whole.cooldown,
        sleep_before_run=arguments.sleep_before_run,
        log_output=log_output,
        statistics=test.statistics,
        platform_args=arguments,
    )


def _threads(test: schema.Test) -> Iterator[tuple[str, str]]:
    """One thread where the test says nothing; no limit where it says 0 or less."""
    for name, count in (("MKL_NUM_THREADS", test.mkl_threads), ("OMP_NUM_THREADS", test.omp_threads)):
        if count is None or count > 0:
            yield name, str(count or 1)


def _cpus(test: schema.Test, arguments: schema.PlatformArgs) -> tuple[int, ...]:
    if test.cpu_list is not None:
        return cpus_of_list(test.cpu_list)
    return cpus_of_mask(arguments.taskset) if arguments.taskset else ()


def cpus_of_mask(mask: str) -> tuple[int, ...]:
    """``"c"``, a hexadecimal mask as ``taskset`` takes it, as ``(2, 3)``."""
    bits = int(mask, 16)
    return tuple(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def cpus_of_list(text: str) -> tuple[int, ...]:
    """``"0,4-6"`` as ``(0, 4, 5, 6)``; empty where it is negative, FAI-PEP's word for no choice."""
    if text.startswith("-"):
        return ()
    ranges = (part.partition("-") for part in text.split(","))
    return tuple(sorted({cpu for low, _, high in ranges for cpu in range(int(low), int(high or low) + 1)}))
