"""A GPU behind a real SSH server. There is no card: a stand-in of nvidia-smi prints what NVIDIA's would."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nvidiasmi
import pytest
import sshd

from aibenchd import errors
from aibenchd.devices import base, conditioning, gpus, nvidia_smi, ssh_gpu


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("box") / "ssh") as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path) -> nvidiasmi.Machine:
    return nvidiasmi.Machine(tmp_path / "bin")


def device(server: sshd.Sshd, machine: nvidiasmi.Machine, name: str = "card", gpu: str = "0", **more: Any) -> ssh_gpu.SshGpu:
    env = machine.env | more.pop("env", {})
    keys = server.settings(name, env=env, gpu=gpu, **more) | {"kind": "ssh-gpu"}
    return ssh_gpu.SshGpu(
        ssh_gpu.Settings.model_validate(keys), server.home.with_name("state") / keys["name"], base.RunSettings()
    )


# ---- the session


async def test_programs_see_their_gpu_and_no_other_whatever_a_benchmark_says(
    server: sshd.Sshd, machine: nvidiasmi.Machine
) -> None:
    async with device(server, machine, gpu="1", env={"CUDA_VISIBLE_DEVICES": "7"}).session() as session:
        command = base.Command(("env",), await session.directory("work"), env={"CUDA_VISIBLE_DEVICES": "0", "OTHER": "x"})
        printed = (await session.run(command)).stdout.splitlines()
    assert {f"CUDA_VISIBLE_DEVICES={nvidiasmi.SECOND}", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "OTHER=x"} <= set(printed)


async def test_a_fingerprint_and_a_state_are_the_machines_and_the_gpus(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    machine.card(**{"clocks_event_reasons.active": "0x0000000000000047", "persistence_mode": "Disabled"})
    machine.tell(processes=["4711, /usr/bin/python3", "4712, [Not Found]", "[N/A]"])
    async with device(server, machine, gpu=nvidiasmi.FIRST).session() as session:
        await session.health()
        found, state = await session.fingerprint(), await session.state()
    assert found["kernel"] == os.uname().release
    assert {
        "gpu": "NVIDIA H100 80GB HBM3",
        "hash": nvidiasmi.FIRST,
        "driver": "570.86.15",
        "vbios": "96.00.74.00.01",
        "ecc": "on",
        "power_limit": "700 W",
        "persistence": "off",
    }.items() <= found.items()
    assert state["load"]
    assert {
        "temperature": "41",
        "power": "71.5 W",
        "clock": "1980 MHz",
        "memory_clock": "2619 MHz",
        "memory_used": "4 MiB",
        "processes": "4711 /usr/bin/python3, 4712",
    }.items() <= state.items()
    assert state["throttled"].endswith("power limit, too hot (hardware)")
    hazards = conditioning.hazards(found, state)
    assert "nvidia-smi -pm 1" in hazards["persistence off"]
    assert "power limit" in hazards["throttled"]
    assert "4711 /usr/bin/python3" in hazards["GPU shared"]
    assert all(question.endswith(f"-i {nvidiasmi.FIRST}") for question in machine.asked())


async def test_an_index_is_looked_up_once_for_it_may_be_anothers_later(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    async with device(server, machine, gpu="0").session() as session:
        machine.tell(cards=machine.told["cards"][::-1])
        assert (await session.fingerprint())["hash"] == nvidiasmi.FIRST
    assert [question.split()[-1] for question in machine.asked()] == ["0", nvidiasmi.FIRST]


async def test_after_a_reboot_it_is_the_same_gpu(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    async with device(server, machine, gpu="0", reboot_command=["true"]).session() as session:
        link = session._link  # type: ignore[attr-defined]
        link.greeting = {**link.greeting, "boot": "an earlier one"}
        machine.tell(cards=machine.told["cards"][::-1])
        await session.reboot()
        command = base.Command(("env",), await session.directory("work"))
        assert f"CUDA_VISIBLE_DEVICES={nvidiasmi.FIRST}" in (await session.run(command)).stdout.splitlines()
        assert (await session.fingerprint())["hash"] == nvidiasmi.FIRST


async def test_what_nvidia_smi_warns_of_aside_is_passed_over(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    machine.tell(inforom=True, processes=["No running processes found"])
    async with device(server, machine).session() as session:
        assert (await session.fingerprint())["hash"] == nvidiasmi.FIRST
        state = await session.state()
    assert (state["temperature"], state["processes"]) == ("41", "")
    assert "GPU shared" not in conditioning.hazards({}, state)


@pytest.mark.parametrize("untold", ["[N/A]", "[Not Supported]", "N/A"])
async def test_what_a_card_does_not_tell_is_left_out(server: sshd.Sshd, machine: nvidiasmi.Machine, untold: str) -> None:
    machine.card(**dict.fromkeys(("ecc.mode.current", "power.limit", "vbios_version", "persistence_mode"), untold))
    machine.card(**dict.fromkeys(("power.draw", "clocks.mem", "memory.used", *nvidia_smi.REASONS), untold))
    machine.tell(clocks=f"{untold}, {untold}")
    async with device(server, machine).session() as session:
        assert not {"ecc", "power_limit", "vbios", "persistence"} & (await session.fingerprint()).keys()
        state = await session.state()
        assert not {"power", "memory_clock", "memory_used"} & state.keys()
        assert state["temperature"] == "41"
        with pytest.raises(errors.CommandError, match="does not say which clocks"):
            await session.changes(base.Conditioning(frequency="max"))


@pytest.mark.parametrize("known", nvidia_smi.REASONS)
async def test_drivers_have_either_name_of_what_throttles(server: sshd.Sshd, machine: nvidiasmi.Machine, known: str) -> None:
    machine.card(**(dict.fromkeys(nvidia_smi.REASONS) | {known: "0x0000000000000020"}), vbios_version=None)
    async with device(server, machine).session() as session:
        assert "vbios" not in await session.fingerprint()
        for _ in range(2):
            assert (await session.state())["throttled"].endswith("too hot (driver)")
    (other,) = set(nvidia_smi.REASONS) - {known}
    assert sum(other in question for question in machine.asked()) <= 2  # what it lacks is asked once


@pytest.mark.parametrize(
    ("wanted", "megahertz"), [("max", 1980), ("mid", 1965), ("min", 345), ("1965000000", 1965), ("345000000", 345)]
)
@pytest.mark.parametrize("root", [True, False])
async def test_clocks_are_locked_and_let_go_by_root_or_with_sudo(
    server: sshd.Sshd, machine: nvidiasmi.Machine, wanted: str, megahertz: int, root: bool
) -> None:
    if not root:
        machine.demote(sudo=True)
    async with device(server, machine).session() as session:
        (change,) = await session.changes(base.Conditioning(frequency=wanted))
        assert machine.locked(nvidiasmi.FIRST) == ""
        await session.apply(json.loads(json.dumps(change.do)))
        assert machine.locked(nvidiasmi.FIRST) == str(megahertz)
        assert machine.locked(nvidiasmi.SECOND) == ""
        assert (await session.fingerprint())["gpu_frequency"] == f"{megahertz} MHz"
    async with device(server, machine).session() as later:
        await later.apply(json.loads(json.dumps(change.undo)))
        await later.apply(change.undo)
        assert machine.locked(nvidiasmi.FIRST) == ""


async def test_a_clock_that_cannot_be_had_is_said_with_what_mends_it(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    by_hand = f"run nvidia-smi -i {nvidiasmi.FIRST} -lgc 1980,1980 as root"
    async with device(server, machine).session() as session:
        with pytest.raises(errors.CommandError, match="GPU 0 cannot run at 1900000000 Hz; the nearest that it can is 1965000000"):
            await session.changes(base.Conditioning(frequency="1900000000"))
        assert await session.changes(base.Conditioning()) == []
        with pytest.raises(errors.HarnessError, match="knows no action"):
            await session.apply({"verb": "explode"})
        (change,) = await session.changes(base.Conditioning(frequency="max"))
        machine.tell(root=True)  # as in a container, whose root is none
        with pytest.raises(errors.CommandError, match=f"does not have permission to change clocks.*{by_hand}"):
            await session.apply(change.do)
        with pytest.raises(errors.CommandError, match=r"cannot be let go: .*does not have permission"):
            await session.apply(change.undo)
        warned = (0, "Setting locked GPU clocks is not supported for GPU 1.\nTreating as warning and moving on.\nAll done.\n")
        machine.tell(says={"-lgc": warned, "-rgc": warned})
        with pytest.raises(errors.CommandError, match="is not supported"):
            await session.apply(change.do)
        await session.apply(change.undo)
        machine.demote(sudo=False)
        with pytest.raises(errors.CommandError, match=f"sudo: a password is required; log in as root, .*sudo -n .*{by_hand}"):
            await session.changes(base.Conditioning(frequency="max"))
        (machine.directory / "sudo").unlink()
        machine.tell(says={})
        if not Path("/usr/bin/sudo").exists():
            with pytest.raises(errors.CommandError, match=f"sudo: not found.*{by_hand}"):
                await session.changes(base.Conditioning(frequency="max"))
        assert "gpu_frequency" not in await session.fingerprint()
        machine.card(persistence_mode="Disabled")
        with pytest.raises(errors.CommandError, match=f"forgets locked clocks .* run nvidia-smi -i {nvidiasmi.FIRST} -pm 1"):
            await session.changes(base.Conditioning(frequency="max"))


async def test_one_gpu_is_one_device_by_whatever_name(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    second = device(server, machine, gpu=nvidiasmi.FIRST, name="again")
    async with device(server, machine).session(), device(server, machine, gpu="1", name="other").session():
        with pytest.raises(errors.DeviceLostError, match=f"again: GPU {nvidiasmi.FIRST} is the device card already"):
            async with second.session():
                pass
    async with second.session() as session:
        await session.health()


# ---- what goes wrong


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ((15, "Unable to determine the device handle for GPU0000:1B:00.0: GPU is lost.\n"), "GPU is lost.*fallen off the bus"),
        ((9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"), "modprobe nvidia"),
        ((18, "Failed to initialize NVML: Driver/library version mismatch\n"), "the driver was updated: restart the host"),
        ((255, "Unable to determine the device handle: Unknown Error\n"), "Unknown Error; nvidia-smi -L lists"),
        ((0, ""), "answers in another way than expected: ''"),
        ((0, "hello\nworld\n"), "says 'hello' of uuid"),
        ((0, "\x00\xff, 1, 2\n"), "answers in another way than expected"),
        ((0, f"{nvidiasmi.FIRST}\n{nvidiasmi.SECOND}\n"), f"another way than expected: '{nvidiasmi.SECOND}'"),
        ((0, "[N/A]\n"), "does not tell its UUID"),
        ((0, "[Unknown Error]\n"), r"says '\[Unknown Error\]' of uuid"),
        ((0, "x" * 200_000), "says 'x+.{0,400}"),
    ],
)
async def test_a_gpu_that_is_not_there_or_talks_nonsense_is_lost_with_an_advice(
    server: sshd.Sshd, machine: nvidiasmi.Machine, says: tuple[int, str], words: str
) -> None:
    made = device(server, machine)
    async with made.session() as session:
        machine.tell(says={"--query-gpu": says})
        for ask in (session.health, made.reach):
            with pytest.raises(errors.DeviceLostError, match=f"(?s)GPU 0: .*{words}") as caught:
                await ask()
            assert len(str(caught.value)) < 1000
    with pytest.raises(errors.DeviceLostError, match=f"(?s)card: GPU 0: .*{words}"):
        async with made.session():
            pass
    machine.tell(says={})
    await made.reach()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"card": {"temperature.gpu": "warm"}}, "says 'warm' of temperature.gpu"),
        ({"card": {"temperature.gpu": "[GPU requires reset]"}}, "GPU requires reset"),
        ({"card": {"clocks.sm": "1980 MHz"}}, "says '1980 MHz' of clocks.sm"),
        ({"processes": ["no number, python3"]}, "another way than expected: 'no number, python3'"),
        ({"says": {"--query-compute-apps": (16, "GPU requires reset\n")}}, "nvidia-smi --gpu-reset"),
    ],
)
async def test_a_state_that_is_not_understood_is_none(
    server: sshd.Sshd, machine: nvidiasmi.Machine, told: dict[str, Any], words: str
) -> None:
    async with device(server, machine).session() as session:
        machine.card(**told.pop("card", {}))
        machine.tell(**told)
        with pytest.raises(errors.DeviceLostError, match=words):
            await session.state()


async def test_clocks_that_are_not_understood_are_none(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    machine.tell(clocks="2619, 1980\n2619 MHz, fast")
    async with device(server, machine).session() as session:
        with pytest.raises(errors.DeviceLostError, match="another way than expected: '2619 MHz, fast'"):
            await session.changes(base.Conditioning(frequency="max"))


async def test_a_machine_without_nvidia_smi_or_without_that_gpu_is_told(server: sshd.Sshd, machine: nvidiasmi.Machine) -> None:
    with pytest.raises(errors.DeviceLostError, match="card: GPU 7: No devices were found; nvidia-smi -L lists"):
        await device(server, machine, gpu="7").reach()
    async with device(server, machine).session() as session:
        machine.remove()
        for ask in (session.health, session.state, device(server, machine, name="other").reach):
            with pytest.raises(errors.DeviceLostError, match=r"nvidia-smi.*; install NVIDIA's driver there .*in PATH"):
                await ask()


async def test_an_nvidia_smi_that_hangs_is_killed_and_the_device_lost(
    server: sshd.Sshd, machine: nvidiasmi.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = device(server, machine)
    async with made.session() as session:
        monkeypatch.setattr(nvidia_smi, "DEADLINE", 0.5)
        machine.tell(hangs={"--query-gpu": 1000, "--query-supported-clocks": 1000, "-lgc": 1000})
        for ask in (
            session.health,
            session.state,
            lambda: session.changes(base.Conditioning(frequency="max")),
            lambda: session.apply({"verb": gpus.LOCK, "megahertz": 345}),
            made.reach,
        ):
            with pytest.raises(errors.DeviceLostError, match=r"nvidia-smi does not answer within .* restart it"):
                await ask()
        running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert not any(str(machine.directory).encode() in command for command in running)


@pytest.mark.parametrize("gpu", ["", "-1", "01", "MIG-1234", "GPU-", "0 -lgc 1", "GPU-1;x"])
def test_a_gpu_is_named_as_nvidia_smi_lists_it(gpu: str) -> None:
    with pytest.raises(ValueError, match="expected an index such as"):
        ssh_gpu.Settings(name="card", kind="ssh-gpu", host="box", gpu=gpu)
