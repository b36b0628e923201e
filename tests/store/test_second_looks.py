"""What became of measuring again what a finding suspects."""

from __future__ import annotations

from typing import Any

import pytest

from aibenchd.store import second_looks

ACCEPTED_OPEN = {"action": "accept", "state": "open"}
ACCEPTED_UNCONFIRMED = {"action": "accept", "state": "unconfirmed"}


@pytest.mark.parametrize(
    ("state", "triages", "confirmed"),
    [
        ("open", [], True),
        ("unconfirmed", [], False),
        ("accepted", [ACCEPTED_OPEN, ACCEPTED_UNCONFIRMED], True),
        ("accepted", [ACCEPTED_UNCONFIRMED, ACCEPTED_OPEN], False),
        ("accepted", [{"action": "mute", "state": "open"}], False),  # its acceptance is among those that are not read
    ],
)
def test_what_was_accepted_is_as_confirmed_as_it_was_before(state: str, triages: list[dict[str, Any]], confirmed: bool) -> None:
    assert second_looks.is_confirmed(state, triages) is confirmed
