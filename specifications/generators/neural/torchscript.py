"""TorchScript: a ZIP archive of code, and of weights that a pickle names."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator

from neural import graph, pickled

FORMAT = b"3\n"  # read by every torch from 1.0 on
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # ZIP knows no earlier one
MODULE = pickled.Class("__torch__", "Network")


def parts(network: graph.Graph) -> list[bytes | memoryview]:
    """The file, piece by piece."""
    weights = [weight for node in network.nodes for weight in graph.weights(node)]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        _store(archive, f"{network.name}/data.pkl", pickled.dumps(_module(weights)))
        _store(archive, f"{network.name}/code/__torch__.py", _code(network, weights).encode())
        for number, weight in enumerate(weights):
            _store(archive, f"{network.name}/data/{number}", weight.array().astype("<f4").tobytes())
        _store(archive, f"{network.name}/constants.pkl", pickled.dumps(()))
        _store(archive, f"{network.name}/byteorder", b"little")
        _store(archive, f"{network.name}/version", FORMAT)
    return [file.getbuffer()]


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, FIRST_DATE)
    entry.create_system = 0  # else it says on which system it was made
    archive.writestr(entry, data)


def _module(weights: list[graph.Weight]) -> pickled.Instance:
    tensors = {weight.name: _tensor(number, weight) for number, weight in enumerate(weights)}
    return pickled.Instance(MODULE, {"training": False, "_is_full_backward_hook": None, **tensors})


def _tensor(number: int, weight: graph.Weight) -> pickled.Call:
    count = math.prod(weight.shape)
    storage = pickled.Persistent(("storage", pickled.Class("torch", "FloatStorage"), str(number), "cpu", count))
    strides = tuple(math.prod(weight.shape[axis + 1 :]) for axis in range(len(weight.shape)))
    hooks = pickled.Call(pickled.Class("collections", "OrderedDict"), ())
    arguments = (storage, 0, weight.shape, strides, False, hooks)
    return pickled.Call(pickled.Class("torch._utils", "_rebuild_tensor_v2"), arguments)


def _code(network: graph.Graph, weights: list[graph.Weight]) -> str:
    names = ", ".join(f'"{weight.name}"' for weight in weights)
    return "\n".join(
        (
            "class Network(Module):",
            f"  __parameters__ = [{names}, ]",
            "  __buffers__ = []",
            *(f"  {weight.name} : Tensor" for weight in weights),
            "  training : bool",
            "  _is_full_backward_hook : Optional[bool]",
            "  def forward(self: __torch__.Network,",
            f"    {network.input.name}: Tensor) -> Tensor:",
            *(f"    {name} = {expression}" for node in network.nodes for name, expression in _statements(node)),
            f"    return {network.output.name}",
            "",
        )
    )


def _statements(node: graph.Node) -> Iterator[tuple[str, str]]:
    name = node.output.name
    yield name, _expression(node)
    match node:
        case graph.Conv(activation="relu") | graph.Concat(activation="relu") | graph.Add(activation="relu"):
            yield name, f"torch.relu({name})"
        case graph.Conv(activation="relu6"):
            yield name, f"torch.hardtanh({name}, 0., 6.)"


def _expression(node: graph.Node) -> str:
    match node:
        case graph.Conv():
            window = f"{_pair(node.stride)}, {_pair(node.padding)}, [1, 1], {node.groups}"
            return f"torch.conv2d({node.input.name}, self.{node.weight.name}, self.{node.bias.name}, {window})"
        case graph.Pool():
            function = "avg_pool2d" if node.mean else "max_pool2d"
            return f"torch.{function}({node.input.name}, {_pair(node.size)}, {_pair(node.stride)}, {_pair(node.padding)})"
        case graph.GlobalAverage():
            return f"torch.mean({node.input.name}, [2, 3])"
        case graph.Shuffle():
            return f"torch.channel_shuffle({node.input.name}, {node.groups})"
        case graph.Concat():
            return f"torch.cat([{', '.join(x.name for x in node.inputs)}], 1)"
        case graph.Add():
            return f"torch.add({node.first.name}, {node.second.name})"
        case graph.Dense():
            return f"torch.linear({node.input.name}, self.{node.weight.name}, self.{node.bias.name})"
        case graph.LayerNorm():
            constants = f"self.{node.scale.name}, self.{node.shift.name}, {node.epsilon!r}"
            return f"torch.layer_norm({node.input.name}, [{node.output.shape[-1]}], {constants})"
        case graph.Gelu():
            return f"torch.gelu({node.input.name})"
        case graph.SplitHeads():
            _, heads, length, depth = node.output.shape
            return f"torch.transpose(torch.reshape({node.input.name}, [1, {length}, {heads}, {depth}]), 1, 2)"
        case graph.JoinHeads():
            return f"torch.reshape(torch.transpose({node.input.name}, 1, 2), {list(node.output.shape)})"
        case graph.MatMul(transposed=True):
            return f"torch.matmul({node.first.name}, torch.transpose({node.second.name}, 2, 3))"
        case graph.MatMul():
            return f"torch.matmul({node.first.name}, {node.second.name})"
        case graph.MeanOverSequence():
            return f"torch.mean({node.input.name}, [1])"
        case graph.Softmax():
            return f"torch.softmax({node.input.name}, -1)"


def _pair(number: int) -> str:
    return f"[{number}, {number}]"
