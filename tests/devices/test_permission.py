"""What this host lets us do, told before it is done."""

from pathlib import Path

import pytest

from aibenchd import errors
from aibenchd.devices import base, permission

DO = {"verb": "set-governor", "cpus": [0], "governor": "performance"}
CHANGE = base.Change(DO, {**DO, "governor": "powersave"})


async def test_a_helper_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.CommandError, match=r"helper .* does not answer: .*; is its socket unit on\?"):
        await permission.look_at_changes([CHANGE], tmp_path / "helper.sock", tmp_path)


async def test_what_only_root_may_is_told_where_there_is_no_helper(tmp_path: Path) -> None:
    with pytest.raises(errors.CommandError, match="scaling_governor cannot be written to: only root may; start aibenchd-helper"):
        await permission.look_at_changes([CHANGE], None, tmp_path)
    file = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    file.parent.mkdir(parents=True)
    file.write_text("powersave")
    await permission.look_at_changes([CHANGE], None, tmp_path)


async def test_where_nothing_of_the_cpus_is_changed_nobody_is_asked(tmp_path: Path) -> None:
    locked = base.Change({"verb": "lock-clocks", "megahertz": 1}, {"verb": "unlock-clocks"})
    for changes in ([], [locked]):
        await permission.look_at_changes(changes, tmp_path / "helper.sock", tmp_path)
