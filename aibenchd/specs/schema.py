"""What a specification may say: FAI-PEP's model files and benchmarks files, as pydantic models.

They judge a file, they do not hold it: benchmarks keep the file's own JSON, because commands may name any key of a model
or a test as a placeholder. So known keys are typed, and all others are let through.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, get_args

import pydantic
import pydantic_core
from pydantic import Field

from aibenchd import errors, model, statistics

Item = TypeVar("Item")

ALIKE = 0.8  # of 1: less, and words that have nothing to do with each other are taken for the same
UNPINNED = "unpinned"  # the validation context of a file whose digests are yet to be written
PLACEHOLDER = re.compile(r"\{\w+\}")
SUFFIXES = {".npy": "npy", ".raw": "raw", ".bin": "raw"}  # of output files; others are text
DEFAULT_TOLERANCE = {"max_relative": 1e-3}
_TYPES = {"float": "float32", "double": "float64", "half": "float16", "int": "int32", "long": "int64"}  # as others write them

Measure = Literal["max_absolute", "max_relative", "rmse", "cosine", "ulp", "top1_flips"]  # cosine: 1 minus it
NumberName = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]  # fmt: skip


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _known_statistic(name: str) -> str:
    if not statistics.known(name):
        raise ValueError(f"{name!r} is no statistic; there are mean, stdev, MAD, cv and p0 to p100")
    return name


def _stays_below(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path or path in {"", "."}:
        raise ValueError("expected a name that does not leave its directory")
    return path


def _not_empty(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if not values:
        raise ValueError("expected a list of one or more")
    return values


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _text_or_keys(value: Any) -> Any:
    if not isinstance(value, str | Mapping | Generator):
        raise ValueError("expected an address or a path, or {generator: [program, argument, …]}")
    return value


def _number_type(name: Any) -> Any:
    return _TYPES.get(name, name) if isinstance(name, str) else name


def _any_measure(limits: dict[str, float]) -> dict[str, float]:
    if not limits:
        raise ValueError(f"expected a largest value for one or more of {', '.join(get_args(Measure))}")
    return limits


def _at(key_path: tuple[str | int, ...], message: str) -> pydantic.ValidationError:
    """What is wrong with a whole, told at a key in it."""
    problem = pydantic_core.PydanticCustomError("does_not_fit", "{message}", {"message": message})
    return pydantic.ValidationError.from_exception_data("whole", [{"type": problem, "loc": key_path, "input": None}])


def _near(given: Iterable[str], meant: Iterable[str]) -> str:
    """For a message, which key that means nothing was probably meant to be another."""
    for key in given:
        near = difflib.get_close_matches(key, list(meant), 1, ALIKE)
        if near:
            return f"; {key!r} may be a misspelling of {near[0]!r}"
    return ""


def _written_as(pattern: str, words: str) -> pydantic.AfterValidator:
    def judge(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {words}")
        return text

    return pydantic.AfterValidator(judge)


Text = Annotated[str, pydantic.BeforeValidator(_number_as_text)]
Environment = dict[str, Text]
Component = Annotated[
    str, Field(max_length=200), _written_as("[^/]+", "a name without a slash"), pydantic.AfterValidator(_stays_below)
]
FileName = Annotated[str, Field(max_length=1000), pydantic.AfterValidator(_stays_below)]
Statistic = Annotated[str, pydantic.AfterValidator(_known_statistic)]
CpuMask = Annotated[Text, _written_as("(0x)?[0-9a-fA-F]{1,64}", "a hexadecimal mask of CPUs, such as f0")]
CpuList = Annotated[Text, _written_as(r"-\d+|\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", "a list of CPUs, such as 0,4-7")]
Some = pydantic.AfterValidator(_not_empty)  # pydantic's own min_length also complains where an item is not valid
Seconds = Annotated[float, Field(ge=0)]
NumberType = Annotated[NumberName, pydantic.BeforeValidator(_number_type)]


class Open(pydantic.BaseModel):
    """Typed where a key is known, and open to all others."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Converter(Open):
    """Replaces the framework's parser of standard output, or reads an output file."""

    name: str
    args: dict[str, Any] = {}


class Generator(pydantic.BaseModel):
    """A program that writes a file: looked up beside the specification, then in ``models.generators_directory``, then in the
    directory ``generators`` beside the ``models`` that the specification lies in.

    Attributes:
        generator: the program and its arguments; the path that it must write comes after them.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    generator: Annotated[tuple[Text, ...], Some]

    @pydantic.field_validator("generator")
    @classmethod
    def _stays_below(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        _stays_below(words[0])
        return words

    def __str__(self) -> str:
        return f"generator {shlex.join(self.generator)}"


Source = Annotated[
    Annotated[str, Field(min_length=1), pydantic.Tag("text")] | Annotated[Generator, pydantic.Tag("program")],
    pydantic.Discriminator(lambda value: "text" if isinstance(value, str) else "program"),
    pydantic.BeforeValidator(_text_or_keys),
]


class File(Open):
    """A file or directory that is fetched and verified. A location with a placeholder in it is made at run time instead.

    Attributes:
        sources: the key ``location``, one or a list; tried in order.
    """

    filename: FileName
    sources: Annotated[tuple[Source, ...], Field(alias="location"), pydantic.BeforeValidator(_one_or_more), Some]
    md5: Annotated[str, _written_as("([0-9a-fA-F]{32}|directory)?", "32 hexadecimal digits")] | None = None
    sha256: Annotated[str, _written_as("([0-9a-fA-F]{64})?", "64 hexadecimal digits")] | None = None

    @property
    def made_at_run_time(self) -> bool:
        """Whether one of its sources has a placeholder in it."""
        return any(isinstance(source, str) and PLACEHOLDER.search(source) for source in self.sources)

    @property
    def is_directory(self) -> bool:
        """Whether it says so; a local source may turn out to be one all the same."""
        return self.md5 == "directory"

    @property
    def digests(self) -> dict[str, str]:
        """What it must be, by algorithm; empty where that is not known."""
        given = {"sha256": self.sha256, "md5": None if self.is_directory else self.md5}
        return {name: digest.lower() for name, digest in given.items() if digest}

    @pydantic.model_validator(mode="after")
    def _made_in_one_place(self) -> File:
        if self.made_at_run_time and len(self.sources) > 1:
            raise ValueError("a location with a placeholder is made at run time, and cannot be one of several; keep one")
        return self

    @pydantic.model_validator(mode="after")
    def _verifiable(self, info: pydantic.ValidationInfo) -> File:
        if self.made_at_run_time or info.context == UNPINNED:
            return self
        if any(isinstance(source, Generator) for source in self.sources) and not self.sha256:
            raise ValueError("a file from a generator needs its sha256; 'aibenchd spec pin' writes it")
        if any(remote(source) for source in self.sources) and not self.digests:
            raise ValueError(
                "a file from the network needs its digest: add sha256 (of sha256sum), or md5; 'aibenchd spec pin' writes it"
            )
        return self


class OutputFile(Open):
    """What a program writes: pulled from the device, read, and compared.

    Attributes:
        golden: what it must hold, within ``limits``.
        type, shape: of the array in a raw file or a text.
    """

    filename: FileName
    location: str = ""
    converter: Converter | None = None
    upload: bool = False
    golden: File | None = None
    format: Literal["npy", "raw", "text"] | None = None
    type: NumberType | None = None
    shape: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    tolerance: (
        Annotated[dict[Measure, Annotated[float, Field(ge=0, allow_inf_nan=False)]], pydantic.AfterValidator(_any_measure)] | None
    ) = None

    @property
    def form(self) -> str:
        """``npy``, ``raw`` or ``text``: as it says, else by the file name's suffix."""
        return self.format or SUFFIXES.get(PurePosixPath(self.filename).suffix, "text")

    @property
    def limits(self) -> dict[str, float]:
        """The largest value of each measure that is still right; empty where nothing is compared."""
        chosen = self.tolerance or (DEFAULT_TOLERANCE if self.golden else {})
        return {str(measure): limit for measure, limit in chosen.items()}

    @pydantic.model_validator(mode="after")
    def _readable(self) -> OutputFile:
        if self.form == "npy" and (self.type or self.shape is not None):
            raise ValueError("a .npy file states its own type and shape; remove them here, or say format: raw")
        if self.golden and self.form == "raw" and not self.type:
            raise ValueError("a raw file is bytes alone: add the type (such as float32) and the shape of what is in it")
        if self.golden and self.golden.made_at_run_time:
            raise ValueError("golden is fetched and verified; a location with a placeholder is made at run time instead")
        return self


class Library(Open):
    """A shared library, which programs find by LD_LIBRARY_PATH; ``location`` is relative to the specification."""

    location: str
    target: str = ""


class Process(Open):
    """Commands on the host around a repeat."""

    commands: tuple[str, ...] = ()
    command: str = ""
    files: dict[str, File] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """Its commands, whichever key they came by."""
        return (*self.commands, self.command) if self.command else self.commands


class PlatformArgs(Open):
    """How commands are run: ``retry`` times more where one exits with a failure, each after ``sleep_before_run`` seconds."""

    taskset: CpuMask | None = None
    sleep_before_run: Seconds = 0.0
    env: Environment = {}
    shell: bool = False
    retry: Annotated[int, Field(ge=0)] = 0
    ignore_status: bool = False
    log_output: bool = False


class App(Open):
    package: str
    activity: str = ""


class Meta(Open):
    """What a benchmarks file adds to each of its models: any field of a model."""

    format: Component | None = None
    files: dict[str, File] = {}
    libraries: tuple[Library, ...] = ()
    framework: str = ""
    group: str = ""
    kind: str = ""
    category: str = ""
    description: str = ""
    repeat: Annotated[int, Field(ge=1)] = 1
    cooldown: Seconds = 0.0
    timeout: Annotated[float | None, Field(gt=0)] = None
    env: Environment = {}
    log_output: bool | None = None
    platform_args: PlatformArgs = PlatformArgs()
    command_args: str = ""
    preprocess: Process | None = None
    postprocess: Process | None = None
    converter: Converter | None = None
    app: App | None = None


class Model(Meta):
    name: Component


class Input(Open):
    """Attributes:
    type: of all shapes, or one for each.
    """

    shapes: Annotated[tuple[tuple[int, ...], ...], Some]
    type: str | tuple[str, ...] = "float"

    @pydantic.model_validator(mode="after")
    def _as_many_types(self) -> Input:
        if not isinstance(self.type, str) and len(self.type) != len(self.shapes):
            raise ValueError(f"expected one type, or as many as shapes: {len(self.type)} types, {len(self.shapes)} shapes")
        return self


class Profiler(Open):
    """Its other keys (``types``, ``profiler``, ``options``, ``stat``) are readable as placeholders."""

    enabled: bool = False


class Test(Open):
    """One test of a model.

    Attributes:
        command_options: by framework, for the command that it composes where the test gives none.
    """

    __test__ = False  # pytest would take the name for its own

    identifier: Annotated[Text, Field(max_length=500)] = ""
    metric: Literal["delay", "error", "accuracy", "power", "generic"]
    iter: Annotated[int, Field(ge=-1)] = -1
    warmup: Annotated[int, Field(ge=-1)] = -1
    commands: Annotated[tuple[str, ...], Some] | None = None
    command: str | None = None
    arguments: str | None = None
    command_options: dict[str, dict[str, str]] = {}
    inputs: dict[str, Input] = {}
    input_files: dict[str, File] = {}
    files: dict[str, File] = {}
    output_files: dict[str, OutputFile] = {}
    preprocess: Process | None = None
    postprocess: Process | None = None
    platform_args: PlatformArgs | None = None
    timeout: Annotated[float | None, Field(gt=0)] = None
    env: Environment = {}
    log_output: bool | None = None
    statistics: tuple[Statistic, ...] = statistics.DEFAULT
    method: str = ""
    monsoon: dict[str, Any] = {}
    voltage: float | None = None
    collection_time: Seconds | None = None
    mkl_threads: Annotated[int | None, Field(alias="MKL_NUM_THREADS")] = None
    omp_threads: Annotated[int | None, Field(alias="OMP_NUM_THREADS")] = None
    cpu_list: Annotated[CpuList | None, Field(alias="cpu-list")] = None
    profiler: Profiler = Profiler()

    @property
    def says_what_to_run(self) -> bool:
        """Whether it has commands, or the inputs that the old form is composed of."""
        given = (self.commands, self.command, self.arguments)
        return any(one is not None for one in given) or bool(self.inputs or self.input_files)

    @pydantic.model_validator(mode="after")
    def _as_many_shapes(self) -> Test:
        if len({len(one.shapes) for one in self.inputs.values()}) > 1:
            counts = ", ".join(f"{name} has {len(one.shapes)}" for name, one in self.inputs.items())
            raise ValueError(f"all inputs need equally many shapes: {counts}")
        return self


def remote(source: str | Generator) -> bool:
    """Whether it is fetched over the network."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


class ModelFile(Open):
    """A specification: one model, and tests of it that each say what to run."""

    model: Model
    meta: Meta = Meta()
    tests: Annotated[tuple[Test, ...], Some]

    @pydantic.model_validator(mode="after")
    def _says_what_to_run(self) -> ModelFile:
        silent = [index for index, test in enumerate(self.tests) if not test.says_what_to_run]
        if silent and not any(whole.framework or whole.app for whole in (self.model, self.meta)):
            near = _near(self.tests[silent[0]].model_extra or {}, ("commands", "command", "arguments", "inputs"))
            raise _at(
                ("tests", silent[0]),
                "does not say what to run: expected commands, command or arguments (or inputs, the short hand), or a model that"
                f" names its framework{near}",
            )
        return self

    @pydantic.model_validator(mode="after")
    def _generic_all_or_none(self) -> ModelFile:
        odd = [index for index, test in enumerate(self.tests) if test.metric != "generic"]
        if self.tests[0].metric == "generic" and odd:
            raise _at(("tests", odd[0], "metric"), "where the first test's metric is generic all must be, and this one is not")
        return self


class BenchmarksFile(Open):
    """Specifications, by paths relative to it, and what it adds to the model of each."""

    meta: Meta = Meta()
    benchmarks: Annotated[tuple[str, ...], Some]


def typed(benchmark: model.Benchmark, context: str | None = None) -> tuple[Test, Model]:
    """The test and the model of an expanded benchmark.

    Args:
        context: ``UNPINNED`` for who does not need the digests of its files.

    Raises:
        CommandError: one of them is not valid.
    """
    try:
        return Test.model_validate(benchmark.test, context=context), Model.model_validate(benchmark.model, context=context)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise errors.CommandError(f"{benchmark.source}: {benchmark.identifier}: {key}: {first['msg']}") from error
