"""What the runners of ONNX files share: which network to run, and the inputs that it states itself.

``--model`` takes an ONNX file; ``--module`` a function of no arguments that returns the bytes of one, or its path. Where a file
fixes the shapes of its inputs, ``--input-dims`` may be left out: the file's shapes and types are taken.
"""

from __future__ import annotations

import argparse

MYPY = False
if MYPY:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from aibenchd.runners import common, onnx_file
else:
    import common
    import onnx_file


def main(
    name: str,
    description: str,
    backends: Sequence[str],
    load: Callable[[argparse.Namespace, list[np.ndarray]], common.Network],
    argv: list[str] | None,
) -> int:
    """As :func:`common.main`, from the command line on."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="FILE", help="an ONNX file")
    network.add_argument("--module", metavar="MODULE:FACTORY", help="a function that returns an ONNX file's bytes, or its path")
    common.add_options(parser, backends)
    return common.main(name, parser.parse_args(argv), load, inputs=make_inputs)


def make_inputs(options: argparse.Namespace) -> list[np.ndarray]:
    """The inputs that the options name; where they name none, those that the model's file states.

    Raises:
        UnusableError: there are none that are fixed.
    """
    if options.model and not options.input_dims and not options.input_file:
        take_own_inputs(options, graph_of(options.model).inputs)
    return common.make_inputs(options)


def take_own_inputs(options: argparse.Namespace, inputs: Mapping[str, onnx_file.Input]) -> None:
    """Put the shapes and types that a file states into the options.

    Raises:
        UnusableError: one of them is not fixed.
    """
    for name, one in inputs.items():
        if not one.shape or not one.type or None in one.shape:
            stated = ",".join("?" if size is None else str(size) for size in one.shape)
            raise common.UnusableError(
                f"{options.model}: its input {name} is {one.type or 'of an unknown type'} [{stated}]; expected --input-dims"
            )
    options.input_dims = ";".join(",".join(map(str, one.shape)) for one in inputs.values())
    options.input_type = ";".join(one.type for one in inputs.values())


def model_of(options: argparse.Namespace) -> bytes | str:
    """The bytes of a model, or its path.

    Raises:
        UnusableError: the watched repository has no such function, or it returns something else.
    """
    if options.model:
        path: str = options.model
        return path
    model = common.made(options.module)
    if not isinstance(model, (bytes, str)):
        raise common.UnusableError(
            f"--module {options.module}: returned {type(model).__name__}, expected the bytes of an ONNX file, or its path"
        )
    return model


def graph_of(model: bytes | str) -> onnx_file.Graph:
    """What is in it.

    Raises:
        UnusableError: it is no ONNX file.
    """
    try:
        return onnx_file.read(model) if isinstance(model, str) else onnx_file.parse(model)
    except (OSError, onnx_file.MalformedError) as error:
        name = model if isinstance(model, str) else "the model"
        raise common.UnusableError(f"{name}: cannot be read as an ONNX file: {common.first_line(error)}") from error
