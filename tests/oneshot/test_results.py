from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from aibenchd import model
from aibenchd.oneshot import exits, options, results
from aibenchd.oneshot.exits import Exit

OK, FAILED, SLOW = {"ok": 3}, {"failed": 3}, {"timed out": 3}


def result(state: str, verdict: str, against: str = "", **outcomes: Mapping[str, int]) -> results.Result:
    words = ("net", "net", "delay", "generic", "host", "cpu", "new", against)
    return results.Result(1, *words, {}, state, verdict, "", 3, outcomes=outcomes)


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (result("decided", "measured", treatment=OK), Exit.SUCCESS),
        (result("decided", "broken", treatment=FAILED), Exit.USER_ERROR),
        (result("decided", "broken", treatment=SLOW), Exit.TIMED_OUT),
        (result("skipped", ""), Exit.USER_ERROR),
        (result("open", "", treatment=OK), Exit.HARNESS_ERROR),
        (result("decided", "unchanged", "old", treatment=OK, control=OK), Exit.SUCCESS),
        (result("decided", "identical", "old"), Exit.SUCCESS),
        (result("decided", "improved", "old", treatment=OK, control=FAILED | OK), Exit.SUCCESS),
        (result("decided", "regressed", "old", treatment=OK, control=OK), Exit.REGRESSED),
        (result("decided", "broken", "old", treatment=FAILED, control=OK), Exit.REGRESSED),
        (result("decided", "broken", "old", treatment=SLOW, control=OK), Exit.REGRESSED),  # it is what the treatment does
        (result("decided", "inconclusive", "old", treatment=SLOW, control=SLOW), Exit.TIMED_OUT),
        (result("decided", "inconclusive", "old", treatment=OK, control=OK), Exit.INCONCLUSIVE),
        (result("decided", "inconclusive", "old", treatment=OK, control=FAILED), Exit.USER_ERROR),
        (result("decided", "inconclusive", "old", treatment=FAILED, control=FAILED), Exit.USER_ERROR),
    ],
)
def test_each_experiment_says_how_the_process_ends(one: results.Result, code: Exit) -> None:
    assert one.exit is code


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (set(), Exit.SUCCESS),
        ({Exit.SUCCESS, Exit.INCONCLUSIVE}, Exit.INCONCLUSIVE),
        ({Exit.REGRESSED, Exit.INCONCLUSIVE}, Exit.REGRESSED),
        ({Exit.REGRESSED, Exit.TIMED_OUT, Exit.USER_ERROR}, Exit.USER_ERROR),
        ({Exit.HARNESS_ERROR, Exit.USER_ERROR}, Exit.HARNESS_ERROR),
    ],
)
def test_where_several_hold_the_worst_does(found: set[Exit], code: Exit) -> None:
    assert exits.worst(found) is code


def test_what_noise_leaves_undecided_says_what_to_do() -> None:
    one = result("decided", "inconclusive", "old", treatment=OK, control=OK)
    assert one.advice.startswith("not decided after 3 blocks; there is no interval yet: allow more (--max-blocks, --seconds)")
    assert "no interval" not in replace(one, low=-0.1, high=0.1).advice
    assert replace(one, reason=model.TORN).advice.startswith("try again on a quieter machine")


def test_every_option_of_the_advice_is_there() -> None:
    one = result("decided", "inconclusive", "old", treatment=OK, control=OK)
    for add in (options.add_ab, options.add_bench):
        parser = argparse.ArgumentParser()
        add(parser)
        taken = {name for action in parser._actions for name in action.option_strings}
        named = set(re.findall(r"--[a-z-]+", one.advice))
        assert named
        assert named <= taken


@pytest.mark.parametrize(
    "one",
    [
        result("decided", "unchanged", "old", treatment=OK, control=OK),
        result("decided", "inconclusive", "old", treatment=OK, control=OK | FAILED),
        result("decided", "inconclusive", "old", treatment=SLOW, control=SLOW),
        result("open", "", "old", treatment=OK, control=OK),
    ],
)
def test_what_more_blocks_do_not_mend_has_no_such_advice(one: results.Result) -> None:
    assert one.advice == ""
