"""The command of a test that gives none, where the program is a runner of ours (:mod:`aibenchd.runners.common`). Pure.

So a specification of a file and the shapes of its inputs is all that a model needs.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from aibenchd import errors, model


def commanded(benchmark: model.Benchmark, names: Sequence[str]) -> model.Benchmark:
    """The benchmark with commands: its own, else that of :func:`compose`.

    Raises:
        CommandError: as :func:`compose`.
    """
    if benchmark.test.get("commands"):
        return benchmark
    return model.Benchmark(benchmark.model, {**benchmark.test, "commands": [compose(benchmark, names)]}, benchmark.source)


def compose(benchmark: model.Benchmark, names: Sequence[str]) -> str:
    """A command with placeholders: the network, its inputs, what to measure of it, where its outputs go.

    The network is the model's only file, or the first of ``names`` that is a key of its files; where there are no files, the
    function that the model's key ``module`` names. Inputs are the test's ``input_files``, else seeded ones of the shapes of its
    ``inputs``.

    Raises:
        CommandError: the model does not tell which file is the network.
    """
    words = ["{program}", _network(benchmark, names), *_inputs(benchmark), *_counts(benchmark)]
    return " ".join([*words, "--backend={backend}", "--operators", "--output-directory {TGTDIR}"])


def _network(benchmark: model.Benchmark, names: Sequence[str]) -> str:
    files = _mapping(benchmark.model, "files")
    if not files and "module" in benchmark.model:
        return "--module {module}"
    found = list(files) if len(files) == 1 else [name for name in names if name in files]
    if not found:
        raise errors.CommandError(
            f"{benchmark.source}: {benchmark.identifier}: does not say what to run: expected commands, or a model with one file"
            f" or a file called {' or '.join(names)}"
        )
    return f"--model {{files.{found[0]}}}"


def _inputs(benchmark: model.Benchmark) -> list[str]:
    inputs, files = _mapping(benchmark.test, "inputs"), _mapping(benchmark.test, "input_files")
    if files:
        return ['--input-file "' + ";".join(f"{{input_files.{name}}}" for name in files) + '"']
    if inputs:
        dims = ";".join(",".join(map(str, one["shapes"][0])) for one in inputs.values())
        types = ";".join(str(one.get("type", "float")) for one in inputs.values())
        return [f"--input-dims {shlex.quote(dims)}", f"--input-type {shlex.quote(types)}"]
    return []


def _counts(benchmark: model.Benchmark) -> list[str]:
    """Where the test gives none, which is -1 in the format, the runner takes its own."""
    least = {"--warmup {warmup}": ("warmup", 0), "--iterations {iter}": ("iter", 1)}
    given = {option: benchmark.test.get(key) for option, (key, _) in least.items()}
    return [option for option, count in given.items() if isinstance(count, int) and count >= least[option][1]]


def _mapping(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = owner.get(key)
    return value if isinstance(value, Mapping) else {}
