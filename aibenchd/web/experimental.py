"""One experiment as its page shows it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from aibenchd import model
from aibenchd.api import experiments, screen
from aibenchd.store import paging, schema
from aibenchd.web import charts

WHOLE = (schema.MAIN_SERIES, "PROCESS", "ARMS", schema.OUTPUT_SERIES.strip())  # how types begin that are of no operator
OPERATORS = 60  # that are listed, those that change most


def shown(item: paging.Item, samples: Mapping[str, Sequence[float]]) -> paging.Item:
    """What is made of an experiment, for its template."""
    if item["run_type"] == model.RunType.PROFILE:
        return _profiled(item)
    unit = charts.unit_of(item["results"])
    bulk = charts.BULK_OF_TAIL if _of_tail(item) else charts.BULK
    whole = sorted((one for one in item["results"] if one["type"].split(" ")[0] in WHOLE), key=_rank)
    operators = [result for result in item["results"] if result["type"].split(" ")[0] not in WHOLE]
    operators.sort(key=_weight, reverse=True)
    blocks = item["blocks"]
    tails = experiments.tails_of(item)
    numbers = ("treatment", "control", *tails.values())
    said, shown_unit = charts.aligned([block[number] for block in blocks for number in numbers], unit)
    for place, block in enumerate(blocks):
        block["trials_run"] = len(block["trials"])
        block["said"] = dict(zip(numbers, said[place * len(numbers) :], strict=False))
    return {
        "shown_unit": shown_unit,
        "tails": bool(tails),
        "profiled": "",
        "network": [_row(result) for result in whole],
        "operators": [_row(result) for result in operators[:OPERATORS]],
        "left_out": max(0, len(operators) - OPERATORS),
        "command": command(item),
        "charts": {
            "interval": charts.interval(item["blocks"], item["design"].get("rule", {}).get("min_effect")),
            "processes": charts.processes(item["blocks"], unit),
            "tails": charts.tails(item["blocks"], unit) if tails else None,
            "distribution": charts.distribution(samples, unit, bulk),
        },
    }


def _profiled(item: paging.Item) -> paging.Item:
    """What ran under a profiler: how its trials ended, and no number that could be taken for the benchmark's."""
    for block in item["blocks"]:
        block |= {"trials_run": len(block["trials"]), "said": dict.fromkeys(("treatment", "control"), ""), "estimate": None}
    return {
        "shown_unit": "",
        "tails": False,
        "profiled": experiments.UNDER_PROFILER,
        "network": [],
        "operators": [],
        "left_out": 0,
        "command": command(item),
        "charts": dict.fromkeys(("interval", "processes", "tails", "distribution")),
    }


def _of_tail(item: paging.Item) -> bool:
    """Whether an experiment's verdict is of the slow iterations: these alone regressed, or a finding of these is looked into."""
    summary: Mapping[str, Any] = item["design"].get("summary") or {}
    return bool(item["in_tail"] or summary.get("low", 0.0) >= model.TAIL)


def command(item: paging.Item) -> str:
    """What has it measured again; of two cells, and of what was submitted, that page's own way."""
    if item["run_type"] == model.RunType.COMPARE:
        return f"aibenchctl request {item['request']}    # the two cells that it compares"
    if item["run_type"] == model.RunType.SUBMISSION:
        return f"aibenchctl request {item['request']}    # the programs that were sent"
    return "\n".join([again(item), *_by_its_backend(item)])


def again(item: paging.Item) -> str:
    """What has the revisions of an experiment or a finding measured again, on its device."""
    where = {"repository": item["repository"], "benchmark": item["benchmark"], "device": item["device"]}
    options = [word for name, value in where.items() for word in (f"--{name}", value)]
    words = shlex.join(["aibenchctl", "ab", *filter(None, (item["treatment"], item["control"])), *options, "--wait"])
    backend = screen.printable(item["backend"])  # in one row, for what follows a comment's row is obeyed
    return f"{words}    # with each backend that is asked for there; this was {backend}" if backend else words


def _by_its_backend(item: paging.Item) -> Sequence[str]:
    """What measures an experiment's revisions with its backend alone, without the daemon, where a command line can say it all."""
    design: Mapping[str, Any] = item.get("design") or {}
    source = design.get("benchmark", {}).get("source")
    if not item["backend"] or not source or design.get("layout") or design.get("profiled"):
        return ()
    arms = [word for arm in ("treatment", "control") if item[arm] for word in (f"--{arm}", item[arm])]
    env = [f"{name}={value}" for name, value in (design.get("env") or {}).items()]
    given = [*(("--env", *env) if env else ()), *((f"--command-args={text}",) if (text := design.get("command_args")) else ())]
    of = ["-b", source, "--framework", design["framework"], "--backend", item["backend"], *given]
    backend, repository = screen.printable(item["backend"]), item["repository"]
    said = f"# with {backend} alone, all tests of the file; REPOSITORY: a clone or the URL of {repository}"
    words = ["aibenchd", "bench", "--repo", "REPOSITORY", *arms, *of, "--config", "CONFIGURATION", "--devices", item["device"]]
    return (f"{said}, CONFIGURATION: the daemon's file", shlex.join(words))


def _row(result: Mapping[str, Any]) -> paging.Item:
    """A series in both arms, and by how much the one differs from the other."""
    treatment, control = (_median(result[arm]) for arm in ("treatment", "control"))
    comparable = treatment is not None and control
    return {
        "name": result["type"],
        "metric": result["metric"],
        "treatment": _said(treatment, result["unit"]) or result["text"],
        "control": _said(control, result["unit"]),
        "change": treatment / control - 1 if comparable and treatment is not None and control else None,
    }


def _rank(result: Mapping[str, Any]) -> tuple[int, bool, str]:
    """The network's latency first."""
    return WHOLE.index(result["type"].split(" ")[0]), result["metric"] != "latency", result["metric"]


def _weight(result: Mapping[str, Any]) -> float:
    treatment, control = (_median(result[arm]) for arm in ("treatment", "control"))
    return abs((treatment or 0.0) - (control or 0.0))


def _median(statistics: Mapping[str, float] | None) -> float | None:
    known = statistics or {}
    return next((known[name] for name in ("p50", "median", "mean") if name in known), None)


def _said(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return screen.size(value) if unit == "B" else screen.quantity(value, unit)
