"""From a command line, and what a person answers, to what is run: settings, benchmarks, and the arms of each framework."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic

import aibenchd.runners
from aibenchd import digests, errors, kinds, model, plugins, quantities, settings, yamlfile
from aibenchd.build import script
from aibenchd.devices import base as devices
from aibenchd.migrate import answers as migration
from aibenchd.oneshot import answers, fleet, programs, worktrees
from aibenchd.oneshot.options import WORK_TREE, Options
from aibenchd.plan import coverage
from aibenchd.report import base as report
from aibenchd.specs import catalog
from aibenchd.watch import access
from aibenchd.watch import base as watch

RESULTS = "results"  # the sink that keeps what this run measured
RUNNER = "runner"  # what the arm is called that is a framework's own runner
ENGINE = "# No engine: the framework's own runner is all that is measured.\n"
OF_ONES_OWN = ("generic", "oculus")  # frameworks whose program is no engine for any model, but somebody's own benchmark
OF_ENVIRONMENT = ("AIBENCHD_", "ANDROID_", "DEVICE_PYTHON")  # what build scripts see of a developer's, beside PATH

Clone = Callable[[settings.RepositorySettings, Path], watch.Repository]  # of its own directory


@dataclass(frozen=True, slots=True)
class Arms:
    """What is measured of one framework.

    Attributes:
        make: makes the repository that ``treatment`` and ``control`` are resolved by.
        control: empty where the treatment is measured as it is.
        passing: whether a commit may stand for other programs the next time.
    """

    repository: settings.RepositorySettings
    make: Clone
    treatment: str
    control: str
    passing: bool


@dataclass(frozen=True, slots=True)
class Arranged:
    """All that a run is.

    Attributes:
        recipe: a digest of what builds are made by, beside their sources.
        warnings: what is odd in the specifications, but can be run.
        remarks: by unit of the board, what there is to say beside why it stands in the way.
    """

    settings: settings.Settings
    selected: Sequence[coverage.Selected]
    arms: Sequence[Arms]
    recipe: str
    warnings: Sequence[errors.Fault]
    remarks: Mapping[str, str]


def arrange(options: Options, known: answers.Answers, there: Sequence[devices.DeviceSettings], directory: Path) -> Arranged:
    """Find out all that a run needs. Blocking, and asks: call it where Ctrl-C is heard.

    Args:
        there: the devices.
        directory: the state directory of the run, which is its own.

    Raises:
        AibenchdError: something is wrong, or nobody knows it; the message says what to do.
    """
    if not options.benchmarks:
        path = known.of("benchmark file", "Which specification", "-b FILE", meant=_file)
        options = replace(options, benchmarks=(Path(path),))
    chosen = _settings(options, there, directory)
    found = catalog.load(chosen)
    selected = tuple(coverage.Selected(benchmark, selection) for selection, own in found.entries for benchmark in own)
    arms = _arms(options, known, _frameworks(options, known, selected), chosen, directory)
    builds = _overlaid(chosen.builds, [one for one in arms if one.passing], directory)
    repositories = tuple(one.repository for one in arms)
    arranged = chosen.model_copy(update={"repositories": repositories, "builds": builds})
    return Arranged(arranged, selected, arms, _recipe(chosen.builds), found.warnings, fleet.remarks(options))


def _settings(options: Options, there: Sequence[devices.DeviceSettings], directory: Path) -> settings.Settings:
    own = ("alpha", "beta", "min_effect", "max_blocks")
    experiment = {name: value for name in own if (value := getattr(options, name)) is not None}
    shipped = migration.shipped("specifications") or Path("specifications")
    times = {"max_time": options.seconds, "timeout": options.timeout}
    experiment |= {name: quantities.duration_text(value) for name, value in times.items() if value is not None}
    try:
        return settings.Settings(
            state_directory=directory,
            devices=tuple(there),
            builds=settings.BuildSettings(
                frameworks_directory=options.frameworks_directory or shipped / "frameworks",
                env={**_environment(), **options.build_env},
            ),
            benchmarks=tuple(_selection(path, options) for path in options.benchmarks),
            experiment=settings.ExperimentSettings(**experiment, blocks=options.blocks),
            models=settings.ModelCacheSettings(
                directory=options.model_cache or answers.cache() / "models",
                root=options.root_model_dir,
                generators_directory=shipped / "generators",
            ),
            sinks=(report.SinkSettings(name=RESULTS, kind=RESULTS, records="verdicts"), *_sinks(options)),
            user_identifier=options.user_identifier,
            user_string=options.user_string,
        )
    except pydantic.ValidationError as error:
        raise errors.CommandError(fleet.told(error)) from error


def _selection(path: Path, options: Options) -> settings.BenchmarkSelection:
    return settings.BenchmarkSelection(
        specification=path,
        backends=options.backends,
        string_map=dict(options.string_map),
        env=dict(options.env),
        command_args=options.command_args,
    )


def _sinks(options: Options) -> list[report.SinkSettings]:
    """Those of FAI-PEP's reporters that were asked for."""
    wanted: list[tuple[str, Mapping[str, Any]]] = []
    if options.local_reporter is not None:
        wanted.append(("local", {"directory": str(options.local_reporter)}))
    if options.simple_local_reporter is not None:
        wanted.append(("simple-local", {"directory": str(options.simple_local_reporter)}))
    if options.screen_reporter:
        wanted.append(("screen", {}))
    if options.simple_screen_reporter:
        wanted.append(("simple-screen", {}))
    if options.remote_reporter:
        token = {"token_file": str(options.remote_token_file)} if options.remote_token_file else {}
        wanted.append(("http", {"url": options.remote_reporter, "format": "faipep", **token}))
    return [_sink(kind, keys) for kind, keys in wanted]


def _sink(kind: str, keys: Mapping[str, Any]) -> report.SinkSettings:
    made: type[report.SinkSettings] = plugins.load("sinks", kind).Settings  # type: ignore[attr-defined]
    entry = {"name": kind, "kind": kind, "records": "verdicts", **keys}
    return made.model_validate_json(json.dumps(entry), context={"directory": Path.cwd()})


def _environment() -> dict[str, str]:
    wrappers = [path for path in script.COMPILER_CACHES if Path(path).is_dir()]
    own = {name: value for name, value in os.environ.items() if name.startswith(OF_ENVIRONMENT)}
    return {**own, "PATH": ":".join((*wrappers, os.environ.get("PATH") or script.PATH))}


def _frameworks(options: Options, known: answers.Answers, selected: Sequence[coverage.Selected]) -> list[str]:
    """The frameworks whose programs are measured: what the specification says, else the format of its model, else an answer."""
    if options.framework:
        return [_installed(options.framework)]
    _judge_names(selected)
    there = plugins.names("frameworks")
    found = dict.fromkeys(one.benchmark.framework or str(one.benchmark.model.get("format", "")) for one in selected)
    frameworks = [name for name in found if name in there]
    if not frameworks or (len(frameworks) > 1 and (options.treatment or options.info or options.repository)):
        known_ones = frameworks or there
        return [_installed(known.of("framework", "Which framework are the programs of", "--framework", known=known_ones))]
    return frameworks


def _judge_names(selected: Sequence[coverage.Selected]) -> None:
    """Whether each framework that a specification names is there; a model's format may be any word.

    Raises:
        InvalidFileError: with each that is not, in its file.
    """
    found = []
    for source, framework in {(one.benchmark.source, one.benchmark.framework) for one in selected if one.benchmark.framework}:
        try:
            kinds.check("frameworks", framework)
        except errors.UnknownKindError as error:
            found.append(yamlfile.load(Path(source)).fault(("model", "framework"), str(error)))
    if found:
        raise errors.InvalidFileError(found)


def _installed(framework: str) -> str:
    plugins.load("frameworks", framework)
    return framework


# ---- arms


def _arms(
    options: Options, known: answers.Answers, frameworks: Sequence[str], chosen: settings.Settings, directory: Path
) -> list[Arms]:
    if options.repository:
        return [_commits(options, frameworks[0])]
    if options.treatment or options.info:
        return [_programs(options, frameworks[0])]
    if options.control:
        raise errors.CommandError("--control without --program or --treatment: say what is compared with it")
    return [_alone(known, framework, chosen, directory) for framework in frameworks]


def _commits(options: Options, framework: str) -> Arms:
    treatment, control = (WORK_TREE[0] if name in WORK_TREE else name for name in (options.treatment, options.control))
    local = Path(options.repository).expanduser().absolute()
    found = worktrees.found(local) if local.is_dir() else None
    if found is not None:
        root, kind = found
        repository = _repository(str(root), options.vcs or kind, framework)
        return Arms(repository, worktrees.KINDS[repository.kind], treatment or WORK_TREE[0], control, passing=False)
    if not local.is_dir() and access.is_local(options.repository) and "://" not in options.repository:
        raise errors.CommandError(f"{options.repository}: there is no such directory; name a repository, or the URL of one")
    if local.is_dir() and not (local / "HEAD").is_file():  # which a repository without a working tree has
        raise errors.CommandError(f"{options.repository}: is no repository of git or Mercurial; name one, or the URL of one")
    if not treatment or WORK_TREE[0] in (treatment, control):
        raise errors.CommandError(f"{options.repository} has no working tree; name a commit")
    repository = _repository(str(local) if local.is_dir() else options.repository, options.vcs or "git", framework)
    return Arms(repository, plugins.load("repositories", repository.kind), treatment, control, passing=False)


def _repository(url: str, kind: str, framework: str) -> settings.RepositorySettings:
    return settings.RepositorySettings(
        name=_slug(Path(url.rstrip("/")).name.removesuffix(".git")),
        kind=kind,
        url=url,
        framework=framework,
        branch="tip" if kind == "hg" else "main",  # of no matter: commits are named
    )


def _programs(options: Options, framework: str) -> Arms:
    if options.info:
        given = {name: _of_info(name, options.info[name]) for name in ("treatment", "control") if options.info.get(name)}
        if "treatment" not in given:
            raise errors.CommandError("--info: expected a 'treatment' with its 'programs'")
    else:
        named = {"treatment": options.treatment, "control": options.control}
        given = {name: programs.Given(_existing(path)) for name, path in named.items() if path}
    by_name = {_shown(one.main, name, given.values()): one for name, one in given.items()}
    names = [*by_name, ""]
    return _of_programs(f"{framework}-program", framework, by_name, names[0], names[1])


def _of_programs(name: str, framework: str, given: Mapping[str, programs.Given], treatment: str, control: str) -> Arms:
    repository = settings.RepositorySettings(name=_slug(name), url=".", framework=framework)

    def make(chosen: settings.RepositorySettings, place: Path) -> watch.Repository:
        return programs.Programs(chosen, place, given)

    return Arms(repository, make, treatment, control, passing=True)


def _alone(known: answers.Answers, framework: str, chosen: settings.Settings, directory: Path) -> Arms:
    """A framework's runner, or where it has none the program that a person names."""
    found = script.find(chosen.builds.frameworks_directory, framework, chosen.devices[0].platform)
    if "AIBENCHD_RUNNERS" in found.path.read_text(errors="replace"):
        engine = directory / "engine"
        engine.mkdir(parents=True, exist_ok=True)
        (engine / "aibenchd_engine.py").write_text(ENGINE)
        own = {RUNNER: programs.Given(engine, is_source=True)}
        return replace(_of_programs(f"{framework}-{RUNNER}", framework, own, RUNNER, ""), passing=False)
    whose = _whose(framework, chosen)
    question = f"Where is the program of {whose}"
    path = known.of(f"program of {whose}", question, "--program", meant=lambda text: str(_existing(text)))
    return _of_programs(f"{framework}-program", framework, {path: programs.Given(_existing(path))}, path, "")


def _whose(framework: str, chosen: settings.Settings) -> str:
    """What a program is for, as its answer is kept: a framework, or the specifications where the program is the benchmark."""
    if framework not in OF_ONES_OWN:
        return framework
    return f"{framework} for {', '.join(str(one.specification) for one in chosen.benchmarks)}"


def _of_info(arm: str, said: Any) -> programs.Given:
    """An arm as FAI-PEP's ``--info`` has it: ``programs: {program: {location}, …}``, or ``program: path``."""
    if not isinstance(said, dict) or not isinstance(said.get("programs", {}), dict):
        raise errors.CommandError(f"--info: {arm}: expected an object with 'programs'")
    named = said.get("programs") or {"program": said.get("program")}
    found = {name: one.get("location") if isinstance(one, dict) else one for name, one in named.items()}
    paths = {name: _existing(path) for name, path in found.items() if isinstance(path, str)}
    if paths.keys() != found.keys() or "program" not in paths:
        raise errors.CommandError(f"--info: {arm}: expected {{'programs': {{'program': {{'location': 'PATH'}}}}}}")
    commit, time = said.get("commit", ""), said.get("commit_time")
    return programs.Given(
        paths["program"],
        others={name: path for name, path in paths.items() if name != "program"},
        commit=commit if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit) else "",
        time=datetime.fromtimestamp(time, UTC) if isinstance(time, int | float) and 0 < time < 1e11 else None,
    )


def _file(text: str) -> str:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise errors.CommandError(f"{text}: there is no such file")
    return str(path)


def _existing(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise errors.CommandError(f"{text}: there is no such program")
    if path.is_file() and not os.access(path, os.X_OK):
        raise errors.CommandError(f"{text}: is not executable; chmod +x it, or name the program")
    return path


def _shown(path: Path, arm: str, given: Any) -> str:
    """What an arm is called: its path, and which arm it is where both are the same file."""
    return str(path) if sum(one.main == path for one in given) == 1 else f"{path} ({arm})"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "repository"


def _recipe(builds: settings.BuildSettings) -> str:
    runners = sorted(Path(aibenchd.runners.__file__).parent.glob("*.py"))  # what is compiled beside them changes nothing
    parts = [digests.of_tree(builds.frameworks_directory), *map(digests.of_file, runners)]
    return model.digest_of([*parts, dict(builds.env)])


def _overlaid(builds: settings.BuildSettings, passing: Sequence[Arms], directory: Path) -> settings.BuildSettings:
    """The build scripts, but for frameworks whose programs are there already."""
    if not passing:
        return builds
    overlay = directory / "frameworks"
    if overlay.exists():
        shutil.rmtree(overlay)
    overlay.mkdir(parents=True)
    own = {one.repository.framework for one in passing}
    if builds.frameworks_directory.is_dir():
        for entry in builds.frameworks_directory.iterdir():
            if entry.name not in own:
                (overlay / entry.name).symlink_to(entry)
    for framework in own:
        programs.write_script(overlay, framework)
    return builds.model_copy(update={"frameworks_directory": overlay})
