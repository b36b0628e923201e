from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from aibenchd import weeks


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone(timedelta(hours=5)))))
def test_a_moment_is_in_the_week_that_its_start_begins(moment):
    start = weeks.start(moment)
    assert start <= moment < start + timedelta(weeks=1)
    assert (start.weekday(), start.hour, start.minute, start.tzinfo) == (0, 0, 0, UTC)
