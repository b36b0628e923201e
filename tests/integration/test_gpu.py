"""A GPU of this host with the real daemon, where there is one."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import lab
import pytest

from aibenchd import errors
from aibenchd.devices import nvml


def missing() -> str:
    """Why there is no GPU to be had; empty where there is."""
    try:
        library = nvml.library()
    except errors.HarnessError as error:
        return str(error)
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        return f"no NVIDIA GPU, or no driver for it ({error})"
    library.nvmlShutdown()
    return ""


MISSING = missing()


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
async def test_a_gpu_that_a_reload_removes_in_a_block_ends_it_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    begun, calm = tmp_path / "begun", tmp_path / "calm"
    made = lab.make(tmp_path)
    card = {"name": "card", "kind": "gpu", "index": 0, "minimum_free": "1MiB"}
    made.configure(devices=[card], experiment=made.configuration["experiment"] | {"timeout": "3s"})
    hangs = f'[ -e {calm} ] || {{ echo "$CUDA_VISIBLE_DEVICES" >{begun}; setsid sleep 1000 & wait; }}\nexec awk'
    made.commit("hangs at first", bench=lab.BENCH.replace("exec awk", "{hangs}").format(latency=100, hangs=hangs))
    of_card = "SELECT t.outcome FROM trials t JOIN experiments e ON e.id = t.experiment WHERE e.device = 'card' ORDER BY t.block"
    async with made.daemon() as process:
        with anyio.fail_after(lab.WAIT):
            while not (begun.exists() and begun.read_text()):
                await anyio.sleep(0.02)
        assert begun.read_text().startswith("GPU-")
        calm.touch()
        made.configure(devices=[{"name": "other", "kind": "simulated"}])
        process.send_signal(signal.SIGHUP)
        await made.until(of_card, [("timed out",)])  # its block had its time
        with anyio.fail_after(lab.WAIT):
            while [one["name"] for one in (await made.ctl("devices"))["devices"]] != ["other"]:
                await anyio.sleep(0.05)
        assert not [command for command in await anyio.to_thread.run_sync(made.processes) if "sleep 1000" in command]
        made.configure(devices=[card])
        process.send_signal(signal.SIGHUP)
        await made.until("SELECT verdict FROM experiments WHERE device = 'card'", [("measured",)])
        assert made.rows(of_card)[0] == ("timed out",)
        assert set(made.rows(of_card)[1:]) == {("ok",)}
