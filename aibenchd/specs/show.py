"""``aibenchd spec show``: what specifications come to, with stand-ins for the places where things lie.

With ``--json`` it prints one object, whose keys are kept from version to version (new ones may come)::

    benchmarks[]         in the order of the file, after expansion
      source, model, identifier, metric, framework, platform, backend
      app                  package/activity of an Android app, else empty
      iterations, warmup, repeat          -1: not given
      timeout, cooldown, sleep_before_run seconds
      env, threads         variables of the program's environment; threads on hosts alone
      cpus[]               empty: those of the device
      log_output, statistics[]
      files, input_files, host_files      by key: {filename, sources[], sha256, md5, path}
      output_files         by key: {filename, path, pulled}
      libraries[]          {location, target}
      preprocess, postprocess             {model[], test[]}: commands on this host, the model's and the test's
      commands[]           on the device
      unknown[]            names in any of these commands that nothing stands for
      fields               {model, test}: all their keys, as merged and expanded
    warnings[], faults[]   texts; a fault is of a benchmark that is not among those above

Paths: ``/device`` and ``/build`` are on the device, ``/host`` is on this host.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aibenchd import errors, model, plugins, settings
from aibenchd.frameworks import base, placeholders
from aibenchd.specs import catalog, conditions, schema

DEVICE, HOST, BUILD = "/device", "/host", "/build"


def run(parsed: argparse.Namespace) -> int:
    """Print what the files come to, warnings and faults to standard error; 1 where a benchmark cannot be composed, else 0.

    Raises:
        InvalidFileError: a file has faults.
    """
    string_map = {key: str(value) for key, value in parsed.string_map.items()}
    selections = tuple(
        settings.BenchmarkSelection(specification=path, string_map=string_map, meta=parsed.meta) for path in parsed.files
    )
    found = catalog.load(settings.Settings(benchmarks=selections), schema.UNPINNED)
    asked = Asked(parsed.framework, parsed.platform, parsed.backend, parsed.command_args, tuple(parsed.program), parsed.index)
    shown, faults = _described(itertools.chain.from_iterable(benchmarks for _, benchmarks in found.entries), asked)
    warnings = [*map(str, found.warnings), *_unpinned(shown), *_unknown(shown)]
    sys.stderr.writelines(f"{text}\n" for text in (*(f"warning: {warning}" for warning in warnings), *faults))
    whole = {"benchmarks": shown, "warnings": warnings, "faults": faults}
    text = json.dumps(whole, indent=2) if parsed.json else "\n\n".join(map(_text, shown))
    sys.stdout.write(f"{text}\n" if text else "")
    return int(bool(faults))


def _described(benchmarks: Iterable[model.Benchmark], asked: Asked) -> tuple[list[dict[str, Any]], list[str]]:
    """Those that can be composed, and why the others cannot."""
    shown: list[dict[str, Any]] = []
    faults: list[str] = []
    for benchmark in benchmarks:
        try:
            shown.append(described(benchmark, asked))
        except errors.AibenchdError as error:
            faults.append(str(error))
    return shown, faults


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """For what commands are composed; empty texts leave the choice to others."""

    framework: str = ""
    platform: str = "host"
    backend: str = ""
    command_args: str = ""
    programs: Sequence[str] = ()
    index: int = 0


def described(benchmark: model.Benchmark, asked: Asked) -> dict[str, Any]:
    """A benchmark as the JSON object above.

    Raises:
        CommandError, UnknownKindError: its commands cannot be composed.
    """
    name = _framework(benchmark, asked)
    framework: base.Framework = plugins.load("frameworks", name)()
    test, whole = schema.typed(benchmark, schema.UNPINNED)
    how = conditions.of(benchmark, timeout=settings.ExperimentSettings().timeout)
    device, host = _places(benchmark, test, whole, asked)
    around = {
        key: {
            owner: placeholders.compose(process.texts, benchmark, host) if process else ()
            for owner, process in (("model", getattr(whole, key)), ("test", getattr(test, key)))
        }
        for key in ("preprocess", "postprocess")
    }
    commands = () if whole.app and not test.says_what_to_run else framework.commands(benchmark, device)
    every = (*commands, *(text for owners in around.values() for texts in owners.values() for text in texts))
    return {
        "source": benchmark.source,
        "model": benchmark.name,
        "identifier": benchmark.identifier,
        "metric": benchmark.metric,
        "app": f"{whole.app.package}/{whole.app.activity}" if whole.app else "",
        "framework": name,
        "platform": asked.platform,
        "backend": asked.backend,
        "iterations": how.iterations,
        "warmup": test.warmup,
        "repeat": how.repeat,
        "timeout": how.timeout,
        "cooldown": how.cooldown,
        "sleep_before_run": how.sleep_before_run,
        "env": dict(how.env),
        "threads": dict(how.threads) if asked.platform in conditions.HOSTS else {},
        "cpus": how.cpus,
        "log_output": how.log_output,
        "statistics": how.statistics,
        "files": _files(whole.files, device.files),
        "input_files": _files(test.input_files, device.input_files),
        "host_files": _files(_on_host(test), host.host_files),
        "output_files": {
            key: {"filename": file.filename, "path": device.output_files[key], "pulled": host.output_files[key]}
            for key, file in test.output_files.items()
        },
        "libraries": [{"location": one.location, "target": one.target} for one in whole.libraries],
        "preprocess": around["preprocess"],
        "commands": commands,
        "postprocess": around["postprocess"],
        "unknown": sorted({f"{{{name}}}" for text in every for name in placeholders.PATTERN.findall(text)}),
        "fields": {"model": benchmark.model, "test": benchmark.test},
    }


def _framework(benchmark: model.Benchmark, asked: Asked) -> str:
    if asked.framework and benchmark.framework not in ("", asked.framework):
        raise errors.CommandError(
            f"{benchmark.source}: {benchmark.identifier}: is for the framework {benchmark.framework}, not {asked.framework}"
        )
    form = str(benchmark.model.get("format", ""))
    by_format = form if form in plugins.names("frameworks") else "generic"
    return asked.framework or benchmark.framework or by_format


def _places(benchmark: model.Benchmark, test: schema.Test, whole: schema.Model, asked: Asked) -> tuple[base.Place, base.Place]:
    """The stand-ins on the device and on this host, as a trial lays things out."""
    device = base.Place(
        target_directory=f"{DEVICE}/work/",
        host_directory=HOST,
        build_directory=BUILD,
        programs={name: f"{BUILD}/{name}" for name in ("program", *asked.programs)},
        files=_beside(f"{DEVICE}/files", whole.files),
        input_files=_beside(f"{DEVICE}/files", test.input_files),
        device_hash="device",
        backend=asked.backend,
        index=asked.index,
        extra_arguments=asked.command_args,
    )
    host = dataclasses.replace(
        device,
        target_directory=f"{HOST}/",
        files=_beside(f"{HOST}/files", whole.files),
        host_files=_beside(f"{HOST}/files", _on_host(test)),
        output_files=_beside(f"{HOST}/pulled", test.output_files),
    )
    settled, _ = schema.typed(placeholders.settled(benchmark, host), schema.UNPINNED)
    made = {key: str(file.sources[0]) for key, file in settled.input_files.items() if test.input_files[key].made_at_run_time}
    host = dataclasses.replace(host, input_files={**_beside(f"{HOST}/files", test.input_files), **made})
    on_device, _ = schema.typed(placeholders.settled(benchmark, device), schema.UNPINNED)
    outputs = {key: _below(f"{DEVICE}/work", file.location or file.filename) for key, file in on_device.output_files.items()}
    return dataclasses.replace(device, output_files=outputs), host


def _below(directory: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(directory, path))


def _beside(directory: str, files: Mapping[str, schema.File] | Mapping[str, schema.OutputFile]) -> dict[str, str]:
    return {key: f"{directory}/{file.filename}" for key, file in files.items()}


def _on_host(test: schema.Test) -> dict[str, schema.File]:
    around = [process.files for process in (test.preprocess, test.postprocess) if process]
    return {key: file for files in (*around, test.files) for key, file in files.items()}


def _files(files: Mapping[str, schema.File], paths: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: {
            "filename": file.filename,
            "sources": [str(source) for source in file.sources],
            "sha256": file.sha256,
            "md5": file.md5,
            "path": paths[key],
        }
        for key, file in files.items()
    }


def _unpinned(shown: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Files from elsewhere that nothing could verify: shown, and not run."""
    for one in shown:
        for group in ("files", "input_files", "host_files"):
            for key, file in one[group].items():
                elsewhere = any(source.startswith(("http://", "https://", "generator ")) for source in file["sources"])
                if elsewhere and not file["sha256"] and not file["md5"]:
                    yield f"{one['source']}: {group}.{key}: has no digest, and is not run without; 'aibenchd spec pin' writes it"


def _unknown(shown: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for one in shown:
        if one["unknown"]:
            yield (
                f"{one['source']}: {one['identifier']}: nothing stands for {', '.join(one['unknown'])}: programs of the build"
                " (--program), or keys of --string-map"
            )


def _text(one: Mapping[str, Any]) -> str:
    return "\n".join(f"{name + ':':<15} {value}" for name, value in _rows(one))


def _rows(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for a person: what says nothing is left out."""
    yield "benchmark", f"{one['model']} {one['identifier']} ({one['source']})"
    yield "runs on", f"{one['framework']} on {one['platform']}, backend {one['backend'] or 'of the program'}"
    yield "metric", f"{one['metric']}, statistics {' '.join(one['statistics'])}"
    yield "records", f"iterations {_given(one['iterations'])}, warm-up {_given(one['warmup'])}, repeat {one['repeat']}"
    waits = ", ".join(
        f"{key.replace('_', ' ')} {one[key]:g} s" for key in ("timeout", "cooldown", "sleep_before_run") if one[key]
    )
    yield "times", waits
    variables = {**one["threads"], **one["env"]}
    if variables:
        yield "environment", " ".join(f"{key}={value}" for key, value in variables.items())
    if one["cpus"]:
        yield "CPUs", ",".join(map(str, one["cpus"]))
    for group in ("files", "input_files", "host_files"):
        for key, file in one[group].items():
            digests = [f"{name} {file[name]}" for name in ("sha256", "md5") if file[name]]
            yield f"{group}.{key}", f"{file['path']} from {', '.join([*file['sources'], *digests])}"
    for key, file in one["output_files"].items():
        yield f"output_files.{key}", f"{file['path']}, pulled to {file['pulled']}"
    for owner in ("model", "test"):
        yield from ((f"{owner} before", command) for command in one["preprocess"][owner])
    if one["app"]:
        yield "app", one["app"]
    yield from (("command", command) for command in one["commands"])
    for owner in ("test", "model"):
        yield from ((f"{owner} after", command) for command in one["postprocess"][owner])


def _given(count: int) -> str:
    return "not given" if count < 0 else str(count)
