"""Durations and sizes."""

import math

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import quantities


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("2d12h", 216_000),
        ("1w", 604_800),
        ("1m1ms", 60.001),
    ],
)
def test_durations_read_as_people_write_them(text: str, seconds: float) -> None:
    assert quantities.seconds(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 s", "5S", "-5s", "+5s", "1,5s", "1e3s", "5s ", "٣s", "5min", 5, 5.0, True, None, ["5s"]]
)
def test_what_is_no_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match=r"expected a duration with its unit, such as 90s, 15m or 1h30m"):
        quantities.seconds(text)


@pytest.mark.parametrize("text", ["36501d", "9" * 400 + "w", "9" * 40 + "s"])
def test_a_duration_has_an_end(text: str) -> None:
    with pytest.raises(ValueError, match="at most 36500d"):
        quantities.seconds(text)


def test_an_interval_takes_time() -> None:
    assert quantities.some_seconds("1ms") == 0.001
    for text in ("0s", "0.5ms"):
        with pytest.raises(ValueError, match="at least 1ms"):
            quantities.some_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("5B", 5), ("1kB", 1000), ("1KiB", 1024), ("20GiB", 20 << 30), ("1.5MB", 1_500_000), ("0.5B", 0)],
)
def test_sizes_read_as_people_write_them(text: str, size: int) -> None:
    assert quantities.size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GiB", "5 GiB", "5gib", "-5B", "1e3B", "5G", "5Gib", 5, None, True])
def test_what_is_no_size_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size with its unit, such as 512MiB or 20GiB"):
        quantities.size(text)


@pytest.mark.parametrize("text", ["8388608TiB", "9" * 400 + "B", "9" * 19 + "kB"])
def test_a_size_fits_in_64_bits(text: str) -> None:
    with pytest.raises(ValueError, match="less than 8388608TiB"):
        quantities.size(text)


@given(st.integers(0, 36_500 * 86_400_000))
def test_a_duration_reads_back_as_it_was_written(milliseconds: int) -> None:
    text = quantities.duration_text(milliseconds / 1000)
    assert math.isclose(quantities.seconds(text), milliseconds / 1000, rel_tol=1e-12, abs_tol=1e-9)
    assert quantities.duration_text(quantities.seconds(text)) == text


@given(st.integers(0, quantities.LARGEST) | st.integers(0, 8_000).map(lambda size: size << 40))
def test_a_size_reads_back_as_it_was_written(size: int) -> None:
    assert quantities.size(quantities.size_text(size)) == size


def test_a_model_dumps_what_the_file_said() -> None:
    class Limits(pydantic.BaseModel):
        wait: quantities.Interval
        pause: quantities.Duration | None
        room: quantities.Size

    limits = Limits.model_validate_json('{"wait": "90m", "pause": "90d", "room": "1024MiB"}', strict=True)
    assert limits.model_dump() == {"wait": 5400.0, "pause": 7_776_000.0, "room": 1 << 30}
    assert limits.model_dump(mode="json") == {"wait": "1h30m", "pause": "90d", "room": "1GiB"}
