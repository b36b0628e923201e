"""Small networks for the runner to time."""

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


class Failing(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise ValueError("no\nway")


def net() -> torch.nn.Module:
    return Net()


def two() -> torch.nn.Module:
    return Two()


def failing() -> torch.nn.Module:
    return Failing()


def number() -> int:
    return 3


def unbuildable() -> torch.nn.Module:
    raise RuntimeError("weights are missing")
