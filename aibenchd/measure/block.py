"""One block: each arm of an experiment once, in the order that its seed drew."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from aibenchd import crashpoints, errors, model
from aibenchd.devices import base as devices
from aibenchd.measure import keeping, placing, profiler, trial
from aibenchd.plan import order

PADDING = "AIBENCHD_PADDING"
COLD_START = "NET cold_start"  # the key of what the runners here state
FIRST = "first_iteration"  # a metric


@dataclass(frozen=True, slots=True)
class Bench:
    """A device in hand, this host beside it, and where what trials leave is kept."""

    sides: placing.Sides
    device: devices.DeviceSettings
    keeper: keeping.Keeper


def arms(design: model.Design, block: int) -> tuple[model.ArmName, ...]:
    """The arms of a block, in the order in which they run."""
    if design.arms == 1:
        return (model.ArmName.TREATMENT,)
    return order.arms(design.order, design.seed, block)


def padded(
    design: model.Design, block: int, placed: Mapping[model.ArmName, placing.Placed]
) -> Mapping[model.ArmName, placing.Placed]:
    """The arms as they run in a block: where their builds have a layout of their own, so has the stack, the same for both."""
    if not design.layout:
        return placed
    padding = {PADDING: "x" * order.padding(design.seed, block)}
    return {arm: dataclasses.replace(one, conditions=one.conditions.with_env(padding)) for arm, one in placed.items()}


async def run(
    bench: Bench,
    design: model.Design,
    number: int,
    placed: Mapping[model.ArmName, placing.Placed],
    begun: list[model.ArmName],
) -> model.Block:
    """Run a block.

    Args:
        begun: each arm is added when its trial begins; what was begun does not count where this raises.

    Raises:
        DeviceLostError, HarnessError: nothing of it counts, and it is to be run again, in the same order.
        CommandError: it cannot be run whatever the programs do.
    """
    crashpoints.reach("block.before-trial")
    placed = padded(design, number, placed)
    trials: list[model.Trial] = []
    for arm in arms(design, number):
        if trials:
            crashpoints.reach("block.between-trials")
        await _condition(bench, design, placed[arm])
        begun.append(arm)
        finished = await trial.run(bench.sides, bench.device, placed[arm])
        trials.append(with_first(await bench.keeper.take(finished, placed[arm], number), design.summary))
    return await bench.keeper.side_by_side(model.Block(number, tuple(trials)), placed)


def with_first(ended: model.Trial, rule: model.Summary) -> model.Trial:
    """A trial with its first iteration as a metric of its own, where leading ones are left out of what is decided on.

    One that says what its cold start costs has that metric already.
    """
    keys = {one.key: one for one in ended.series}
    network = keys.get(model.NETWORK)
    if not rule.skip or network is None or not network.values or COLD_START in keys:
        return ended
    first = model.Series(network.type, FIRST, network.unit, network.values[:1])
    return dataclasses.replace(ended, series=(*ended.series, first))


async def profile(
    bench: Bench,
    design: model.Design,
    number: int,
    placed: Mapping[model.ArmName, placing.Placed],
    begun: list[model.ArmName],
) -> model.Block:
    """As :func:`run`, each arm under profilers; what they leave is kept."""
    trials: list[model.Trial] = []
    for arm in arms(design, number):
        begun.append(arm)
        condition = functools.partial(_condition, bench, design, placed[arm])
        profiled = await profiler.run(bench.sides, bench.device, placed[arm], condition, bench.keeper.profile(arm))
        finished = await bench.keeper.take(profiled.finished, placed[arm], number)
        trials.append(dataclasses.replace(finished, reason=profiled.reason))
    return model.Block(number, tuple(trials))


async def warm_up(bench: Bench, design: model.Design, placed: Mapping[model.ArmName, placing.Placed]) -> None:
    """Run each arm once and keep nothing of it; how a program fails is told by the block that follows.

    Raises:
        DeviceLostError, HarnessError, CommandError: as :func:`run`.
    """
    for each in placed.values():
        await _condition(bench, design, each)
        await trial.run(bench.sides, bench.device, each)


async def _condition(bench: Bench, design: model.Design, placed: placing.Placed) -> None:
    """Bring the device into the same state before each trial, whichever arm it is of."""
    if not placed.files.unchanged():
        raise errors.HarnessError(f"{placed.benchmark.source}: a model file changed while it was in use; it is verified again")
    await anyio.sleep(max(bench.device.cooldown, placed.conditions.cooldown))
    if design.disturb_caches:
        await bench.sides.device.disturb()
    await bench.sides.device.directory(placing.WORK)
