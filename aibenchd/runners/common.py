"""What the stand-alone runners share: options, seeded inputs, the order of what is measured, observer lines, exit codes.

A runner is one file beside this one, with a class derived from :class:`Network`. Needs numpy; runs on Python 3.7 and later,
for Caffe2 knows no newer one.

Printed, as ``PyTorchObserver {"type": …, "metric": …, "unit": …, "value"|"values"|"info_string": …}``:

    NET load, NET first_run      us; once per process: the network made, and run for the first time
    NET cold_start               us; from the start of the process to the first outputs, in steps of the kernel's clock tick
    NET latency                  us; one value per iteration, in order
    NET peak_memory              B; the most that the process has held so far: without what profiles and evidence take later
    NET input_digest             SHA-256 over the types, shapes and bytes of all inputs, images as NCHW
    NET output_digest            SHA-256 over the types, shapes and bytes of all outputs, in order
    ID_<n>_<operator> latency    us; with --operators: one value per profiled iteration, after all of the above was timed
    NET backend, NET evidence    what executed, and by what that is known

Where the environment names a file in AIBENCHD_PROFILE, and the framework has a profiler, some runs under it are written there
after all that is timed: a JSON object with Chrome's ``traceEvents``, and ``runs``, how many there are.

Exit status: 0 done; 1 the network failed; 2 the arguments or files cannot be used; 3 another backend than asked for executed.
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import ctypes
import gc
import hashlib
import importlib
import itertools
import json
import os
import sys
import tempfile
import time
import traceback

try:
    import numpy as np
except ImportError as absent:
    print(f"numpy cannot be imported, and every runner needs it: {absent}", file=sys.stderr)
    sys.exit(2)

MYPY = False
if MYPY:  # typing alone takes milliseconds of each trial
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when libraries are loaded: frameworks are equal where nobody says

FAILED, UNUSABLE, OTHER_BACKEND = 1, 2, 3  # exit status
SEED = 0
PROFILED = 10  # iterations at most: profiles grow large, and each process is one sample anyway
PROFILE = "AIBENCHD_PROFILE"  # the variable that names the file which a profile goes to
LONGEST = 200  # letters of an output's name in a file's

TYPES = {
    "float": "float32",
    "float32": "float32",
    "double": "float64",
    "float64": "float64",
    "half": "float16",
    "float16": "float16",
    "uint8": "uint8",
    "uint8_t": "uint8",
    "int8": "int8",
    "int16": "int16",
    "uint16": "uint16",
    "int": "int32",
    "int32": "int32",
    "uint32": "uint32",
    "long": "int64",
    "int64": "int64",
    "uint64": "uint64",
    "bool": "bool",
}


class UnusableError(Exception):
    """The arguments name something that cannot be used."""


class OtherBackendError(Exception):
    """What was asked for is not what executed, or cannot be had here."""


class Network(abc.ABC):
    """A network in a framework's hands, with its inputs. A runner derives its own."""

    @abc.abstractmethod
    def run(self) -> None:
        """Run it once; returns when the outputs are there.

        From inputs that lie where the backend reads them to outputs that lie where it leaves them: no copy to or from it, so that
        all frameworks are timed for the same work.
        """

    def settle(self) -> None:  # noqa: B027  most have nothing to do then
        """Called once, after the warm-up and before what is timed."""

    @abc.abstractmethod
    def outputs(self) -> Mapping[str, np.ndarray]:
        """What the last run gave, by name, in the network's order."""

    def save(self, outputs: Mapping[str, np.ndarray], directory: str | None) -> None:
        """Write the outputs as files, where there is a directory for them."""
        save(outputs, directory)

    @abc.abstractmethod
    def evidence(self) -> Mapping[str, Mapping[str, int]]:
        """Which backends execute: by backend, how often which routine of it was called. The most telling backend first.

        The last to be asked for.
        """

    @abc.abstractmethod
    def operators(self, iterations: int) -> Mapping[tuple[int, str], Sequence[float]]:
        """Microseconds of each operator, by its turn and name, one value per iteration."""

    def profile(self, runs: int) -> Sequence[Mapping[str, Any]] | None:  # noqa: ARG002  most have no profiler
        """Events of so many runs, as Chrome's trace viewer has them (``name ph ts dur pid tid``); None: there is no profiler.

        Raises:
            UnusableError: there is one, and it cannot be used here.
        """
        return None


def main(
    name: str,
    options: argparse.Namespace,
    load: Callable[[argparse.Namespace, list[np.ndarray]], Network],
    observer: str = "PyTorchObserver",
    inputs: Callable[[argparse.Namespace], list[np.ndarray]] | None = None,
) -> int:
    """Make inputs, load the network, measure it, print all that is known of it; the exit status.

    Args:
        name: of the runner, for messages.
        options: of a parser that :func:`add_options` added to.
        load: makes the network; what it raises decides the exit status.
        observer: what stands before each record.
        inputs: makes them, where a framework knows more than :func:`make_inputs`.
    """
    try:
        _measure(options, inputs or make_inputs, load, lambda metric, unit, **facts: observe(observer, metric, unit, **facts))
    except UnusableError as error:
        return fail(name, UNUSABLE, error)
    except OtherBackendError as error:
        return fail(name, OTHER_BACKEND, error)
    except Exception as error:  # noqa: BLE001  a network may raise anything
        return fail(name, FAILED, f"the network failed{_place_of(error)}: {type(error).__name__}: {first_line(error)}")
    return 0


def _measure(
    options: argparse.Namespace,
    make: Callable[[argparse.Namespace], list[np.ndarray]],
    load: Callable[..., Network],
    observe: Callable[..., None],
) -> None:
    inputs = make(options)
    observe("input_digest", "", info_string=digest(as_nchw(inputs, options.input_layout)))
    network, microseconds = _timed(lambda: load(options, inputs))
    observe("load", "us", value=microseconds)
    observe("first_run", "us", value=_timed(network.run)[1])
    observe("cold_start", "us", value=since_start())
    for _ in range(options.warmup):
        network.run()
    network.settle()
    observe("latency", "us", values=_latencies(network.run, options.iterations))
    if peak_memory():
        observe("peak_memory", "B", value=peak_memory())

    outputs = numeric(network.outputs())
    observe("output_digest", "", info_string=digest(list(outputs.values())))
    network.save(outputs, options.output_directory)
    if options.operators:
        for (index, operator), values in network.operators(min(options.iterations, PROFILED)).items():
            observe("latency", "us", kind=f"ID_{index}_{operator}", values=list(values))
    if os.environ.get(PROFILE):
        save_profile(network, min(options.iterations, PROFILED), os.environ[PROFILE])
    found = network.evidence()
    observe("backend", "", info_string=judged(found, options.backend))
    observe("evidence", "", info_string=shown(found))


def save_profile(network: Network, runs: int, path: str) -> None:
    """Write a profile, where the framework makes one."""
    events = network.profile(runs)
    if events is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "runs": runs}, file)


# ---------------------------------------------------------------- options and observer lines


def add_options(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    """The options of every runner, but for which network to run."""
    parser.add_argument("--input-dims", metavar="DIMS", help='shapes of the seeded inputs, such as "1,3,224,224;1,10"')
    parser.add_argument("--input-type", default="float", metavar="TYPES", help='for all inputs, or one for each: "float;int64"')
    parser.add_argument("--input-layout", default="nchw", choices=("nchw", "nhwc"), help="of images, in shapes and inputs")
    parser.add_argument("--input-file", metavar="FILES", help='.npy files, such as "a.npy;b.npy", instead of seeded inputs')
    parser.add_argument("--warmup", type=whole(0), default=1, metavar="N", help="runs after the first and before those timed")
    parser.add_argument("--iterations", type=whole(1), default=10, metavar="N", help="runs that are timed")
    parser.add_argument("--threads", type=whole(1), metavar="N", help="of one operator; default: OMP_NUM_THREADS, else 1")
    parser.add_argument("--backend", default="", choices=("", *backends), help="must execute; default: the framework's choice")
    parser.add_argument("--operators", action="store_true", help="time each operator too")
    parser.add_argument("--output-directory", metavar="DIRECTORY", help="where each output is written, as <name>.npy")


def whole(least: int) -> Callable[[str], int]:
    """A type of argument: a whole number of ``least`` or more."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more")
        return value

    return number


def observe(observer: str, metric: str, unit: str, *, kind: str = "NET", **facts: object) -> None:
    """Print one record."""
    print(observer + " " + json.dumps({"type": kind, "metric": metric, "unit": unit, **facts}), flush=True)


def fail(name: str, status: int, message: object) -> int:
    """Say why on standard error, in one row; the exit status."""
    print(f"{name}: {' '.join(str(message).split())}", file=sys.stderr)
    return status


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, bounded."""
    return (str(error).strip().splitlines() or [""])[0][:500]


def _place_of(error: BaseException) -> str:
    """Where in the network's own code an exception came from."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if os.path.dirname(frame.filename) != os.path.dirname(__file__)]
    own = [frame for frame in foreign if f"{os.sep}site-packages{os.sep}" not in frame.filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def threads(options: argparse.Namespace) -> int:
    """How many one operator may have, for frameworks that do not read OMP_NUM_THREADS themselves."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(options.threads or (text if text.isdecimal() else 1)))


def made(reference: str) -> Any:
    """What the function of no arguments returns that ``MODULE:FACTORY`` names, in the watched repository.

    Raises:
        UnusableError: there is no such function.
    """
    name, _, factory = reference.partition(":")
    if not name or not factory:
        raise UnusableError(f"--module {reference}: expected MODULE:FACTORY, such as engine:squeezenet")
    step_aside()
    try:
        make = getattr(importlib.import_module(name), factory)
    except (ImportError, AttributeError) as error:
        raise UnusableError(f"--module {reference}: {first_line(error)}") from error
    return make()


def step_aside() -> None:
    """Leave the names of our own files to the network's: it may well have a module ``common``."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    for name, module in list(sys.modules.items()):
        if "." not in name and name != "__main__" and os.path.dirname(getattr(module, "__file__", None) or "") == here:
            del sys.modules[name]


# ---------------------------------------------------------------- inputs


def make_inputs(options: argparse.Namespace) -> list[np.ndarray]:
    """The inputs that the options name, in the network's layout.

    Raises:
        UnusableError: they name none, or what is none.
    """
    if options.input_file:
        return [from_file(path) for path in options.input_file.split(";")]
    if not options.input_dims:
        raise UnusableError("expected --input-dims, or --input-file")
    shapes = [shape_of(text) for text in options.input_dims.split(";")]
    names = [name.strip() for name in options.input_type.split(";")]
    if len(names) not in (1, len(shapes)):
        raise UnusableError(f"--input-type {options.input_type}: expected one type, or one for each of {len(shapes)} inputs")
    names = names * len(shapes) if len(names) == 1 else names
    return [
        seeded(shape, name, index, options.input_layout)
        for index, (shape, name) in enumerate(zip(shapes, names))  # noqa: B905  Python 3.7
    ]


def shape_of(text: str) -> tuple[int, ...]:
    """``"1,3,224,224"`` as ``(1, 3, 224, 224)``."""
    try:
        shape = tuple(int(number) for number in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UnusableError(f"--input-dims: {text!r} is no shape; expected sizes such as 1,3,224,224")
    return shape


def seeded(shape: tuple[int, ...], name: str, index: int = 0, layout: str = "nchw") -> np.ndarray:
    """Numbers from SHAKE-256 of shape, type and place: floats in [-1, 1) in steps of 2^-15, integers from 0 to 127.

    Images of four dimensions are drawn as NCHW whatever the layout, so that every framework is given the same picture.
    """
    if name not in TYPES:
        raise UnusableError(f"--input-type: {name!r} is none of {', '.join(TYPES)}")
    dtype = np.dtype(TYPES[name])
    turned = layout == "nhwc" and len(shape) == 4
    drawn = (shape[0], shape[3], shape[1], shape[2]) if turned else shape
    count = int(np.prod(drawn, dtype=np.int64))
    stream = hashlib.shake_256(f"aibenchd {SEED} {index} {list(drawn)} {dtype}".encode())
    numbers: np.ndarray
    if dtype.kind == "f":
        numbers = np.frombuffer(stream.digest(2 * count), dtype="<i2").astype(np.float32) / np.float32(32768)
    else:
        numbers = np.frombuffer(stream.digest(count), dtype=np.uint8) % (2 if dtype.kind == "b" else 128)
    values = numbers.astype(dtype).reshape(drawn)
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if turned else values


def as_nchw(values: Sequence[np.ndarray], layout: str) -> list[np.ndarray]:
    """Images of four dimensions as NCHW, others as they are."""
    return [value.transpose(0, 3, 1, 2) if layout == "nhwc" and value.ndim == 4 else value for value in values]


def from_file(path: str) -> np.ndarray:
    """The array in a .npy file, in the order of C: frameworks would turn another within what is timed.

    Raises:
        UnusableError: it is none.
    """
    try:
        with open(path, "rb") as file:
            value: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy raises much of what is no such file
        raise UnusableError(f"--input-file {path}: cannot be read as .npy: {first_line(error)}") from error
    return np.asarray(value, order="C")


# ---------------------------------------------------------------- outputs


def numeric(outputs: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """The outputs.

    Raises:
        UnusableError: one is text, or no tensor at all: nothing that can be compared.
    """
    for name, value in outputs.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
            raise UnusableError(f"its output {name} is no tensor of numbers")
    return outputs


def digest(values: Sequence[np.ndarray]) -> str:
    """SHA-256 over the types, shapes and bytes of arrays."""
    total = hashlib.sha256()
    for value in values:
        total.update(f"{value.dtype} {list(value.shape)}\n".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def save(outputs: Mapping[str, np.ndarray], directory: str | None) -> None:
    """Write each output as ``<name>.npy``, where there is a directory for it."""
    if directory is None:
        return
    try:
        for name, value in zip(file_names(outputs), outputs.values()):  # noqa: B905  Python 3.7
            np.save(os.path.join(directory, f"{name}.npy"), np.asarray(value, order="C"))
    except OSError as error:
        raise UnusableError(f"--output-directory {directory}: {error}") from error


def file_names(names: Iterable[str]) -> list[str]:
    """Outputs' names as those of files, which all differ: of several that would be the same, later ones end in ``_2`` and so on.

    Letters, digits, ``_``, ``-`` and dots within stay, all else becomes ``_``.
    """
    found: dict[str, None] = {}
    for name in names:
        safe = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in name[:LONGEST]).strip(".") or "output"
        candidates = itertools.chain([safe], (f"{safe}_{number}" for number in itertools.count(2)))
        found[next(candidate for candidate in candidates if candidate not in found)] = None
    return list(found)


# ---------------------------------------------------------------- time


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the microseconds it took."""
    started = time.perf_counter_ns()
    result = work()
    return result, (time.perf_counter_ns() - started) / 1000


def _latencies(run: Callable[[], None], iterations: int) -> list[float]:
    gc.collect()
    gc.disable()
    try:
        return [_timed(run)[1] for _ in range(iterations)]
    finally:
        gc.enable()


def since_start() -> float:
    """Microseconds since this process began, by the kernel's own record of it."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    now = time.clock_gettime(7)  # CLOCK_BOOTTIME, which has no name in Python 3.7's time
    return max(0.0, now - ticks / os.sysconf("SC_CLK_TCK")) * 1e6


def peak_memory() -> int:
    """Bytes, by the kernel's own record of this process since its exec; 0 where it keeps none."""
    with open("/proc/self/status") as file:
        return next((int(row.split()[1]) << 10 for row in file if row.startswith("VmHWM:")), 0)


# ---------------------------------------------------------------- backends


def judged(evidence: Mapping[str, Mapping[str, int]], asked: str, advice: str = "") -> str:
    """The backend that executed: the one asked for where there is evidence of it, else the first.

    Raises:
        OtherBackendError: it is not the one that was asked for.
    """
    executed = [backend for backend, calls in evidence.items() if any(calls.values())]
    if asked and asked not in executed:
        raise OtherBackendError(f"asked for {asked}, but it did not execute: {shown(evidence)}{advice}")
    return asked or (executed[0] if executed else "cpu")


def shown(evidence: Mapping[str, Mapping[str, int]]) -> str:
    """Evidence as a person reads it."""
    calls = (f"{backend} {name} x {count}" for backend, names in evidence.items() for name, count in sorted(names.items()))
    return ", ".join(calls) or "no library logged a call"


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """A list that holds, when the block is left, what C code wrote to standard output meanwhile."""
    log: list[str] = []
    flush()
    saved = os.dup(1)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 1)
            try:
                yield log
            finally:
                flush()  # before descriptor 1 is given back: C's buffer would land in our own output
                os.dup2(saved, 1)
            file.seek(0)
            log.append(file.read().decode(errors="replace"))
    finally:
        os.close(saved)


def flush() -> None:
    """Have what Python and C hold back on standard output written."""
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
