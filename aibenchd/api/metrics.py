"""Prometheus' text format, version 0.0.4, written by hand.

prometheus_client keeps counters of its own, which the journal already has, and takes as long to import as a tenth of the
daemon's start. Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aibenchd import board
from aibenchd.store import outbox, paging, views

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``samples`` are pairs of labels and value."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def text(
    counts: views.Counts, queues: Mapping[str, paging.Item], depths: Sequence[outbox.Depth], notices: Sequence[board.Notice]
) -> str:
    """All metrics of the daemon."""
    return render((*_journal(counts), _queued(queues, notices), *_outbox(depths), *_board(notices), *_process()))


def render(families: Iterable[Family]) -> str:
    """Metrics as the text that Prometheus reads."""
    return "".join(line + "\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.help)}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        pairs = ",".join(f'{name}="{_escaped(label, quoted=True)}"' for name, label in labels.items())
        yield f"{family.name}{{{pairs}}} {value!r}" if pairs else f"{family.name} {value!r}"


def _escaped(value: str, *, quoted: bool = False) -> str:
    value = value.replace("\\", r"\\").replace("\n", r"\n")
    return value.replace('"', r"\"") if quoted else value


def _journal(counts: views.Counts) -> Iterator[Family]:
    yield Family(
        "aibenchd_experiments",
        "gauge",
        "Experiments in the journal.",
        [
            ({"device": device, "state": state, "verdict": verdict}, count)
            for (device, state, verdict), count in sorted(counts.experiments.items())
        ],
    )
    yield _counted("aibenchd_blocks_total", "counter", "Blocks journalled.", "state", counts.blocks)
    yield _counted("aibenchd_trials_total", "counter", "Trials journalled.", "outcome", counts.trials)
    yield _counted("aibenchd_builds", "gauge", "Builds in the journal.", "state", counts.builds)
    yield Family(
        "aibenchd_findings",
        "gauge",
        "What regressed or broke; open ones of which nothing was made wait for a person.",
        [({"state": state, "triage": made}, count) for (state, made), count in sorted(counts.findings.items())],
    )


def _queued(queues: Mapping[str, paging.Item], notices: Sequence[board.Notice]) -> Family:
    """Of each device that there is, or had something to do: 0 where it has nothing."""
    devices = (name for kind, _, name in (one.unit.partition("/") for one in notices) if kind == "device")
    seconds = dict.fromkeys(devices, 0) | {name: one["seconds"] for name, one in queues.items()}
    return Family(
        "aibenchd_queue_seconds",
        "gauge",
        "Device time that undecided experiments are expected to take, of those of which that is known.",
        [({"device": device}, left) for device, left in sorted(seconds.items())],
    )


def _outbox(depths: Sequence[outbox.Depth]) -> Iterator[Family]:
    labelled = [({"sink": depth.sink, "kind": depth.kind, "state": depth.state}, depth) for depth in depths]
    yield Family(
        "aibenchd_outbox_records",
        "gauge",
        "Records on their way to sinks; those that are dead were refused.",
        [(labels, depth.records) for labels, depth in labelled],
    )
    yield Family(
        "aibenchd_outbox_bytes", "gauge", "Payload of these records.", [(labels, depth.bytes) for labels, depth in labelled]
    )


def _board(notices: Sequence[board.Notice]) -> Iterator[Family]:
    named = [(notice, *notice.unit.partition("/")[::2]) for notice in notices]
    yield Family(
        "aibenchd_unit_state",
        "gauge",
        "1 for the state that a repository, device, sink, … is in.",
        [({"kind": kind, "name": name, "state": notice.state}, 1) for notice, kind, name in named],
    )
    yield Family(
        "aibenchd_unit_fault",
        "gauge",
        "Whether a person should look at a unit.",
        [({"kind": kind, "name": name}, int(notice.fault)) for notice, kind, name in named],
    )


def _process() -> Iterator[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    started = time.time() - _age()
    yield _one("process_cpu_seconds_total", "counter", "User and system time of the daemon.", usage.ru_utime + usage.ru_stime)
    yield _one("process_resident_memory_bytes", "gauge", "Memory of the daemon.", pages * resource.getpagesize())
    yield _one("process_open_fds", "gauge", "Open file descriptors.", sum(1 for _ in Path("/proc/self/fd").iterdir()))
    yield _one("process_start_time_seconds", "gauge", "When the daemon started, since 1970.", started)


def _age() -> float:
    # Field 22 of proc(5)'s stat, counted behind the name in parentheses, which may hold anything.
    since_boot = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(since_boot) / os.sysconf("SC_CLK_TCK")


def _counted(name: str, kind: str, about: str, label: str, counts: Mapping[str, int]) -> Family:
    return Family(name, kind, about, [({label: value}, count) for value, count in sorted(counts.items())])


def _one(name: str, kind: str, about: str, value: float) -> Family:
    return Family(name, kind, about, [({}, value)])
