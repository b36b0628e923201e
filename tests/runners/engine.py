"""Small networks for the runner to time."""

from typing import Any

import torch


class Net(torch.nn.Module):
    """A convolution that is large enough for oneDNN at 3 x 96 x 96, and a matrix product that is MKL's."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 16, 3)
        self.linear = torch.nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(image)).mean((2, 3)))


class Two(torch.nn.Module):
    """Takes a float and a whole number, and returns a dictionary."""

    def forward(self, image: torch.Tensor, index: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": image + index, "index": index}


class Nested(torch.nn.Module):
    """Returns all that a network may: tensors of any kind and numbers, within each other."""

    def forward(self, image: torch.Tensor) -> Any:
        kinds = {"bf/16": image.bfloat16(), "sparse": image.to_sparse(), "turned": image.t()}
        return image.to(torch.complex64).conj(), [kinds, (torch.quantize_per_tensor(image, 0.5, 0, torch.qint8), 7)], None


class Constant(torch.nn.Module):
    """Takes nothing."""

    def forward(self) -> torch.Tensor:
        return torch.ones(3)


class Breaking(Net):
    """What torch.compile compiles in two parts, with an operator between them that it leaves alone."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(self.left_alone(torch.relu(image)).mean((2, 3)))

    def left_alone(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(image)


class Failing(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise ValueError("no\nway")


def breaking() -> torch.nn.Module:
    network = Breaking()
    network.left_alone = torch.compiler.disable(network.left_alone)
    return network


def uncompiled() -> torch.nn.Module:
    network = Net()
    network.forward = torch.compiler.disable(network.forward)
    return network


def number() -> int:
    return 3


def unbuildable() -> torch.nn.Module:
    raise RuntimeError("weights are missing")


net, two, nested, constant, failing = Net, Two, Nested, Constant, Failing
