"""The YAML file as pydantic models. Unknown keys are errors; secrets are never in it.

Devices and sinks bring the settings of their own kind; see :mod:`aibenchd.plugins`. ``python -m aibenchd.settings`` prints the
JSON Schema that editors complete the file by.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import pydantic
import pydantic.fields
from pydantic import Field

from aibenchd import consistency, credentials, errors, faults, kinds, plugins, quantities, yamlfile
from aibenchd.devices import base as device
from aibenchd.report import base as report

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
NotAnOption = Annotated[str, Field(pattern=r"^([^-]|$)", max_length=1024)]  # git and hg would take a leading dash for an option
Variables = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]
# For gcc or clang with lld. Code and data alone are shuffled: the order of what runs before main is the program's own affair.
SECTIONS = "-ffunction-sections -fdata-sections"
LAYOUT = {
    "CFLAGS": SECTIONS,
    "CXXFLAGS": SECTIONS,
    "LDFLAGS": " ".join(
        ("-fuse-ld=lld", *(f"-Wl,--shuffle-sections={name}*={{seed}}" for name in (".text", ".rodata", ".data", ".bss")))
    ),
}

Alpha = Annotated[float, Field(gt=0, lt=0.5, description="false alarms, at most, per experiment: 0.01 is one in a hundred")]
Beta = Annotated[float, Field(gt=0, lt=0.5, description="changes of min_effect that are called unchanged, at most")]
MinEffect = Annotated[float, Field(gt=0, lt=1, description="the smallest change that matters: 0.02 is 2 %")]
MOST_BLOCKS = 1_000  # a look weighs each block with each other: 0.1 s at 300, seconds at 1,000, and then as their third power


def _can_be_looked_at(blocks: int) -> int:
    if blocks > MOST_BLOCKS:
        raise ValueError(
            f"expected at most {MOST_BLOCKS:,}, not {blocks:,}: all blocks are weighed together after each, which takes seconds "
            "from there on; where so many decide nothing, a larger min_effect or a quieter device does"
        )
    return blocks


MaxBlocks = Annotated[
    int,
    Field(
        ge=1,
        description="blocks after which an experiment ends as inconclusive",
        json_schema_extra={"maximum": MOST_BLOCKS},  # which the validator says better
    ),
    pydantic.AfterValidator(_can_be_looked_at),
]
MaxTime = Annotated[quantities.Interval, Field(description="time since its first block after which it ends as inconclusive")]
Order = Annotated[Literal["coin", "pairs"], Field(description="of the arms in a block: a fair coin, or balanced pairs of blocks")]
TrialTimeout = Annotated[quantities.Interval, Field(description="of one trial; past it the program is killed with its children")]
DisturbCaches = Annotated[bool, Field(description="push each trial out of the device's caches before the next")]
Arms = Annotated[Literal[1, 2], Field(description="2: treatment against control; 1: the treatment as it is")]
Blocks = Annotated[int, Field(ge=1, le=1_000_000, description="blocks of an experiment of one arm")]


class Model(pydantic.BaseModel):
    """What all sections share: a key that is not known is a fault, and nothing changes once it is read."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class PathFilters(Model):
    """Which commits are worth a measurement: those that touch an included path that is not excluded. Globs, ``**`` too."""

    include: Annotated[tuple[str, ...], Field(description="globs; empty: every path")] = ()
    exclude: Annotated[tuple[str, ...], Field(description="globs; what they match does not count")] = ()


class Baseline(Model):
    """Which revision is the control of a treatment."""

    rule: Annotated[
        Literal["week-start", "previous", "pinned", "last-good"],
        Field(
            description="week-start: first commit at or after Monday 00:00 UTC of the treatment's week; previous: the one "
            "measured before; pinned: always 'commit'; last-good: the newest that has not regressed"
        ),
    ] = "previous"
    commit: Annotated[NotAnOption, Field(description="the control of the rule 'pinned'")] = ""
    base_commit: Annotated[NotAnOption, Field(description="used in place of week-start's commit where it is later")] = ""

    @pydantic.model_validator(mode="after")
    def _pinned_to_something(self) -> Self:
        if self.rule == "pinned" and not self.commit:
            raise ValueError("the rule 'pinned' needs a commit to pin to: add the key 'commit'")
        return self


class Credentials(Model):
    """How to reach a private remote. Files hold the secrets; names without a slash are systemd credentials."""

    ssh_key_file: Annotated[credentials.File | None, Field(description="private key for SSH, without a passphrase")] = None
    known_hosts_file: Annotated[
        credentials.File | None, Field(description="host keys that SSH accepts; none given: those of the daemon's user")
    ] = None
    token_file: Annotated[credentials.File | None, Field(description="holds the token or password for HTTPS, on one line")] = None
    username: Annotated[NotAnOption, Field(description="goes with the token; GitLab and GitHub take any")] = "oauth2"


class RepositorySettings(Model):
    """A remote whose commits are measured."""

    name: Annotated[
        Name, Field(description="what benchmarks, status and records call it; 'submitted' is what people send with aibenchctl")
    ]
    kind: Annotated[str, Field(description="version control system: git or hg")] = "git"
    url: Annotated[
        NotAnOption, Field(min_length=1, description="as git or hg clone takes it; ./ and ../ are relative to this file")
    ]
    branch: Annotated[NotAnOption, Field(min_length=1, description="git: a branch; hg: a bookmark or a named branch")] = "main"
    framework: Annotated[str, Field(description="which framework its builds are programs of")]
    poll_interval: Annotated[quantities.Interval, Field(description="time between two looks at the remote")] = 60.0
    start_at: Annotated[NotAnOption, Field(description="first commit to measure; empty: the newest when watching begins")] = ""
    step: Annotated[int, Field(ge=1, le=1_000_000, description="measure every so-many-th commit")] = 1
    min_run_interval: Annotated[quantities.Duration, Field(description="least time between two benchmark runs")] = 0.0
    paths: Annotated[PathFilters, Field(description="which commits are worth a measurement")] = PathFilters()
    baseline: Annotated[Baseline, Field(description="what a new commit is compared with")] = Baseline()
    backlog: Annotated[
        int, Field(ge=1, le=1_000_000, description="revisions that may wait for their verdict; what is between is coalesced")
    ] = 8
    priority: Annotated[int, Field(description="larger goes first, among repositories")] = 0
    credentials: Annotated[Credentials, Field(description="how to reach a private remote")] = Credentials()
    submodules: Annotated[bool, Field(description="check out git submodules (hg: subrepositories)")] = True
    large_files: Annotated[bool, Field(description="fetch Git LFS files")] = True
    timeout: Annotated[quantities.Interval, Field(description="of one call of git or hg")] = 3600.0


class BuildSettings(Model):
    """How revisions become programs."""

    frameworks_directory: Annotated[
        Path, Field(description="holds <framework>/<platform>/build.sh, or <framework>/build.sh for every platform")
    ] = Path("specifications/frameworks")
    parallel: Annotated[int, Field(ge=1, le=1024, description="builds at the same time, at most")] = 1
    same_host: Annotated[bool, Field(description="no build runs while the local host measures")] = True
    timeout: Annotated[quantities.Interval, Field(description="of one build")] = 3600.0
    cache_size: Annotated[quantities.Size, Field(description="of all programs kept; the least recently used go first")] = 20 << 30
    compiler_cache: Annotated[bool, Field(description="keep a directory for ccache between revisions (CCACHE_DIR)")] = True
    env: Annotated[Variables, Field(description="added to the small environment of each build")] = {}
    layout: Annotated[
        Variables,
        Field(
            description="appended to these variables of a build that is to have another memory layout, as verify.builds: relaid"
            " asks for; {seed} is AIBENCHD_LAYOUT_SEED"
        ),
    ] = LAYOUT

    @pydantic.field_validator("layout")
    @classmethod
    def _names_no_other_placeholder(cls, layout: dict[str, str]) -> dict[str, str]:
        for name, text in layout.items():
            if other := next((one for one in re.findall(r"(?<!\$)\{[^}]*\}?", text) if one != "{seed}"), None):
                raise ValueError(f"{name}: expected no placeholder but {{seed}}, found {other!r}")
        if layout and not any("{seed}" in text for text in layout.values()):
            raise ValueError(
                "expected {seed} in one of them, such as LDFLAGS: -fuse-ld=lld -Wl,--shuffle-sections=*={seed}: without it every "
                "build is laid out alike; {} is for a build.sh that heeds AIBENCHD_LAYOUT_SEED"
            )
        return layout


class ExperimentSettings(Model):
    """How experiments are run and decided; a benchmark selection may override each key."""

    alpha: Alpha = 0.01
    beta: Beta = 0.05
    min_effect: MinEffect = 0.02
    max_blocks: MaxBlocks = 60
    max_time: MaxTime = 3600.0
    order: Order = "coin"
    timeout: TrialTimeout = 600.0
    disturb_caches: DisturbCaches = True
    arms: Arms = 2
    blocks: Blocks = 3


class ExperimentOverrides(Model):
    """A benchmark's own values of the section 'experiment'; null where that holds."""

    alpha: Alpha | None = None
    beta: Beta | None = None
    min_effect: MinEffect | None = None
    max_blocks: MaxBlocks | None = None
    max_time: MaxTime | None = None
    order: Order | None = None
    timeout: TrialTimeout | None = None
    disturb_caches: DisturbCaches | None = None
    arms: Arms | None = None
    blocks: Blocks | None = None


class VerifySettings(Model):
    """How a suspected regression is measured again before it is called one."""

    enabled: Annotated[bool, Field(description="measure each suspected regression again, independently")] = True
    builds: Annotated[
        Literal["same", "fresh", "relaid"],
        Field(
            description="of both commits: those that were measured; fresh: others, built anew with AIBENCHD_COPY=1; "
            "relaid: others, built with another memory layout by what builds.layout says"
        ),
    ] = "same"
    false_discovery_rate: Annotated[
        float,
        Field(gt=0, lt=1, description="of the regressions of one commit that are confirmed, the share that is none, at most"),
    ] = 0.05
    profile: Annotated[
        bool, Field(description="run both arms of a confirmed regression once more under a profiler, and keep where they differ")
    ] = True
    pages_a_month: Annotated[
        float | None,
        Field(gt=0, description="in place of the rate: so many confirmed regressions a month are none, at most, on average"),
    ] = None

    @pydantic.model_validator(mode="after")
    def _has_one_promise(self) -> Self:
        if self.pages_a_month is not None and "false_discovery_rate" in self.model_fields_set:
            raise ValueError(
                "choose one: expected pages_a_month, a number of false ones a month, or false_discovery_rate, their share of "
                "each commit's; take the other out"
            )
        return self


def _no_percentage(value: Any) -> Any:
    if isinstance(value, int | float) and 1 < value <= 100:
        raise ValueError(f"expected a probability, below 1: {value:g} % is {value / 100:g}")
    return value


class BisectSettings(Model):
    """How the commits at fault are found, where several are between the control and a confirmed regression."""

    enabled: Annotated[bool, Field(description="measure the commits between")] = True
    confidence: Annotated[
        float,
        Field(gt=0.5, lt=1, description="ends when it is so probable that all culprits are named and no other commit"),
        pydantic.BeforeValidator(_no_percentage),
    ] = 0.97
    max_blocks: Annotated[int, Field(ge=1, le=100_000, description="budget of one search, on each device")] = 500
    max_builds: Annotated[int, Field(ge=0, le=10_000, description="revisions that one search may have built")] = 40


class CreepSettings(Model):
    """How drifts over many commits are found that none of them shows."""

    enabled: Annotated[bool, Field(description="compare commits that are far apart now and then, and where a series creeps")] = (
        True
    )
    run_length: Annotated[
        float, Field(gt=1, description="commits of one series to a false alarm of creep, on average, at least")
    ] = 10_000


class SelfCheckSettings(Model):
    """How the program measures its own rate of false alarms."""

    share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="of the experiments, after which the commit is compared with itself: half of them by two builds",
        ),
    ] = 0.02


class DeviceSelection(Model):
    """Which devices: those that match any of what is named; all where nothing is named."""

    names: Annotated[tuple[str, ...], Field(description="names of devices")] = ()
    kinds: Annotated[tuple[str, ...], Field(description="every device of these kinds")] = ()
    tags: Annotated[tuple[str, ...], Field(description="every device with one of these tags")] = ()
    hashes: Annotated[tuple[str, ...], Field(description="devices that turned out to have these, such as serial numbers")] = ()
    models: Annotated[
        tuple[str, ...], Field(description="every device that turned out to be a <model>-<release>-<sdk> of these")
    ] = ()
    abis: Annotated[tuple[str, ...], Field(description="every device that turned out to run programs of these")] = ()
    exclude: Annotated[tuple[str, ...], Field(description="names of devices that are left out all the same")] = ()


class BenchmarkSelection(Model):
    """One specification (a model file, a benchmarks file, or a directory of model files) and where it runs."""

    specification: Annotated[
        Path, Field(description="a model file or a benchmarks file, JSON or YAML; or a directory: all model files below it")
    ]
    repositories: Annotated[tuple[str, ...], Field(description="names; empty: all whose framework fits")] = ()
    devices: Annotated[DeviceSelection, Field(description="where it runs; empty: on every device")] = DeviceSelection()
    backends: Annotated[
        tuple[str, ...],
        Field(
            description="one experiment for each; all: every one that the framework can be asked for and the device offers; "
            "empty: those that the device lists, else what the program chooses"
        ),
    ] = ()
    string_map: Annotated[dict[str, str], Field(description="replaced in every value of the specification: {key} -> value")] = {}
    meta: Annotated[
        dict[str, Any], Field(description="merged into its models, after what its files say; any key of a model")
    ] = {}
    env: Annotated[Variables, Field(description="environment of its programs")] = {}
    command_args: Annotated[str, Field(description="appended to each of its commands that runs the program")] = ""
    priority: Annotated[int, Field(description="larger goes first, among benchmarks")] = 0
    experiment: Annotated[ExperimentOverrides, Field(description="what differs from the top-level experiment section")] = (
        ExperimentOverrides()
    )


class ModelCacheSettings(Model):
    """Where model files are kept on this host."""

    directory: Annotated[Path | None, Field(description="default: models below the state directory")] = None
    root: Annotated[Path | None, Field(description="what a location that begins with // is relative to")] = None
    max_file_size: Annotated[quantities.Size, Field(description="a larger model file is refused")] = 4 << 30
    cache_size: Annotated[quantities.Size, Field(description="of all model files kept; the least recently used go first")] = (
        50 << 30
    )
    timeout: Annotated[quantities.Interval, Field(description="without a byte, while downloading")] = 60.0
    parallel: Annotated[int, Field(ge=1, le=64, description="files fetched at the same time, at most")] = 4
    generators_directory: Annotated[
        Path,
        Field(
            description="where programs that write model files are looked for that do not lie beside the specification; "
            "then in generators beside the models that it lies in"
        ),
    ] = Path("specifications/generators")
    generator_timeout: Annotated[quantities.Interval, Field(description="of one such program")] = 600.0


class StatusSettings(Model):
    """The status socket, which aibenchctl and curl --unix-socket speak to."""

    socket: Annotated[Path | None, Field(description="default: aibenchd.sock in the runtime or state directory")] = None
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$", description="of the socket, in quotes: who may look")] = "0660"
    group: Annotated[str, Field(description="group of the socket; empty: the daemon's own")] = ""
    operators: Annotated[
        tuple[str, ...],
        Field(description="groups whose members may change things; root and the daemon's user always may"),
    ] = ()
    metrics_listen: Annotated[
        str, Field(pattern=r"^$|^.+:[0-9]{1,5}$", description="host:port for /metrics alone; empty: none")
    ] = ""


class SubmissionSettings(Model):
    """Programs that people build at their desks and send, which run on devices as all programs do."""

    groups: Annotated[
        tuple[str, ...],
        Field(description="groups whose members may send programs; root and the daemon's user always may"),
    ] = ()
    max_size: Annotated[
        quantities.Size, Field(description="of one program with all that belongs to it, or of one file of a specification")
    ] = 512 << 20
    cache_size: Annotated[
        quantities.Size,
        Field(description="of all that was sent, half of it by one user at most; what was used longest ago goes first"),
    ] = 10 << 30
    keep: Annotated[quantities.Interval, Field(description="how long it is kept after it was last used")] = 7 * 86400.0


class DashboardSettings(Model):
    """The dashboard, for browsers; /metrics and what can be read of the API are there too."""

    listen: Annotated[
        str, Field(pattern=r"^$|^.+:[0-9]{1,5}$", description="host:port, such as 127.0.0.1:8080; empty: no dashboard")
    ] = ""
    token_file: Annotated[
        credentials.File | None,
        Field(description="holds the token that people sign in with; needed where others than this host's users can reach it"),
    ] = None

    @pydantic.model_validator(mode="after")
    def _open_to_this_host_alone(self) -> Self:
        host = self.listen.rpartition(":")[0].strip("[]")
        if self.listen and self.token_file is None and not is_loopback(host):
            raise ValueError(f"{host} can be reached from elsewhere: add the key 'token_file', or listen on 127.0.0.1")
        return self


def is_loopback(host: str) -> bool:
    """Whether an address, or the name ``localhost``, is of this host alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class RetentionSettings(Model):
    """How long things are kept. Verdicts are kept for ever."""

    samples: Annotated[quantities.Interval, Field(description="raw samples of trials, and which did not count")] = 90 * 86400.0
    logs: Annotated[quantities.Interval, Field(description="output of builds and trials")] = 30 * 86400.0
    outbox_size: Annotated[quantities.Size, Field(description="past it the oldest samples go, never a verdict")] = 1 << 30


_GROUPS: dict[type[pydantic.BaseModel], str] = {
    device.DeviceSettings: "devices",
    report.SinkSettings: "sinks",
    report.FormatSettings: "formats",
}


def of_kind(base: type[pydantic.BaseModel], value: Any) -> type[pydantic.BaseModel]:
    """The settings class of the kind that a mapping names; ``base`` itself where kinds do not matter.

    Raises:
        UnknownKindError: it names none, or one that no installed package offers.
    """
    return kinds.of_kind(base, _GROUPS[base], value) if base in _GROUPS else base


def _of_other_kinds(key_path: tuple[str | int, ...]) -> str:
    """Which kinds of device or sink have a key, of those that can be imported."""
    if len(key_path) != 3 or key_path[0] not in _GROUPS.values():
        return ""
    section, _, key = key_path
    having = []
    for kind in plugins.names(str(section)):
        with contextlib.suppress(errors.UnknownKindError):
            settings: type[pydantic.BaseModel] = plugins.load(str(section), kind).Settings  # type: ignore[attr-defined]
            having += [kind] if key in settings.model_fields else []
    return f"it belongs to the kind{'s' if having[1:] else ''} {', '.join(having)}" if having else ""


AnyDevice = Annotated[pydantic.SerializeAsAny[device.DeviceSettings], kinds.validator(device.DeviceSettings, "devices")]
AnySink = Annotated[pydantic.SerializeAsAny[report.SinkSettings], kinds.validator(report.SinkSettings, "sinks")]


class Settings(Model):
    """The configuration of aibenchd."""

    version: Annotated[Literal[1], Field(description="of this file's format")] = 1
    state_directory: Annotated[Path | None, Field(description="default: $STATE_DIRECTORY, as systemd sets it")] = None
    repositories: Annotated[tuple[RepositorySettings, ...], Field(description="what is watched")] = ()
    builds: Annotated[BuildSettings, Field(description="how revisions become programs")] = BuildSettings()
    devices: Annotated[
        tuple[AnyDevice, ...], Field(description="what is measured on; the kind decides which keys there are")
    ] = ()
    benchmarks: Annotated[tuple[BenchmarkSelection, ...], Field(description="what is measured")] = ()
    experiment: Annotated[ExperimentSettings, Field(description="how it is decided")] = ExperimentSettings()
    verify: Annotated[VerifySettings, Field(description="how what regressed is confirmed")] = VerifySettings()
    selfcheck: Annotated[SelfCheckSettings, Field(description="how false alarms are counted")] = SelfCheckSettings()
    creep: Annotated[CreepSettings, Field(description="how drifts over many commits are found")] = CreepSettings()
    bisect: Annotated[BisectSettings, Field(description="how the commits at fault are found")] = BisectSettings()
    models: Annotated[ModelCacheSettings, Field(description="where model files are kept")] = ModelCacheSettings()
    sinks: Annotated[tuple[AnySink, ...], Field(description="where results go; the kind decides which keys there are")] = ()
    status: Annotated[StatusSettings, Field(description="the status socket")] = StatusSettings()
    submissions: Annotated[SubmissionSettings, Field(description="programs that people send")] = SubmissionSettings()
    dashboard: Annotated[DashboardSettings, Field(description="for browsers")] = DashboardSettings()
    retention: Annotated[RetentionSettings, Field(description="how long things are kept")] = RetentionSettings()
    run: Annotated[device.RunSettings, Field(description="who builds and programs run as")] = device.RunSettings()
    status_file: Annotated[Path | None, Field(description="FAI-PEP's: the daemon pauses while its first line is 0")] = None
    stop_timeout: Annotated[quantities.Duration, Field(description="time that SIGTERM leaves the block in flight")] = 30.0
    user_identifier: Annotated[str, Field(description="FAI-PEP's: goes into every record as it is")] = ""
    user_string: Annotated[str, Field(description="FAI-PEP's: goes into every record as its user")] = ""


def load(path: Path) -> Settings:
    """Read and validate a configuration. Paths in it come back absolute: they are relative to its directory. Blocking.

    Raises:
        InvalidFileError: with all its faults.
    """
    document = yamlfile.load(path)
    found = [*document.duplicates, *consistency.of(document)]
    try:
        settings = _validated(document.value, _directory(path))
    except pydantic.ValidationError as error:
        known = {fault.key for fault in found}
        found += [fault for fault in faults.of(error, document, Settings, of_kind, _of_other_kinds) if fault.key not in known]
        raise errors.InvalidFileError(found) from error
    if found:
        raise errors.InvalidFileError(found)
    return settings


def state_directory(chosen: Settings) -> Path:
    """Where the journal and all else lies: as configured, else what systemd gave.

    Raises:
        HarnessError: neither says.
    """
    directory = known_state_directory(chosen)
    if directory is None:
        raise errors.HarnessError(
            "no state directory: set state_directory in the configuration, or STATE_DIRECTORY (under systemd: /var/lib/aibenchd)"
        )
    return directory


def known_state_directory(chosen: Settings) -> Path | None:
    """As :func:`state_directory`; None where neither says."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return chosen.state_directory or (Path(given) if given else None)


def _validated(value: Any, directory: Path) -> Settings:
    settings = Settings.model_validate_json(json.dumps(value), strict=True, context={"directory": directory})
    return _anchored(settings, directory)


def _directory(path: Path) -> Path:
    return Path(os.path.abspath(path)).parent  # noqa: PTH100  a link's own directory, not its target's


def without(document: yamlfile.Document, found: Iterable[errors.Fault]) -> tuple[Settings, Mapping[str, tuple[int, ...]]]:
    """What of a file with faults can be looked at all the same: the repositories, devices, selections and sinks without any,
    and repositories whose faults are of keys that say nothing of how they are reached, without these keys.

    Returns:
        These alone, and by section their places in the file.
    """
    value = document.value if isinstance(document.value, dict) else {}
    keys = [fault.key for fault in found]
    aside = {match.group() for key in keys if (match := _ASIDE.match(key))}
    faulty = {match.group() for key in keys if not _ASIDE.match(key) and (match := _ITEM.match(key))}
    devices = () if "run" in faulty else ("devices",)  # whose programs run as that says
    sections = ("repositories", *devices, "benchmarks", "sinks")
    places = {
        key: tuple(place for place in range(len(value[key])) if f"{key}[{place}]" not in faulty)
        for key in sections
        if isinstance(value.get(key), list) and key not in faulty
    }
    part = {key: value[key] for key in ("state_directory", "run") if key in value and key not in faulty}
    part |= {key: [_less(value[key][place], f"{key}[{place}]", aside) for place in kept] for key, kept in places.items()}
    return _validated(part, _directory(Path(document.file))), places


def _less(item: Any, at: str, aside: Collection[str]) -> Any:
    """An entry without those of its keys that are set aside."""
    return {key: value for key, value in item.items() if f"{at}.{key}" not in aside} if isinstance(item, dict) else item


_ITEM = re.compile(r"\w+(\[[0-9]+\])?")  # of a fault's key
_ASIDE = re.compile(
    r"repositories\[[0-9]+\]\.(poll_interval|start_at|step|min_run_interval|paths|baseline|backlog|priority|submodules|large_files)\b"
)

Value = TypeVar("Value")


def _anchored(value: Value, directory: Path) -> Value:
    """With every relative path in it made absolute; itself where there is none."""
    if isinstance(value, pydantic.BaseModel):
        fields = {name: _field(value, name, directory) for name in type(value).model_fields}
        changed = {name: new for name, new in fields.items() if new is not getattr(value, name)}
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, tuple):
        items = tuple(_anchored(item, directory) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value  # type: ignore[return-value]
    if isinstance(value, Path) and not value.is_absolute():
        return directory / value
    return value


def _field(settings: pydantic.BaseModel, name: str, directory: Path) -> Any:
    value = getattr(settings, name)
    if is_credential(type(settings).model_fields[name]):
        return value
    if isinstance(settings, RepositorySettings) and name == "url" and value.startswith(("./", "../")):
        return str(directory / value)
    return _anchored(value, directory)


def is_credential(field: pydantic.fields.FieldInfo) -> bool:
    """Whether a key names a :data:`credentials.File <aibenchd.credentials.File>`."""
    inner = (marker for arg in get_args(field.annotation) for marker in getattr(arg, "__metadata__", ()))
    return credentials.MARK in field.metadata or credentials.MARK in inner


def credential_files(value: Any, key_path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Path]]:
    """All files with secrets that a configuration names, with the paths of their keys."""
    if isinstance(value, pydantic.BaseModel):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if inner is not None and is_credential(field):
                yield (*key_path, name), inner
            yield from credential_files(inner, (*key_path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from credential_files(item, (*key_path, index))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the whole file, with the keys of every installed kind of device and sink."""
    schema = Settings.model_json_schema()
    definitions = schema["$defs"]
    for base in (device.DeviceSettings, report.SinkSettings):
        schema["properties"][_GROUPS[base]]["items"] = _kinds_schema(base, definitions)
        del definitions[base.__name__]
    _name_formats(definitions)
    _enumerate(schema["$defs"]["RepositorySettings"]["properties"], {"kind": "repositories", "framework": "frameworks"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "aibenchd", **_tidied(schema)}


def _kinds_schema(base: type[pydantic.BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """The kind picks the keys: editors then complete, and complain, by that kind alone."""
    group = _GROUPS[base]
    cases = []
    for kind in plugins.names(group):
        try:
            own = of_kind(base, {"kind": kind}).model_json_schema()
        except errors.UnknownKindError:  # what it needs is not installed here
            continue
        definitions.update(own.pop("$defs", {}))
        own["properties"]["kind"] |= {"const": kind}
        definitions[f"{group}-{kind}"] = own
        named = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
        cases.append({"if": named, "then": {"$ref": f"#/$defs/{group}-{kind}"}})
    kind_key = {"kind": {"type": "string", "enum": list(plugins.names(group))}}
    required = [name for name, field in base.model_fields.items() if field.is_required()]
    return {"type": "object", "required": required, "properties": kind_key, "allOf": cases}


def _name_formats(definitions: dict[str, Any]) -> None:
    """A format is its name alone, or a mapping with the keys of its kind."""
    base = report.FormatSettings
    either = [{"type": "string", "enum": list(plugins.names(_GROUPS[base]))}, _kinds_schema(base, definitions)]
    for definition in tuple(definitions.values()):
        for key, value in definition.get("properties", {}).items():
            if value.get("$ref") == f"#/$defs/{base.__name__}":
                kept = {name: value[name] for name in ("description",) if name in value}
                definition["properties"][key] = {"anyOf": either, "default": value["default"]["kind"], **kept}
    del definitions[base.__name__]


def _enumerate(properties: dict[str, Any], groups: dict[str, str]) -> None:
    for key, group in groups.items():
        properties[key]["enum"] = list(plugins.names(group))


_TEXTS = {quantities.DURATION_PATTERN: quantities.duration_text, quantities.SIZE_PATTERN: quantities.size_text}


def _tidied(value: Any) -> Any:
    """Without the titles that pydantic makes of names, and with defaults as the file would have them."""
    if isinstance(value, list):
        return [_tidied(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidied = {key: _tidied(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
    text = _TEXTS.get(str(value.get("pattern")))
    if text is None:
        return tidied
    if isinstance(value.get("default"), int | float):
        tidied["default"] = text(value["default"])
    return {key: item for key, item in tidied.items() if key not in ("gt", "ge")}  # of the number, not of its text


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
