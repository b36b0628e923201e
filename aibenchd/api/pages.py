"""One function per answer of the daemon: how the client shows it to a person."""

from __future__ import annotations

from aibenchd.api import screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHORT = 12  # characters of a commit
NAMED = 3  # models in one line; more are counted
MEASURED = "measured"  # the verdict of what has one arm
COMPARE = "compare"  # the run type of a comparison of two cells
TAILS = {"tail: treatment": "treatment_tail", "tail: control": "control_tail"}  # columns of blocks that are judged in the tail
OF_CELLS = {"regressed": "slower", "improved": "faster", "unchanged": "as fast"}  # a comparison of cells regresses nothing


def status(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Faults first, then what is watched, measured, queued and found."""
    _heading(out, answer)
    _faults(out, answer["faults"])
    _section(out, "REPOSITORIES", repositories, answer)
    _section(out, "DEVICES", at_work, answer)
    _section(out, "SINKS", sinks, answer)
    _section(out, "MODELS", models, answer)
    out.line()
    out.line(f"experiments  {screen.tally(answer['experiments'])}")
    out.line(f"verdicts     {screen.tally(answer['verdicts'])}")
    out.line(f"findings     {screen.tally(answer['findings'])}", "regressed" if "open" in answer["findings"] else "")
    out.line(f"builds       {screen.tally(answer['builds'])}")
    _selfcheck(out, answer["selfcheck"])
    if answer["recent"]:
        out.line()
        out.line("LAST VERDICTS", "heading")
        experiments(out, {"experiments": answer["recent"], "next": None})


def _selfcheck(out: screen.Screen, checked: dict[str, Any]) -> None:
    """How often a commit was found to differ from itself; in red where that is more than is promised, beyond chance."""
    if checked["experiments"]:
        rate = f"{checked['rate']:.1%} ({checked['low']:.1%} … {checked['high']:.1%})"
        said = f"{checked['alarms']} of {checked['experiments']} are false alarms, {rate}; promised: {checked['promised']:.1%}"
        out.line(f"self-check   {said}", "regressed" if checked["low"] > checked["promised"] else "")


def devices(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What each is and how it is; then what about them makes figures vary."""
    items = answer["devices"]
    head = ("device", "kind", "hash", "abi", "os", "state", "since", "health", "finds", "queue", "left", "last block", "doing")
    rows = [
        (
            item["name"],
            item["kind"],
            item["hash"],
            item["abi"],
            item["model"] or item["os"],
            item["state"],
            out.ago(item["since"]),
            item["health"],
            _smallest(item["smallest"]),
            str(_queue(item)),
            busy_for(item),
            out.ago(item["last_block"] and item["last_block"]["finished_at"]),
            item["reason"],
        )
        for item in items
    ]
    out.table(head, rows, [_style(item) for item in items])
    for item in items:
        for advice in item["advice"]:
            out.line(f"{item['name']}: {advice}", "dim")


def _queue(device: dict[str, Any]) -> int:
    """How many of its experiments are not decided."""
    undecided: int = device["experiments"].get("waiting", 0) + device["experiments"].get("open", 0)
    return undecided


def busy_for(device: dict[str, Any]) -> str:
    """How long its queue is expected to take, as ``about 12 blocks, 4m``; of how many, where that is not known of all."""
    left = device["left"]
    if left is None:
        return ""
    part = "" if left["experiments"] == _queue(device) else f" for {left['experiments']} of {_queue(device)}"
    return screen.left(left["blocks"], left["seconds"]) + part


def left_of(experiment: dict[str, Any]) -> str:
    """What it is expected to take still; empty where it is decided, or that is not known."""
    if experiment["seconds_left"] is None:
        return ""
    late = "; its budget will hardly decide it, so that others go first" if experiment["out_of_reach"] else ""
    return f"{screen.left(experiment['blocks_left'], experiment['seconds_left'])} left{late}"


def _smallest(smallest: list[float | None] | None) -> str:
    """The smallest change that is found, of the quietest and of the noisiest benchmark."""
    if smallest is None:
        return ""
    named = dict.fromkeys("none" if one is None else f"{one:.1%}" for one in smallest)
    return " … ".join(named)


def noise(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How noisy benchmarks are, by device."""
    items = answer["noise"]
    head = ("repository", "device", "benchmark", "backend", "finds", "noise", "second slot", "blocks", "when", "decided on")
    rows = [
        (
            item["repository"],
            item["device"],
            item["identifier"],
            item["backend"],
            "?" if item["scale"] is None else _smallest([item["smallest"]]),
            "" if item["scale"] is None else f"{item['scale']:.2%}",
            _slot(item),
            str(item["blocks"]),
            out.ago(item["measured_at"]),
            item["decided_on"],
        )
        for item in items
    ]
    out.table(head, rows)
    if items:
        out.line("finds: the smallest change that is found within the budget; noise: of the ratio, from block to block", "dim")


def _slot(item: dict[str, Any]) -> str:
    if item["slot"] is None:
        return ""
    ends = (item["slot_low"], item["slot_high"])
    return f"{item['slot']:+.2%}" + ("" if None in ends else f" ({ends[0]:+.2%} … {ends[1]:+.2%})")


def at_work(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Devices as ``status`` has them: what each is doing, and how much waits for it."""
    items = answer["devices"]
    head = ("device", "kind", "state", "since", "waiting", "open", "left", "doing")
    rows = [
        (
            item["name"],
            item["kind"],
            item["state"],
            out.ago(item["since"]),
            str(item["experiments"].get("waiting", 0)),
            str(item["experiments"].get("open", 0)),
            busy_for(item),
            item["reason"],
        )
        for item in items
    ]
    out.table(head, rows, [_style(item) for item in items])


def repositories(out: screen.Screen, answer: dict[str, Any]) -> None:
    items = answer["repositories"]
    head = ("repository", "branch", "state", "polled", "head", "subject")
    rows = [
        (
            item["name"],
            item["branch"],
            item["state"],
            out.ago(item.get("polled_at")),
            (item.get("head") or "")[:SHORT],
            item["reason"] if item["fault"] else item.get("subject") or "",
        )
        for item in items
    ]
    out.table(head, rows, [_style(item) for item in items])


def sinks(out: screen.Screen, answer: dict[str, Any]) -> None:
    items = answer["sinks"]
    rows = [
        (
            item["name"],
            item["kind"],
            item["state"],
            out.ago(item["since"]),
            str(item["pending"]),
            screen.size(item["pending_bytes"]),
            str(item["dead"]),
            item["reason"],
        )
        for item in items
    ]
    out.table(("sink", "kind", "state", "since", "waiting", "size", "dead", "reason"), rows, [_style(item) for item in items])
    letters = [(item["name"], letter) for item in items for letter in item.get("dead_letters", ())]
    if letters:
        out.line()
        out.line("DEAD LETTERS", "heading")
        out.table(
            ("sink", "record", "made", "reason"),
            [(name, letter["record"], out.ago(letter["created_at"]), letter["reason"]) for name, letter in letters],
        )


def models(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Files that are being fetched."""
    items = answer["models"]
    rows = [(item["name"], item["state"], out.ago(item["since"]), item["reason"]) for item in items]
    out.table(("file", "state", "since", "progress"), rows, [_style(item) for item in items])


def experiments(out: screen.Screen, answer: dict[str, Any]) -> None:
    items = answer["experiments"]
    head = (
        "id",
        "verdict",
        "change",
        "blocks",
        "run",
        "device",
        "backend",
        "benchmark",
        "treatment",
        "control",
        "when",
        "reason",
    )
    rows = [
        (
            str(item["id"]),
            ended(item),
            screen.interval(item),
            str(item["block_count"]),
            item["run_type"],
            item["device"],
            item["backend"],
            item["benchmark"],
            item["treatment"][:SHORT],
            (item["control"] or "")[:SHORT],
            out.ago(item["decided_at"] or item["started_at"] or item["created_at"]),
            "; ".join(filter(None, (left_of(item), item["reason"]))),
        )
        for item in items
    ]
    out.table(head, rows, [item["verdict"] or item["state"] for item in items])
    more(out, answer)


def outcomes(answer: dict[str, Any]) -> str:
    """How the experiments of a request ended or stand, counted by words."""
    of_cells = any(item["run_type"] == COMPARE for item in answer["experiments"])
    return screen.tally({OF_CELLS.get(ended, ended) if of_cells else ended: n for ended, n in answer["outcomes"].items()})


def verdicts(answer: dict[str, Any]) -> dict[str, int]:
    """As the experiments of a request ended; those that were measured each by itself count for how they compare."""
    if not answer["apart"]:
        return dict(answer["outcomes"])
    counts = {ended: n for ended, n in answer["outcomes"].items() if ended != MEASURED}
    for one in answer["apart"]:
        if one["verdict"]:
            counts[one["verdict"]] = counts.get(one["verdict"], 0) + 1
    return counts


def experiment(out: screen.Screen, answer: dict[str, Any]) -> None:
    """All about one: what it is, its blocks, what was measured."""
    out.line(f"experiment {answer['id']}: {ended(answer)} {screen.interval(answer)}".rstrip(), _style(answer))
    fact_lines(out, [("expected", left_of(answer))])
    facts = ("repository", "run_type", "benchmark", "model", "device", "backend", "treatment", "control", "reason")
    fact_lines(out, [(name, answer[name]) for name in facts])
    fact_lines(out, [(f"{arm} runs", _variant(answer["design"], arm)) for arm in _arms(answer)])
    fact_lines(out, [("decided on", answer["decided_on"])])
    fact_lines(out, [(name, out.ago(answer[f"{name}_at"])) for name in ("created", "started", "decided")])
    builds = [(arm, build) for arm, build in answer["builds"].items() if build]
    fact_lines(out, [(f"{arm} build", f"{build['id']}, {build['state']}, {build['digest'][:SHORT]}") for arm, build in builds])
    for lost in answer["excluded"]:
        trials = "1 trial of the {} does" if lost["trials"] == 1 else f"{lost['trials']} trials of the {{}} do"
        out.line(f"  {trials.format(lost['arm'])} not count, {lost['cause']}: {lost['reason']}")
    if answer["blocks"]:
        out.line()
        _blocks(out, answer)
    if answer["results"]:
        out.line()
        _results(out, answer["results"])


def coverage(out: screen.Screen, answer: dict[str, Any]) -> None:
    """A matrix: a row per model, a column per framework, device and backend; what is not measured, with why, below it."""
    cells = answer["coverage"]
    texts = {(cell["row"], cell["column"]): _cell(out, cell) for cell in cells}
    columns = sorted({cell["column"] for cell in cells if cell["state"] != "impossible"})
    rows = sorted({cell["row"] for cell in cells})
    out.bands(("model", *columns), [(row, *(texts.get((row, column), "") for column in columns)) for row in rows])
    _reasons(out, cells)
    if any(cell["state"] == "measured" for cell in cells):
        out.line()
        out.line(
            "median over processes, ± half of its interval (95 % from six processes on), its age; * the least of its row", "dim"
        )
        out.line("'aibenchctl compare MODEL CELL CELL' measures two cells against each other", "dim")
    if answer["left_out"]:
        out.line(f"and {answer['left_out']} cells more", "dim")


def history(out: screen.Screen, answer: dict[str, Any]) -> None:
    items = answer["history"]
    series = answer["series"] or {"levels": [], "creep": None}
    levels = {one["commit"]: one for one in series["levels"]}
    head = ("id", "verdict", "change", "level", "backend", "treatment", "committed", "measured", "subject")
    rows = [
        (
            str(item["id"]),
            ended(item),
            screen.interval(item),
            _level(levels.get(item["treatment"])),
            item["backend"],
            item["treatment"][:SHORT],
            out.ago(item["treatment_time"]),
            "; ".join(
                f"{result['metric']} {_statistic(result['treatment'], result['unit'])}"
                for result in item["results"]
                if result["treatment"]
            ),
            item["subject"] or "",
        )
        for item in items
    ]
    out.table(head, rows, [item["verdict"] or "" for item in items])
    more(out, answer)
    if levels:
        oldest = series["levels"][0]["commit"][:SHORT]
        out.line(
            f"level: time over that of {oldest}, all comparisons of the series taken together, ± half of its 90 % interval", "dim"
        )
    creep = series["creep"]
    if creep and creep["creeps"]:
        since = " … ".join(commit[:SHORT] for commit in creep["since"])
        out.line(f"it creeps: {screen.interval(creep)} since {since}", "regressed")


def _level(level: dict[str, Any] | None) -> str:
    return "" if level is None else f"{level['ratio']:.3f} ±{(level['high'] - level['low']) / 2:.3f}"


def revisions(out: screen.Screen, answer: dict[str, Any]) -> None:
    head = ("repository", "commit", "committed", "state", "experiments", "author", "subject")
    rows = [
        (
            item["repository"],
            item["commit"][:SHORT],
            out.ago(item["time"]),
            item["state"],
            screen.tally(item["experiments"]) if item["experiments"] else item["note"],
            item["author"],
            item["subject"],
        )
        for item in answer["revisions"]
    ]
    worst = [
        next((verdict for verdict in ("broken", "regressed") if verdict in item["experiments"]), "")
        for item in answer["revisions"]
    ]
    out.table(head, rows, worst)
    more(out, answer)


def builds(out: screen.Screen, answer: dict[str, Any]) -> None:
    items = answer["builds"]
    head = ("id", "repository", "commit", "framework", "platform", "state", "size", "queued", "reason")
    rows = [
        (
            str(item["id"]),
            item["repository"],
            item["commit"][:SHORT],
            item["framework"],
            item["platform"],
            item["state"],
            screen.size(item["size"]),
            out.ago(item["queued_at"]),
            item["reason"],
        )
        for item in items
    ]
    out.table(head, rows, [item["state"] for item in items])
    more(out, answer)


def requests(out: screen.Screen, answer: dict[str, Any]) -> None:
    head = ("id", "state", "experiments", "repository", "treatment", "control", "by", "when", "why")
    rows = [
        (
            str(item["id"]),
            item["state"],
            screen.tally(item.get("outcomes", {})),
            item["repository"],
            item["treatment"][:SHORT],
            item["control"][:SHORT],
            item["requested_by"],
            out.ago(item["created_at"]),
            item["reason"] or item["note"] or "",
        )
        for item in answer["requests"]
    ]
    out.table(head, rows)
    more(out, answer)


def request(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What somebody asked for, and its experiments."""
    out.line(f"request {answer['id']}: {answer['state']}" + (f", {outcomes(answer)}" if answer["experiments"] else ""))
    named = answer["names"] or {}
    fact_lines(out, [("repository", answer["repository"])])
    fact_lines(out, [(arm, f"{answer[arm]} {named.get(arm, '')}".strip()) for arm in ("treatment", "control")])
    fact_lines(out, [(name, answer[name]) for name in ("note", "reason")])
    fact_lines(out, [("asked", f"{out.ago(answer['created_at'])} by {answer['requested_by']}")])
    if answer["experiments"]:
        out.line()
        experiments(out, answer | {"next": None})
        _figures(out, answer["experiments"])
    apart(out, answer)


def apart(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How cells of two devices compare, which were measured each by itself."""
    for one in answer["apart"]:
        devices, sure = " against ".join(one["devices"]), f"{100 * (1 - one['error']):g} %"
        processes = " and ".join(map(str, one["processes"]))
        found = f"{OF_CELLS.get(one['verdict'], one['verdict'])} {screen.interval(one)}" if one["verdict"] else "not known yet"
        out.line(f"{one['benchmark']}: {devices}: {found}, {sure}, of {processes} processes, each by itself")


def ended_request(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What somebody waited for."""
    experiments(out, answer | {"next": None})
    apart(out, answer)
    _figures(out, answer["experiments"])
    out.line(f"request {answer['id']}: {outcomes(answer)}")


def _figures(out: screen.Screen, items: list[dict[str, Any]]) -> None:
    """What was measured of the network in experiments of one arm, of which there is no more to say."""
    rows = [
        (str(item["id"]), item["device"], item["benchmark"], result["metric"], _statistic(result["treatment"], result["unit"]))
        for item in items
        for result in item["results"]
        if item["control"] is None
    ]
    if rows:
        out.line()
        out.table(("id", "device", "benchmark", "metric", "median"), rows)


def progress(item: dict[str, Any]) -> str:
    """How far one experiment of a request is, in one line."""
    where = f"{item['benchmark']} on {item['device']} {item['backend']}".rstrip()
    blocks = f"{item['block_count']} block{'s' if item['block_count'] != 1 else ''}"
    told = (ended(item), blocks, screen.interval(item), left_of(item), item["reason"])
    return f"{where}: {', '.join(filter(None, told))}"


def standing(answer: dict[str, Any], devices: list[dict[str, Any]]) -> str:
    """How far a request is, and what it waits for, in one line."""
    if answer["state"] != "planned":
        return f"request {answer['id']}: waits to be planned"
    left = [item for item in answer["experiments"] if item["state"] in ("waiting", "open")]
    at_work = {item["device"] for item in left if item["state"] == "open"}
    said = [
        f"{one['name']} {one['state']}" + (f": {one['reason']}" if one["reason"] else "")
        for one in devices
        if one["name"] in at_work
    ]
    seconds = [item["seconds_left"] for item in left if item["seconds_left"] is not None]
    of = f" for {len(seconds)} of {len(left)}" if len(seconds) < len(left) else ""
    expected = [f"about {screen.span(sum(seconds))} of device time left{of}"] if seconds else []
    builds = ["builds are waited for"] if any(item["state"] == "waiting" for item in left) else []
    return "; ".join([f"request {answer['id']}: {outcomes(answer)}", *expected, *builds, *said])


def event(out: screen.Screen, answer: dict[str, Any]) -> None:
    facts = " ".join(f"{name}={value}" for name, value in answer.items() if name not in ("topic", "time"))
    out.line(f"{answer['time'][:19]} {answer['topic']} {facts}")


def _cell(out: screen.Screen, cell: dict[str, Any]) -> str:
    """Such as ``12.3 ms ±0.4% 3h *``; a state, where there is nothing to rank."""
    figure = cell["measured"]
    if cell["state"] != "measured" or figure is None:
        return str(cell["state"])
    half = 50 * (figure["high"] - figure["low"]) / figure["median"] if figure["median"] else 0.0
    within = f" ±{half:.1f}%" if figure["processes"] > 1 else ""
    mark = " *" if cell["fastest"] else ""
    return (
        f"{screen.quantity(figure['median'], figure['unit'])}{within} {out.ago(cell['measured_at']).removesuffix(' ago')}{mark}"
    )


def _reasons(out: screen.Screen, cells: list[dict[str, Any]]) -> None:
    """Why cells are not measured, those of one column with one reason in one line."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["reason"]:
            found.setdefault((cell["state"], cell["column"], cell["reason"]), []).append(cell["row"])
    if found:
        out.line()
        rows = [
            (state, column, ", ".join(models) if len(models) <= NAMED else f"{len(models)} models", reason)
            for (state, column, reason), models in sorted(found.items())
        ]
        out.table(("state", "cell", "models", "why"), rows, [row[0] for row in rows])


def _heading(out: screen.Screen, answer: dict[str, Any]) -> None:
    out.line(f"aibenchd {answer['version']}, started {out.ago(answer['started_at'])}, {answer['config']}")
    if answer["paused"]:
        out.line(
            f"PAUSED {out.ago(answer.get('paused_since'))} by {answer.get('paused_by')}; 'aibenchctl resume' ends it", "fault"
        )


def _faults(out: screen.Screen, faults: list[dict[str, Any]]) -> None:
    if faults:
        out.line()
        out.line("FAULTS", "heading")
        rows = [(fault["unit"], fault["state"], out.ago(fault["since"]), fault["reason"]) for fault in faults]
        out.table(("unit", "state", "since", "why"), rows, ["fault"] * len(rows))


def _section(out: screen.Screen, title: str, page: Any, answer: dict[str, Any]) -> None:
    if answer[title.lower()]:
        out.line()
        page(out, answer)


def fact_lines(out: screen.Screen, named: list[tuple[str, str | None]]) -> None:
    for name, value in named:
        if value:
            out.line(f"  {name:16}{value}")


def _blocks(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Its blocks; with the slow iterations of each process where the verdict is theirs."""
    blocks, tails = answer["blocks"], TAILS if answer.get("in_tail") else {}
    head = ("block", "stratum", "order", "treatment", "control", *tails, "interval so far", "trials")
    rows = [
        (
            str(block["number"]),
            str(block["stratum"]),
            block["order"],
            _number(block["treatment"]),
            _number(block["control"]),
            *(_number(block[arm]) for arm in tails.values()),
            screen.interval(block),
            "; ".join(_trial(trial) for trial in block["trials"]),
        )
        for block in blocks
    ]
    out.table(head, rows, ["" if block["valid"] else "failed" for block in blocks])
    summary = answer["decided_on"].partition(";")[0]
    out.line("treatment, control: one number of each process" + (f", the {summary}" if summary else ""), "dim")
    if tails:
        out.line("tail: of each process the mean of the slowest quarter; the last interval is of these", "dim")


def _trial(trial: dict[str, Any]) -> str:
    if trial["outcome"] == "ok":
        return f"{trial['arm']} {screen.quantity(trial['seconds'], 's')}" + (f": {trial['reason']}" if trial["reason"] else "")
    log = f", 'aibenchctl log trial {trial['id']}'" if trial["log"] else ""
    return f"{trial['arm']} {trial['outcome']}: {trial['reason']}{log}"


def _results(out: screen.Screen, results: list[dict[str, Any]]) -> None:
    rows = [
        (
            result["type"],
            result["metric"],
            _statistic(result["treatment"], result["unit"]) or result["text"],
            _statistic(result["control"], result["unit"]),
        )
        for result in results
    ]
    out.table(("type", "metric", "treatment", "control"), rows)
    out.line("treatment, control: the median of all samples of all blocks", "dim")


def _statistic(statistics: dict[str, Any] | None, unit: str) -> str:
    """The median, else the mean, of a series."""
    value = next(((statistics or {})[name] for name in ("p50", "median", "mean") if name in (statistics or {})), None)
    return "" if value is None else f"{_number(value)} {unit}".strip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def ended(item: Mapping[str, Any]) -> str:
    """How an experiment ended or stands, in a word or a few."""
    verdict = str(item["verdict"] or item["state"])
    if item["run_type"] == COMPARE:
        return OF_CELLS.get(verdict, verdict)
    return f"{verdict} in the tail" if item.get("in_tail") else verdict


def _arms(experiment: dict[str, Any]) -> tuple[str, ...]:
    """The arms that run something of their own; none where they differ in their builds alone."""
    return ("treatment", "control") if experiment["design"].get("control") else ()


def _variant(design: dict[str, Any], arm: str) -> str:
    ran = design if arm == "treatment" else design["control"]
    return f"{ran['framework']} {ran['backend']}".rstrip()


def _style(item: dict[str, Any]) -> str:
    return "fault" if item.get("fault") else str(item.get("verdict") or item["state"])


def more(out: screen.Screen, answer: dict[str, Any]) -> None:
    if answer["next"] is not None:
        out.line(f"there are more: --cursor {answer['next']}", "dim")
