"""Bells and subscriptions."""

import anyio

from aibenchd import board, events


async def test_a_bell_rung_before_the_wait_wakes_at_once() -> None:
    told = events.Events()
    with told.bell("build.") as bell:
        told.publish(events.Event("build.failed", {}))
        assert await bell.wait(0)
        assert not await bell.wait(0)


async def test_a_bell_does_not_ring_for_other_topics() -> None:
    told = events.Events()
    with told.bell("build.", "revision.") as bell:
        told.publish(events.Event("experiment.open", {}))
        assert not await bell.wait(0)


async def test_a_subscriber_that_lags_loses_the_newest_and_delays_nobody() -> None:
    told = events.Events()
    async with told.subscribe() as stream:
        for number in range(events.SUBSCRIBER_BOUND + 50):
            told.publish(events.Event("block.done", {"number": number}))
        got = [await anext(stream) for _ in range(events.SUBSCRIBER_BOUND)]
        assert [event.facts["number"] for event in got] == list(range(events.SUBSCRIBER_BOUND))
        with anyio.move_on_after(0.01) as scope:
            await anext(stream)
        assert scope.cancelled_caught


async def test_the_board_keeps_since_while_the_state_stays() -> None:
    told = events.Events()
    notices = board.Board(told)
    with told.bell("board.") as bell:
        notices.put("device/a", "lost", "no route", fault=True)
        assert await bell.wait(0)
        (first,) = notices.notices("device")
        notices.put("device/a", "lost", "refused", fault=True)
        assert not await bell.wait(0)
        (second,) = notices.notices("device")
    assert (second.since, second.reason) == (first.since, "refused")
    notices.take_down("device/a")
    assert notices.notices() == []
