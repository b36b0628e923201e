"""One block: each arm of an experiment once, in the order that its seed drew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio

from aibenchd import crashpoints, errors, model
from aibenchd.devices import base as devices
from aibenchd.frameworks import base as frameworks
from aibenchd.measure import placing, trial
from aibenchd.plan import order

Keep = Callable[[trial.Finished, int], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Bench:
    """A device in hand, and how programs run on it."""

    session: devices.Session
    device: devices.DeviceSettings
    framework: frameworks.Framework


def arms(design: model.Design, block: int) -> tuple[model.ArmName, ...]:
    """The arms of a block, in the order in which they run."""
    if design.arms == 1:
        return (model.ArmName.TREATMENT,)
    return order.arms(design.order, design.seed, block)


async def run(
    bench: Bench,
    design: model.Design,
    number: int,
    placed: Mapping[model.ArmName, placing.Placed],
    keep: Keep,
) -> model.Block:
    """Run a block. ``keep`` stores what a failed trial printed and returns where.

    Raises:
        DeviceLostError, HarnessError: nothing of it counts, and it is to be run again, in the same order.
    """
    crashpoints.reach("block.before-trial")
    trials: list[model.Trial] = []
    for arm in arms(design, number):
        if trials:
            crashpoints.reach("block.between-trials")
        await _condition(bench, design, placed[arm])
        finished = await trial.run(bench.session, bench.device, design, bench.framework, placed[arm])
        log = await keep(finished, number)
        trials.append(trial.with_log(finished.trial, log))
    return model.Block(number, tuple(trials))


async def _condition(bench: Bench, design: model.Design, placed: placing.Placed) -> None:
    """Bring the device into the same state before each trial, whichever arm it is of."""
    if not placed.files.unchanged():
        raise errors.HarnessError(f"{design.benchmark.source}: a model file changed while it was in use; it is verified again")
    await anyio.sleep(max(bench.device.cooldown, placed.conditions.cooldown))
    if design.disturb_caches:
        await bench.session.disturb()
    await bench.session.directory(placing.WORK)
