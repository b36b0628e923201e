"""Code for Hexagon, run by qemu-hexagon as a vendor's tool: it computes what numpy does, in the same packets each time."""

from pathlib import Path

import hexagon
import numpy as np
import pytest

from aibenchd import digests, model
from aibenchd.devices import base, vendor
from aibenchd.frameworks import generic

pytestmark = hexagon.needed


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hexagon.build(tmp_path_factory.mktemp("hexagon"))


def device(place: Path) -> vendor.Vendor:
    return vendor.Vendor(vendor.Settings.model_validate(hexagon.DEVICE), place / "device", base.RunSettings())


async def test_the_program_computes_what_numpy_does_in_the_same_packets_each_time(tmp_path: Path, program: Path) -> None:
    weights, given, expected = hexagon.write_arrays(tmp_path)
    said = []
    async with device(tmp_path).session() as session:
        files = [await session.push(base.Push(path, digests.of_file(path), path.name)) for path in (program, weights, given)]
        for number in range(3):
            work = await session.directory("work")
            completed = await session.run(base.Command((*map(str, files), str(work / "output.bin")), work))
            assert not completed.failure, completed.failure
            await session.pull(work / "output.bin", tmp_path / f"output-{number}.bin")
            said.append(generic.Generic().parse(completed.stdout, model.Benchmark({}, {})))

    output = np.fromfile(tmp_path / "output-0.bin", dtype="<i4").reshape(expected.shape)
    np.testing.assert_array_equal(output, expected)
    assert (tmp_path / "output-1.bin").read_bytes() == (tmp_path / "output-0.bin").read_bytes()
    assert said[0] == said[1] == said[2]
    assert said[0].backend == "dsp"
    series = {one.key: one for one in said[0].series}
    assert series["OUTPUT checksum"].values == (float(expected.sum() % 2**32),)
    convolve, rectify = (series[f"ID_{name} latency"].values[0] for name in ("0_convolve", "1_rectify"))
    assert series["NET latency"].values == (convolve + rectify,)
    assert series["NET latency"].unit == "packets"
    assert convolve > hexagon.CHANNELS**2 * hexagon.SIDE**2 * 9 / 4  # four slots are the most that a packet has


async def test_a_program_that_fails_says_why(tmp_path: Path, program: Path) -> None:
    async with device(tmp_path).session() as session:
        pushed = await session.push(base.Push(program, digests.of_file(program), "network"))
        completed = await session.run(base.Command((str(pushed), "none", "none", "none"), await session.directory("work")))

    assert completed.failure == "exit code 2: network: not all of it can be read or written: none"


async def test_a_program_of_another_processor_fails(tmp_path: Path) -> None:
    path = Path("/bin/true")
    async with device(tmp_path).session() as session:
        pushed = await session.push(base.Push(path, digests.of_file(path), "true"))
        completed = await session.run(base.Command((str(pushed),), await session.directory("work")))

    assert completed.failure.startswith("exit code 1: qemu-hexagon: ")
