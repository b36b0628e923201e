"""The commands of tests that give none, as FAI-PEP composed them: the flags of Caffe2's and TFLite's own programs. Pure.

They are templates: what they name in braces is replaced as in commands that a specification gives.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aibenchd import errors, model

UNKNOWN_TYPE = "float"  # of an input whose test does not say


def caffe2(benchmark: model.Benchmark) -> list[str]:
    """The command of ``caffe2_benchmark``.

    Inputs are those of the short hand; else the files, which are called as the network's inputs are. Several are separated as
    that program wants it: names and files by commas, shapes and types by semicolons.

    Raises:
        CommandError: the model has no file ``predict``, or the test no inputs.
    """
    files = _mapping(benchmark.model, "files")
    if "predict" not in files:
        raise _fault(benchmark, "the command of Caffe2 needs the model's file 'predict'; add it, or give commands")
    shapes, from_files = _shapes(benchmark), tuple(_mapping(benchmark.test, "input_files"))
    names = tuple(shapes) or from_files
    if not names:
        raise _fault(benchmark, "does not say what to run: expected commands, command or arguments (or inputs, the short hand)")
    options = [
        "{program} --net {files.predict}",
        *_counts(benchmark, "--warmup {warmup}", "--iter {iter}"),
        *(["--init_net {files.init}"] if "init" in files else []),
        "--input_file " + ",".join(f"{{input_files.{name}}}" for name in from_files)
        if from_files
        else "--input_dims " + shlex.quote(";".join(shapes.values())),
        "--input " + shlex.quote(",".join(names)),
        "--input_type " + shlex.quote(";".join(_type(benchmark, name) for name in names)),
        *_outputs(_mapping(benchmark.test, "output_files")),
        *(f"{name} {value}" for name, value in _more(benchmark, "caffe2")),
    ]
    return [" ".join(options)]


def tflite(benchmark: model.Benchmark) -> list[str]:
    """The command of TFLite's ``benchmark_model``, which separates the shapes of several inputs by colons.

    Raises:
        CommandError: the model has no file ``graph`` and not one file alone.
    """
    files = _mapping(benchmark.model, "files")
    graph = "graph" if "graph" in files or len(files) != 1 else next(iter(files))
    if graph not in files:
        raise _fault(benchmark, "the command of TFLite needs the model's file 'graph'; add it, or give commands")
    shapes = _shapes(benchmark)
    options = [f"{{program}} --graph={{files.{graph}}}", *_counts(benchmark, "--warmup_runs={warmup}", "--num_runs={iter}")]
    if shapes:
        options.append("--input_layer=" + shlex.quote(",".join(shapes)))
        options.append("--input_layer_shape=" + shlex.quote(":".join(shapes.values())))
    options += [f"{name}={value}" for name, value in _more(benchmark, "tflite")]
    return [" ".join(options)]


def _counts(benchmark: model.Benchmark, warmup: str, iterations: str) -> list[str]:
    """The options for counts that the test gives; where it does not, or gives -1, the program has its own."""
    wanted = {"warmup": warmup, "iter": iterations}
    return [option for key, option in wanted.items() if str(benchmark.test.get(key, -1)) != "-1"]


def _more(benchmark: model.Benchmark, framework: str) -> Iterator[tuple[str, str]]:
    """The test's own options for the framework, each as words of a shell."""
    for name, value in _mapping(_mapping(benchmark.test, "command_options"), framework).items():
        yield shlex.quote(f"--{name}"), shlex.quote(str(value))


def _shapes(benchmark: model.Benchmark) -> dict[str, str]:
    """``1,3,224,224`` for each input of the short hand; after expansion there is one shape of each."""
    inputs = _mapping(benchmark.test, "inputs")
    return {name: ",".join(str(size) for size in one["shapes"][0]) for name, one in inputs.items()}


def _type(benchmark: model.Benchmark, name: str) -> str:
    given = {**_mapping(benchmark.test, "input_files"), **_mapping(benchmark.test, "inputs")}
    return str(_mapping(given, name).get("type") or UNKNOWN_TYPE)


def _outputs(names: Iterable[str]) -> list[str]:
    joined = ",".join(names)
    return [f"--output {shlex.quote(joined)}", "--text_output true", "--output_folder '{TGTDIR}'"] if joined else []


def _mapping(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = owner.get(key)
    return value if isinstance(value, Mapping) else {}


def _fault(benchmark: model.Benchmark, message: str) -> errors.CommandError:
    return errors.CommandError(f"{benchmark.source}: {benchmark.identifier}: {message}")
