"""Small networks for the ExecuTorch runner to export. Run as a program, it writes programs of them into a directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch


class Net(torch.nn.Module):
    """XNNPACK takes the convolution and the matrix product, and leaves the sum between them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 16, 3)
        self.linear = torch.nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(image)).cumsum(2)[:, :, -1].cumsum(2)[:, :, -1])


class Several(torch.nn.Module):
    """Nothing in it is XNNPACK's; and one of its constants is no number."""

    def forward(self, image: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image.masked_fill(image > 100, -torch.inf).cumsum(1), index + 1


class Unexportable(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 1 if image.sum() > 0 else image


net, several, unexportable = Net, Several, Unexportable


def write(directory: Path) -> None:
    import executorch.exir as exir
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    def lowered(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...], partitioners: list[Any]) -> bytes:
        program = exir.to_edge_transform_and_lower(torch.export.export(network.eval(), inputs), partitioner=partitioners)
        return bytes(program.to_executorch().buffer)

    torch.manual_seed(0)
    image = (torch.zeros(1, 3, 16, 16),)
    network = Net()
    xnnpack = lowered(network, image, [XnnpackPartitioner()])
    (directory / "xnnpack.pte").write_bytes(xnnpack)
    (directory / "cpu.pte").write_bytes(lowered(network, image, []))
    (directory / "several.pte").write_bytes(lowered(Several(), (torch.zeros(2, 3), torch.zeros(1, dtype=torch.int64)), []))
    (directory / "foreign.pte").write_bytes(xnnpack.replace(b"XnnpackBackend", b"AnotherBackend"))
    (directory / "torn.pte").write_bytes(xnnpack[:3000])


if __name__ == "__main__":
    write(Path(sys.argv[1]))
