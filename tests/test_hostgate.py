from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import hostgate

PATIENCE = 20  # seconds, after which a wait is a deadlock


async def _steps(count: int) -> None:
    """Let the other tasks go on so many times."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def test_measurers_enter_together() -> None:
    gate = hostgate.HostGate()
    with anyio.fail_after(PATIENCE):
        async with gate.measuring(), gate.measuring():
            pass


async def test_builders_enter_together() -> None:
    gate = hostgate.HostGate()
    with anyio.fail_after(PATIENCE):
        async with gate.building(), gate.building():
            pass


@pytest.mark.parametrize(("first", "second"), [("measuring", "building"), ("building", "measuring")])
async def test_the_two_sides_exclude_each_other(first: str, second: str) -> None:
    gate = hostgate.HostGate()
    entered = False

    async def enter_second() -> None:
        nonlocal entered
        async with getattr(gate, second)():
            entered = True

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group, getattr(gate, first)():
            group.start_soon(enter_second)
            await _steps(10)
            assert not entered
    assert entered


async def test_a_builder_gets_its_turn_between_measurers_who_never_stop() -> None:
    gate = hostgate.HostGate()
    built = False

    async def measure() -> None:
        while not built:
            async with gate.measuring():
                await _steps(3)

    async def build() -> None:
        nonlocal built
        async with gate.building():
            built = True

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(measure)
            group.start_soon(measure)
            await _steps(2)
            group.start_soon(build)


async def test_sides_that_both_wait_take_turns() -> None:
    gate = hostgate.HostGate()
    turns: list[str] = []

    async def pass_often(side: str) -> None:
        for _ in range(5):
            async with getattr(gate, side)():
                turns.append(side)
                await _steps(2)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(pass_often, "measuring")
            group.start_soon(pass_often, "building")
    assert turns == ["measuring", "building"] * 5


async def test_who_gives_up_waiting_no_longer_holds_others_back() -> None:
    gate = hostgate.HostGate()
    impatient = anyio.CancelScope()
    late_entered = anyio.Event()

    async def build() -> None:
        with impatient:
            async with gate.building():
                raise AssertionError("entered while somebody measures")

    async def measure_late() -> None:
        async with gate.measuring():
            late_entered.set()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group, gate.measuring():
            group.start_soon(build)
            await _steps(3)
            group.start_soon(measure_late)
            await _steps(3)
            assert not late_entered.is_set()
            impatient.cancel()
            await late_entered.wait()


async def test_the_open_gate_holds_nobody() -> None:
    gate = hostgate.OpenGate()
    with anyio.fail_after(PATIENCE):
        async with gate.measuring(), gate.building():
            pass


_visit = st.tuples(
    st.sampled_from(["measuring", "building"]),
    st.integers(0, 8),  # steps before it asks
    st.integers(0, 5),  # steps that it stays
    st.none() | st.integers(0, 12),  # steps after which it is cancelled
)


@given(st.lists(_visit, max_size=12))
def test_any_schedule_keeps_the_sides_apart_and_leaves_the_gate_free(visits: list[tuple[str, int, int, int | None]]) -> None:
    anyio.run(_play, visits)


async def _play(visits: list[tuple[str, int, int, int | None]]) -> None:
    gate = hostgate.HostGate()
    inside = {"measuring": 0, "building": 0}
    served = 0

    async def visit(side: str, before: int, stay: int, scope: anyio.CancelScope) -> None:
        nonlocal served
        with scope:
            await _steps(before)
            async with getattr(gate, side)():
                inside[side] += 1
                try:
                    assert not (inside["measuring"] and inside["building"])
                    await _steps(stay)
                finally:
                    inside[side] -= 1
            served += 1

    async def cancel(scope: anyio.CancelScope, after: int) -> None:
        await _steps(after)
        scope.cancel()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for side, before, stay, cancelled in visits:
                scope = anyio.CancelScope()
                group.start_soon(visit, side, before, stay, scope)
                if cancelled is not None:
                    group.start_soon(cancel, scope, cancelled)
        assert served >= sum(cancelled is None for *_, cancelled in visits)
        for side in ("measuring", "building"):
            async with getattr(gate, side)():
                pass
