"""The YAML file as pydantic models. Unknown keys are errors; secrets are never in it.

Devices and sinks bring the settings of their own kind; see :mod:`aibenchd.plugins`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from aibenchd import quantities
from aibenchd.devices import base as device
from aibenchd.report import base as report

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class PathFilters(Model):
    """Which commits are worth a measurement: those that touch an included path that is not excluded. Globs, ``**`` too."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class Baseline(Model):
    """Which revision is the control of a treatment."""

    rule: Literal["week-start", "previous", "pinned", "last-good"] = "previous"
    commit: Annotated[str, Field(description="the control of the rule 'pinned'")] = ""
    base_commit: Annotated[str, Field(description="used in place of week-start's commit where it is later")] = ""


class Credentials(Model):
    """How to reach a private remote. Files hold the secrets; names without a slash are systemd credentials."""

    ssh_key_file: Path | None = None
    known_hosts_file: Path | None = None
    token_file: Path | None = None
    username: str = "oauth2"


class RepositorySettings(Model):
    name: Name
    kind: str = "git"
    url: str
    branch: Annotated[str, Field(description="git: a branch; hg: a bookmark or a named branch")] = "main"
    framework: Annotated[str, Field(description="which framework its builds are programs of")]
    poll_interval: quantities.Duration = 60.0
    start_at: Annotated[str, Field(description="first commit to measure; empty: the newest when watching begins")] = ""
    step: Annotated[int, Field(ge=1, description="measure every so-many-th commit")] = 1
    min_run_interval: Annotated[quantities.Duration, Field(description="least time between two benchmark runs")] = 0.0
    paths: PathFilters = PathFilters()
    baseline: Baseline = Baseline()
    backlog: Annotated[
        int, Field(ge=1, description="revisions that may wait for their verdict; what is between is coalesced")
    ] = 8
    priority: int = 0
    credentials: Credentials = Credentials()
    submodules: bool = True
    large_files: Annotated[bool, Field(description="fetch Git LFS files")] = True
    timeout: Annotated[quantities.Duration, Field(description="of one call of git or hg")] = 3600.0


class BuildSettings(Model):
    frameworks_directory: Path = Path("specifications/frameworks")
    parallel: Annotated[int, Field(ge=1)] = 1
    same_host: Annotated[bool, Field(description="no build runs while the local host measures")] = True
    timeout: quantities.Duration = 3600.0
    cache_size: quantities.Size = 20 << 30
    compiler_cache: Annotated[bool, Field(description="keep a directory for ccache between revisions (CCACHE_DIR)")] = True
    env: dict[str, str] = {}


class ExperimentSettings(Model):
    """How experiments are run and decided; a benchmark selection may override each key."""

    alpha: Annotated[float, Field(gt=0, lt=0.5, description="false alarms, at most, per experiment")] = 0.01
    beta: Annotated[float, Field(gt=0, lt=0.5, description="changes of min_effect that are called unchanged, at most")] = 0.05
    min_effect: Annotated[float, Field(gt=0, lt=1, description="the smallest change that matters: 0.02 is 2 %")] = 0.02
    max_blocks: Annotated[int, Field(ge=1)] = 60
    max_time: quantities.Duration = 3600.0
    order: Annotated[
        Literal["coin", "pairs"], Field(description="of the arms in a block: a fair coin, or balanced pairs of blocks")
    ] = "coin"
    timeout: Annotated[quantities.Duration, Field(description="of one trial")] = 600.0
    disturb_caches: bool = True
    arms: Annotated[Literal[1, 2], Field(description="2: treatment against control; 1: the treatment as it is")] = 2
    blocks: Annotated[int, Field(ge=1, description="blocks of an experiment of one arm")] = 3


class ExperimentOverrides(Model):
    """A benchmark's own values of :class:`ExperimentSettings`; None where the top-level section holds."""

    alpha: Annotated[float | None, Field(gt=0, lt=0.5)] = None
    beta: Annotated[float | None, Field(gt=0, lt=0.5)] = None
    min_effect: Annotated[float | None, Field(gt=0, lt=1)] = None
    max_blocks: Annotated[int | None, Field(ge=1)] = None
    max_time: quantities.Duration | None = None
    order: Literal["coin", "pairs"] | None = None
    timeout: quantities.Duration | None = None
    disturb_caches: bool | None = None
    arms: Literal[1, 2] | None = None
    blocks: Annotated[int | None, Field(ge=1)] = None


class DeviceSelection(Model):
    """Which devices: those that match any of what is named; all where nothing is named."""

    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class BenchmarkSelection(Model):
    """One specification (a model file or a benchmarks file) and where it runs."""

    specification: Path
    repositories: Annotated[tuple[str, ...], Field(description="empty: all whose framework fits")] = ()
    devices: DeviceSelection = DeviceSelection()
    backends: Annotated[tuple[str, ...], Field(description="empty: what the program chooses")] = ()
    string_map: dict[str, str] = {}
    env: dict[str, str] = {}
    command_args: str = ""
    priority: int = 0
    experiment: Annotated[ExperimentOverrides, Field(description="what differs from the top-level experiment section")] = (
        ExperimentOverrides()
    )


class ModelCacheSettings(Model):
    """Where model files are kept on this host."""

    directory: Annotated[Path | None, Field(description="default: models below the state directory")] = None
    root: Annotated[Path | None, Field(description="what a location that begins with // is relative to")] = None
    max_file_size: quantities.Size = 4 << 30
    timeout: Annotated[quantities.Duration, Field(description="without a byte, while downloading")] = 60.0


class StatusSettings(Model):
    socket: Annotated[Path | None, Field(description="default: aibenchd.sock in the runtime or state directory")] = None
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0660"
    group: Annotated[str, Field(description="group of the socket; empty: the daemon's own")] = ""
    operators: Annotated[
        tuple[str, ...],
        Field(description="groups whose members may change things; root and the daemon's user always may"),
    ] = ()
    metrics_listen: Annotated[str, Field(pattern=r"^$|^.+:\d+$", description="host:port for /metrics alone; empty: none")] = ""


class RetentionSettings(Model):
    samples: quantities.Duration = 90 * 86400.0
    logs: quantities.Duration = 30 * 86400.0
    outbox_size: Annotated[quantities.Size, Field(description="past it the oldest samples go, never a verdict")] = 1 << 30


class Settings(Model):
    version: Literal[1] = 1
    state_directory: Annotated[Path | None, Field(description="default: $STATE_DIRECTORY, as systemd sets it")] = None
    repositories: tuple[RepositorySettings, ...] = ()
    builds: BuildSettings = BuildSettings()
    devices: tuple[device.DeviceSettings, ...] = ()
    benchmarks: tuple[BenchmarkSelection, ...] = ()
    experiment: ExperimentSettings = ExperimentSettings()
    models: ModelCacheSettings = ModelCacheSettings()
    sinks: tuple[report.SinkSettings, ...] = ()
    status: StatusSettings = StatusSettings()
    retention: RetentionSettings = RetentionSettings()
    run: device.RunSettings = device.RunSettings()
    status_file: Annotated[Path | None, Field(description="FAI-PEP's: the daemon pauses while its first line is 0")] = None
    stop_timeout: Annotated[quantities.Duration, Field(description="time that SIGTERM leaves the block in flight")] = 30.0
    user_identifier: str = ""
    user_string: str = ""
