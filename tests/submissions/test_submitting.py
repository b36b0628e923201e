"""How much of what people send may wait at once."""

from __future__ import annotations

import pytest

from aibenchd import errors
from aibenchd.submissions import submitting


def test_one_user_cannot_keep_all_others_out() -> None:
    most = {1: submitting.MOST_OF_ONE}
    with pytest.raises(errors.CommandError, match=r"50 submissions of yours wait already; 'aibenchctl requests' lists them"):
        submitting._judge(most, 1)
    submitting._judge(most, 2)
    submitting._judge({1: submitting.MOST_OF_ONE - 1}, 1)


def test_all_users_together_cannot_send_without_end() -> None:
    with pytest.raises(errors.CommandError, match=r"^200 submissions wait already"):
        submitting._judge(dict.fromkeys(range(4), submitting.MOST_OF_ONE), 4)
