"""Reads what TensorFlow Lite's ``benchmark_model`` prints, as its versions from 2018 on do, and LiteRT's of the same name.

    Running benchmark for at least 50 iterations and at least 1 seconds
    count=50 first=9171 curr=8844 min=8744 max=9331 avg=8850.66 std=116         us; newer versions add p5= median= p95=

The warm-up is such a block too: the last one counts. The program keeps no samples, so ``NET latency`` is their mean, one
sample for all its runs, and the rest of the block stands beside it: ``NET latency_min`` and so on, and ``NET runs``.

    ====== Run Order ======
        [node type]  [start]  [first]  [avg ms]  [%]  [cdf%]  [mem KB]  [times called]  [Name]

Each operator has a series, which goes by its name, and so has each type of operator, with the sum of all of that type. Both
are microseconds of one run. Tables of a delegate's own operators count like the network's.

Which backend executed is read off the log. ``Created TensorFlow Lite XNNPACK delegate`` says nothing, for it is printed even
where that delegate takes no node: it takes a row that tells how many nodes were replaced, or that it was applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from aibenchd import model
from aibenchd.frameworks import gathering

BLOCK = "Running benchmark for"
TABLE = "= Run Order ="
PREPARATION = ("AllocateTensors", "ModifyGraphWithDelegate")  # are listed like operators, and are none
STATISTICS = ("min", "max", "std", "p5", "median", "p95")
WORDS = {"hexagon": "dsp"}  # for delegates that go by another name here
MAX_TABLES = 100  # of one output; a later one takes the place of the last
MEBIBYTE = 1 << 20

_FIELD = re.compile(r"\b(\w{1,16})=([0-9.eE+-]{1,400})")
_COLUMN = re.compile(r"\[([^\]]{1,32})\]")
_SESSION = re.compile(r"Initialized session in ([0-9.eE+-]{1,40}) ?ms")
_FOOTPRINT = re.compile(r"(Peak m|M)emory footprint[^:]{0,80}\(MB\): .{0,80}\boverall=([0-9.eE+-]{1,40})")
_APPLIED = re.compile(r"(?:Explicitly a|\bA)pplied (\w{1,40}) delegate")
_REPLACED = re.compile(
    r"Replacing (\d{1,9}) (?:out of \d{1,9} )?node\(s\) with delegate \(TfLite(\w{1,40}?)(?:Delegate)?(?:V2)?\)"
)
_DELEGATED = re.compile(r"(?:TfLite)?(\w{1,40}?)(?:Delegate)? delegate: (\d{1,9}) nodes delegated")
_INTERFACE = re.compile(r"Initialized (OpenGL|OpenCL)-based API")
_WANTED = re.compile(r"\bUse (?:legacy )?(?:nnapi|gpu|hexagon|coreml) ?: \[1\]", re.IGNORECASE)
_DELEGATE_NODE = re.compile(r"TfLite(\w{1,40}?)Delegate(?:V2)?")


def gather(output: str, gathered: gathering.Gathered) -> None:
    """Add what an output says, as far as it is the program's."""
    found = _Found()
    for row in output.split("\n"):
        if len(row) <= gathering.MAX_ROW:
            found.read(row)
    for series in found.series():
        gathered.add(series)
    for backend in found.backends():
        gathered.state(backend)


class _Found:
    """What is known after some rows."""

    def __init__(self) -> None:
        self._log = _Log()
        self._block_is_due = False
        self._first: float | None = None
        self._block: dict[str, float] = {}
        self._others: dict[str, model.Series] = {}
        self._numbers: int | None = None  # to the mean, in a row of the table that is being read; 0 before its header
        self._tables: list[dict[str, float]] = []

    def read(self, row: str) -> None:
        if self._numbers is not None and self._is_of_table(row, self._numbers):
            return
        if TABLE in row:
            self._numbers = 0
            self._tables = [*self._tables[: MAX_TABLES - 1], {}]
        elif BLOCK in row:
            self._block_is_due = True
        elif self._block_is_due and "count=" in row:
            self._block_is_due = False
            self._block_row(row)
        else:
            self._log.read(row)
            self._fact(row)

    def _block_row(self, row: str) -> None:
        fields = _numbers(dict(_FIELD.findall(row)))
        mean = fields.get("avg", fields.get("curr"))  # where all runs took as long, there is no other
        if mean is not None:
            self._first = fields.get("first", mean) if self._first is None else self._first
            self._block = {**fields, "avg": mean}

    def _fact(self, row: str) -> None:
        if (match := _SESSION.search(row)) and (milliseconds := gathering.number(match[1])) is not None:
            self._others["load"] = gathering.series("NET", "load", "us", (milliseconds * 1000,))
        elif (match := _FOOTPRINT.search(row)) and (mebibytes := gathering.number(match[2])) is not None:
            name = "peak_memory_footprint" if match[1].startswith("Peak") else "memory_footprint"
            self._others[name] = gathering.series("NET", name, "B", (mebibytes * MEBIBYTE,))

    def _is_of_table(self, row: str, numbers: int) -> bool:
        if not numbers:
            self._numbers = _numbers_to_mean(row)
            return self._numbers is not None
        operator = _operator(row, numbers)
        if operator is None:
            self._numbers = None
            return False
        name, kind, microseconds = operator
        self._log.node(kind, name)
        if kind not in PREPARATION:
            self._add(name, microseconds)
            if kind != name:
                self._add(kind, microseconds)
        return True

    def _add(self, key: str, microseconds: float) -> None:
        table, key = self._tables[-1], key[: gathering.MAX_NAME]
        if key in table or len(table) < gathering.MAX_SERIES:
            table[key] = table.get(key, 0.0) + microseconds

    def series(self) -> Iterator[model.Series]:
        if self._block:
            yield gathering.series("NET", "latency", "us", (self._block["avg"],))
            for name in STATISTICS:
                if name in self._block:
                    yield gathering.series("NET", f"latency_{name}", "us", (self._block[name],))
            if "count" in self._block:
                yield gathering.series("NET", "runs", "", (self._block["count"],))
        if self._first is not None:
            yield gathering.series("NET", "first_run", "us", (self._first,))
        yield from self._others.values()
        for table in self._tables:
            for key, microseconds in table.items():
                yield gathering.series(key, "latency", "us", (microseconds,))

    def backends(self) -> Sequence[str]:
        return self._log.backends() if self._block else ()


class _Log:
    """What the program's log says of delegates."""

    def __init__(self) -> None:
        self._loaded = self._wanted = self._xnnpack_is_there = self._inner = False
        self._interface = "gpu"
        self._delegates: dict[str, None] = {}

    def read(self, row: str) -> None:
        if "elegate" in row:
            self._delegate(row)
        elif "Loaded model" in row:
            self._loaded = True
        elif "-based API" in row and (match := _INTERFACE.search(row)):
            self._interface = match[1].lower()
        elif "Use " in row and _WANTED.search(row):
            self._wanted = True

    def _delegate(self, row: str) -> None:
        if "Created TensorFlow Lite XNNPACK delegate" in row:
            self._xnnpack_is_there = True
        elif match := _APPLIED.search(row):
            self._took(match[1])
        elif (match := _REPLACED.search(row)) and int(match[1]):
            self._took(match[2])
        elif (match := _DELEGATED.search(row)) and int(match[2]):
            self._took(match[1])

    def node(self, kind: str, name: str) -> None:
        """A row of a profile."""
        if match := _DELEGATE_NODE.fullmatch(kind):
            self._took(match[1])
        elif name.startswith("Delegate/"):
            self._inner = True

    def _took(self, delegate: str) -> None:
        if len(self._delegates) < gathering.MAX_BACKENDS:
            self._delegates[delegate.lower()] = None

    def backends(self) -> Sequence[str]:
        """XNNPACK takes what another delegate leaves, so it counts where it is alone. Where delegates are neither applied
        nor wanted, the built-in kernels executed, if the log is one that tells."""
        inner = ("xnnpack",) if self._inner and self._xnnpack_is_there else ()
        names = [self._interface if one == "gpu" else WORDS.get(one, one) for one in (*self._delegates, *inner)]
        if names:
            return [name for name in names if name != "xnnpack"] or ("xnnpack",)
        return ("cpu",) if self._loaded and not self._wanted and not self._xnnpack_is_there else ()


def _numbers_to_mean(row: str) -> int | None:
    """How many numbers a row of the table has up to its mean, by the table's header; None where the row is none."""
    columns = _COLUMN.findall(row)
    mean = columns.index("avg ms") if "avg ms" in columns else 0
    return mean if mean and columns[mean + 1 : mean + 2] == ["%"] else None


def _operator(row: str, numbers: int) -> tuple[str, str, float] | None:
    """Name, type and microseconds of one run; None where the row is none of the table."""
    before, *rest = row.split("%", 2)  # the first percentage follows the mean
    words = before.rsplit(None, numbers + 1)
    after = rest[1].split(None, 2) if len(rest) == 2 else []
    if len(words) != numbers + 2 or len(after) != 3:
        return None
    milliseconds, calls = gathering.number(words[-2]), gathering.number(after[1])
    if milliseconds is None or calls is None:
        return None
    kind = words[0].rpartition("\t")[2].strip()  # a log's own prefix goes before the tab
    name = after[2].strip()
    inner = name[1 : name.rfind("]")] if name.startswith("[") and "]" in name else name
    return inner, kind, milliseconds * 1000 * max(calls, 1.0)  # early versions count no calls


def _numbers(texts: Mapping[str, str]) -> dict[str, float]:
    found = {key: gathering.number(text) for key, text in texts.items()}
    return {key: value for key, value in found.items() if value is not None}
