"""Bells and subscriptions."""

import anyio
import structlog.testing

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


async def test_who_looks_whenever_something_is_told_looks_once_before_and_never_for_what_is_not_asked() -> None:
    told = events.Events()
    send, receive = anyio.create_memory_object_stream[int](10)
    count = 0

    async def look() -> None:
        nonlocal count
        count += 1
        await send.send(count)

    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(events.whenever, told, ("build.",), look)
        assert await receive.receive() == 1
        told.publish(events.Event("revision.new", {}))
        told.publish(events.Event("build.failed", {}))
        assert await receive.receive() == 2
        assert receive.statistics().current_buffer_used == 0
        tasks.cancel_scope.cancel()


async def test_what_breaks_of_one_holds_up_no_other() -> None:
    done: list[int] = []

    async def follow(one: int) -> None:
        if one == 2:
            raise ValueError("two")
        done.append(one)

    with structlog.testing.capture_logs() as logs:
        broken = await events.each([1, 2, 3], follow)
    assert done == [1, 3]
    assert [str(one) for one in broken] == ["two"]
    assert [one["what"] for one in logs] == ["2"]
