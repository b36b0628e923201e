"""An engine on PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from aibenchd import model
from aibenchd.demo import history

NETWORK = '''"""A SqueezeNet, layer by layer."""

import torch
from torch import nn
from torch.nn import functional

FIRES = (
    ((64, 16, 64), (128, 16, 64)),
    ((128, 32, 128), (256, 32, 128)),
    ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
)


class Convolution(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.weight = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel * kernel)) ** 0.5
        self.scale, self.shift = torch.rand(outputs) + 0.5, torch.randn(outputs) * 0.1

    def forward(self, x):
        x = self.convolve(x)
        x = x * self.scale[:, None, None] + self.shift[:, None, None]
        return functional.relu(x)

    def convolve(self, x):
        height, width = ((size + self.stride - 1) // self.stride for size in x.shape[2:])
        columns = functional.unfold(x, self.kernel, padding=self.kernel // 2, stride=self.stride)
        return (self.weight.flatten(1) @ columns).view(x.shape[0], -1, height, width)


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = Convolution(inputs, squeezed, 1)
        self.narrow = Convolution(squeezed, expanded, 1)
        self.wide = Convolution(squeezed, expanded, 3)

    def forward(self, x):
        x = self.squeeze(x)
        return torch.cat([self.narrow(x), self.wide(x)], 1)


def squeezenet():
    torch.manual_seed(1)
    layers = [Convolution(3, 64, 3, 2)]
    for stage in FIRES:
        layers.append(nn.MaxPool2d(3, 2))
        layers += [Fire(*shape) for shape in stage]
    layers += [Convolution(512, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)]
    return nn.Sequential(*layers).eval()
'''

README = "# engine\n\nRuns a SqueezeNet on PyTorch.\n"

COMMITS: Sequence[history.Commit] = (
    history.Commit(
        "Run a SqueezeNet",
        (history.Edit("engine/__init__.py", "", NETWORK), history.Edit("README.md", "", README)),
        None,
    ),
    history.Commit(
        "Say what the engine needs",
        (history.Edit("README.md", "on PyTorch.\n", "on PyTorch, which is all that it needs.\n"),),
        model.Verdict.IDENTICAL,
    ),
    history.Commit(
        "Give the fire modules names that say what they do",
        (
            history.Edit("engine/__init__.py", "class Fire(nn.Module):", "class SqueezeExpand(nn.Module):"),
            history.Edit("engine/__init__.py", "Fire(*shape)", "SqueezeExpand(*shape)"),
        ),
        model.Verdict.UNCHANGED,
    ),
    history.Commit(
        "Refuse an input that is no batch of pictures",
        (
            history.Edit(
                "engine/__init__.py",
                "    def convolve(self, x):\n",
                "    def convolve(self, x):\n"
                "        if x.dim() != 4:\n"
                '            raise ValueError(f"expected a batch of pictures, not {tuple(x.shape)}")\n',
            ),
        ),
        model.Verdict.UNCHANGED,
    ),
    history.Commit(
        "Keep each channel of a layer in a place of its own",
        (
            history.Edit("engine/__init__.py", "return functional.relu(x)\n", "return collected(functional.relu(x))\n"),
            history.Edit(
                "engine/__init__.py",
                "def squeezenet():",
                "def collected(x):\n"
                "    places = torch.empty_like(x)\n"
                "    for channel in range(x.shape[1]):\n"
                "        places[:, channel] = x[:, channel]\n"
                "    return places\n\n\n"
                "def squeezenet():",
            ),
        ),
        model.Verdict.REGRESSED,
    ),
    history.Commit(
        "Leave convolution and memory to the library, with the scale folded in",
        (
            history.Edit("engine/__init__.py", "return collected(functional.relu(x))\n", "return functional.relu_(x)\n"),
            history.Edit(
                "engine/__init__.py",
                "        x = x * self.scale[:, None, None] + self.shift[:, None, None]\n",
                "",
            ),
            history.Edit(
                "engine/__init__.py",
                "torch.randn(outputs) * 0.1\n",
                "torch.randn(outputs) * 0.1\n        self.weight *= self.scale[:, None, None, None]\n",
            ),
            history.Edit(
                "engine/__init__.py",
                "        height, width = ((size + self.stride - 1) // self.stride for size in x.shape[2:])\n"
                "        columns = functional.unfold(x, self.kernel, padding=self.kernel // 2, stride=self.stride)\n"
                "        return (self.weight.flatten(1) @ columns).view(x.shape[0], -1, height, width)\n",
                "        return functional.conv2d(x, self.weight, self.shift, self.stride, self.kernel // 2)\n",
            ),
        ),
        model.Verdict.IMPROVED,
    ),
    history.Commit(
        "Call the stages stages",
        (
            history.Edit("engine/__init__.py", "FIRES = (", "STAGES = ("),
            history.Edit("engine/__init__.py", "for stage in FIRES:", "for stage in STAGES:"),
        ),
        model.Verdict.UNCHANGED,
    ),
    history.Commit(
        "Tell how to run it",
        (history.Edit("README.md", "all that it needs.\n", "all that it needs.\n\n    from engine import squeezenet\n"),),
        model.Verdict.IDENTICAL,
    ),
)

PYTORCH = history.Engine(
    "pytorch",
    COMMITS,
    "{program} --module engine:squeezenet --input-dims 1,3,96,96 --warmup {warmup} --iterations {iter} --threads 1",
    16,
)
