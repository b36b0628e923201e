"""A small engine that runs a SqueezeNet on PyTorch, and the commits that made it what it is.

Each commit is an edit of the files before it. One makes the engine slower, one faster, for reasons that happen in real
engines; the others are harmless.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aibenchd import model

BRANCH = "main"
AUTHOR = ("-c", "user.name=Engine", "-c", "user.email=engine@localhost")

ENGINE = '''"""A SqueezeNet, layer by layer."""

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


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``old``, which occurs once, by ``new``; an empty ``old`` makes the file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One revision, and what must be found of it; None for the first, which has no control."""

    subject: str
    edits: tuple[Edit, ...]
    expected: model.Verdict | None


COMMITS: Sequence[Commit] = (
    Commit(
        "Run a SqueezeNet",
        (Edit("engine/__init__.py", "", ENGINE), Edit("README.md", "", README)),
        None,
    ),
    Commit(
        "Say what the engine needs",
        (Edit("README.md", "on PyTorch.\n", "on PyTorch, which is all that it needs.\n"),),
        model.Verdict.IDENTICAL,
    ),
    Commit(
        "Give the fire modules names that say what they do",
        (
            Edit("engine/__init__.py", "class Fire(nn.Module):", "class SqueezeExpand(nn.Module):"),
            Edit("engine/__init__.py", "Fire(*shape)", "SqueezeExpand(*shape)"),
        ),
        model.Verdict.UNCHANGED,
    ),
    Commit(
        "Refuse an input that is no batch of pictures",
        (
            Edit(
                "engine/__init__.py",
                "    def convolve(self, x):\n",
                "    def convolve(self, x):\n"
                "        if x.dim() != 4:\n"
                '            raise ValueError(f"expected a batch of pictures, not {tuple(x.shape)}")\n',
            ),
        ),
        model.Verdict.UNCHANGED,
    ),
    Commit(
        "Keep each channel of a layer in a place of its own",
        (
            Edit("engine/__init__.py", "return functional.relu(x)\n", "return collected(functional.relu(x))\n"),
            Edit(
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
    Commit(
        "Leave convolution and memory to the library, with the scale folded in",
        (
            Edit("engine/__init__.py", "return collected(functional.relu(x))\n", "return functional.relu_(x)\n"),
            Edit(
                "engine/__init__.py",
                "        x = x * self.scale[:, None, None] + self.shift[:, None, None]\n",
                "",
            ),
            Edit(
                "engine/__init__.py",
                "torch.randn(outputs) * 0.1\n",
                "torch.randn(outputs) * 0.1\n        self.weight *= self.scale[:, None, None, None]\n",
            ),
            Edit(
                "engine/__init__.py",
                "        height, width = ((size + self.stride - 1) // self.stride for size in x.shape[2:])\n"
                "        columns = functional.unfold(x, self.kernel, padding=self.kernel // 2, stride=self.stride)\n"
                "        return (self.weight.flatten(1) @ columns).view(x.shape[0], -1, height, width)\n",
                "        return functional.conv2d(x, self.weight, self.shift, self.stride, self.kernel // 2)\n",
            ),
        ),
        model.Verdict.IMPROVED,
    ),
    Commit(
        "Call the stages stages",
        (
            Edit("engine/__init__.py", "FIRES = (", "STAGES = ("),
            Edit("engine/__init__.py", "for stage in FIRES:", "for stage in STAGES:"),
        ),
        model.Verdict.UNCHANGED,
    ),
    Commit(
        "Tell how to run it",
        (Edit("README.md", "all that it needs.\n", "all that it needs.\n\n    from engine import squeezenet\n"),),
        model.Verdict.IDENTICAL,
    ),
)


def write(remote: Path, work: Path) -> list[str]:
    """Make a bare git repository at ``remote`` with the whole history; ids of its commits, oldest first."""
    _git(work.parent, "init", "-q", "-b", BRANCH, str(work))
    commits: list[str] = []
    began = datetime.now(UTC) - timedelta(days=len(COMMITS))
    for age, commit in enumerate(COMMITS):
        for edit in commit.edits:
            apply(edit, work)
        _git(work, "add", "-A")
        time = (began + timedelta(days=age)).isoformat(timespec="seconds")
        _git(work, *AUTHOR, "commit", "-q", "-m", commit.subject, "--date", time, env={"GIT_COMMITTER_DATE": time})
        commits.append(_git(work, "rev-parse", "HEAD").strip())
    _git(work.parent, "clone", "-q", "--bare", str(work), str(remote))
    return commits


def apply(edit: Edit, work: Path) -> None:
    """Carry out one edit in a work tree."""
    path = work / edit.file
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if edit.old else ""
    if before.count(edit.old) != 1 and edit.old:
        raise ValueError(f"{edit.file}: {edit.old!r} occurs {before.count(edit.old)} times, expected once")
    path.write_text(before.replace(edit.old, edit.new) if edit.old else edit.new)


def _git(directory: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=directory, env={**os.environ, **(env or {})}, check=True, capture_output=True, text=True
    ).stdout
