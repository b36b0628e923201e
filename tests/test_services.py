"""A reload is a difference: what did not change is not touched."""

import random

import anyio
import pytest

from aibenchd import board, events, services


class Recorded(services.Service):
    """Says when it runs and ends; ``gentle`` ones end by themselves, after their work."""

    def __init__(self, chosen: str, told: list[str]) -> None:
        self.name, self.told = chosen, told
        self.asked = anyio.Event()
        self.work = anyio.Event()

    async def run(self) -> None:
        self.told.append(f"{self.name} began")
        try:
            if self.name.startswith("broken"):
                raise RuntimeError("a bug")
            await self.asked.wait()
            await self.work.wait()
        finally:
            self.told.append(f"{self.name} ended")

    def stop(self) -> bool:
        self.asked.set()
        return self.name.startswith("gentle")


async def settled() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def notices() -> board.Board:
    return board.Board(events.Events())


async def test_what_is_the_same_is_not_touched_and_what_changed_is_replaced(told: list[str], notices: board.Board) -> None:
    async with anyio.create_task_group() as tasks:
        roster = services.Roster("device", lambda chosen: Recorded(chosen, told), tasks, notices, random.Random(1))
        assert roster.apply({"a": "hard 1", "b": "hard 2"}) == ["device a added", "device b added"]
        await settled()
        kept = roster.services["a"]
        assert roster.apply({"a": "hard 1", "b": "hard 3"}) == ["device b changed"]
        await settled()
        assert roster.services["a"] is kept
        assert told == ["hard 1 began", "hard 2 began", "hard 2 ended", "hard 3 began"]
        assert roster.apply({"a": "hard 1", "b": "hard 3"}) == []
        await roster.stop(1)
    assert told[-2:] == ["hard 1 ended", "hard 3 ended"] or told[-2:] == ["hard 3 ended", "hard 1 ended"]


async def test_one_that_ends_by_itself_finishes_before_its_successor_begins(told: list[str], notices: board.Board) -> None:
    async with anyio.create_task_group() as tasks:
        roster = services.Roster("device", lambda chosen: Recorded(chosen, told), tasks, notices, random.Random(1))
        roster.apply({"a": "gentle 1"})
        await settled()
        first = roster.services["a"]
        roster.apply({"a": "gentle 2"})
        await settled()
        assert told == ["gentle 1 began"]
        first.work.set()
        await settled()
        assert told == ["gentle 1 began", "gentle 1 ended", "gentle 2 began"]
        await roster.stop(0)
    assert told[-1] == "gentle 2 ended"


async def test_a_service_that_breaks_is_said_and_takes_nothing_with_it(told: list[str], notices: board.Board) -> None:
    async with anyio.create_task_group() as tasks:
        roster = services.Roster("sink", lambda chosen: Recorded(chosen, told), tasks, notices, random.Random(1))
        roster.apply({"a": "broken", "b": "hard"})
        await settled()
        (notice,) = notices.notices("sink")
        assert (notice.unit, notice.state, notice.fault) == ("sink/a", "broken", True)
        assert "a bug" in notice.reason
        assert "b" in roster.services
        await roster.stop(0)
    assert notices.notices() == []


async def test_while_one_that_broke_waits_its_pause_is_broken_off(told: list[str], notices: board.Board) -> None:
    async with anyio.create_task_group() as tasks:
        roster = services.Roster("device", lambda chosen: Gentle(chosen, told), tasks, notices, random.Random(1))
        roster.apply({"a": "broken 1"})
        await settled()
        assert roster.services == {}
        roster.apply({"a": "gentle 2"})
        await settled()
        assert told == ["broken 1 began", "broken 1 ended", "gentle 2 began"]
        roster.services["a"].work.set()
        await roster.stop(1)


class Gentle(Recorded):
    def stop(self) -> bool:
        super().stop()
        return True
