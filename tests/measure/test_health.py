import random

from aibenchd.measure import health


def of(limit: int) -> health.Health:
    return health.Health(limit, random.Random(1))


def test_failures_in_a_row_end_in_quarantine_and_a_success_begins_anew() -> None:
    device = of(3)
    for _ in range(2):
        device.failed("lost")
    device.succeeded()
    assert (device.quarantined, device.text) == (False, "good")
    for number in range(3):
        device.failed(f"lost {number}")
    assert (device.quarantined, device.text, device.reason) == (True, "3 failures in a row", "lost 2")


def test_it_comes_back_after_looks_in_a_row_that_succeed() -> None:
    device = of(1)
    device.failed("lost")
    for trouble in ("", "", "lost again", "", "", ""):
        assert device.quarantined
        device.probed(trouble)
    assert not device.quarantined


def test_one_that_fails_again_after_it_came_back_is_away_for_longer_each_time() -> None:
    device = of(1)
    times = []
    for _ in range(4):
        device.failed("the harness")
        times.append(0.0)
        while device.quarantined:
            times[-1] += device.pause()
            device.probed("")
    assert times == sorted(times)
    assert times[-1] > 10 * times[0]
    device.succeeded()
    device.failed("once more")
    assert device.pause() <= health.PAUSE_SECONDS[0]


def test_a_release_is_at_once() -> None:
    device = of(1)
    device.failed("lost")
    device.probed("")
    device.release()
    assert not device.quarantined
    device.failed("lost")
    device.probed("")
    device.probed("")
    assert device.quarantined  # what succeeded before the release does not count
