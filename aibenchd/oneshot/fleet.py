"""The devices of a run, by the words that name them on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
import pydantic

from aibenchd import errors, faults, plugins, settings
from aibenchd.devices import base
from aibenchd.oneshot.options import Options

LOCAL = "this-host"
LOCAL_WORDS = (LOCAL, "local", "host", "localhost")
PHONES = "android"  # how the platforms of phones begin


async def chosen(options: Options) -> tuple[base.DeviceSettings, ...]:
    """The devices, each with what the command line says of all of them.

    Raises:
        CommandError: a word names none, or there is none.
        InvalidFileError: of the configuration that names them.
    """
    if options.config is not None:
        known = (await anyio.to_thread.run_sync(settings.load, options.config)).devices
        found = [_of_configuration(word, known, options.config) for word in options.devices] or [*known]
    elif not options.devices and options.platform.startswith(PHONES):
        found = [_made(entry, options) for entry in await _phones()]
    else:
        found = [_made(_entry(word), options) for word in options.devices or (LOCAL,)]
    left = [device for device in found if not {device.name, getattr(device, "serial", "")} & set(options.excluded_devices)]
    if not left:
        raise errors.CommandError("no device is left to measure on; 'aibenchd discover' shows what there is")
    return tuple(_changed(device, options) for device in left)


def remarks(options: Options) -> Mapping[str, str]:
    """By unit of the board, of what was taken for a phone's serial because no device is called so: who misspells a name."""
    if options.config is not None:
        return {}
    entries = {word: _entry(word) for word in options.devices}
    names = f"this host is {' or '.join(LOCAL_WORDS)}, and --config FILE names others"
    return {
        f"device/{entry['name']}": f"no device is called {faults.quoted(word)} ({names}), so it is taken for a phone's serial"
        for word, entry in entries.items()
        if "serial" in entry
    }


def _of_configuration(word: str, known: Sequence[base.DeviceSettings], path: Path) -> base.DeviceSettings:
    device = next((one for one in known if one.name == word), None)
    if device is None:
        raise errors.CommandError(f"{path} has no device {word!r}; {faults.suggestion(word, [one.name for one in known])}")
    return device


async def _phones() -> list[Mapping[str, Any]]:
    kind: type[base.Device] = plugins.load("devices", "adb")
    found = await kind.discover()
    if not found:
        raise errors.CommandError("no phone is there; 'aibenchd discover' shows what adb knows")
    return [one.entry for one in found]


def _entry(word: str) -> Mapping[str, Any]:
    """As it would be in a configuration."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-._")[:64] or "device"
    if word in LOCAL_WORDS:
        return {"name": LOCAL, "kind": "local"}
    if "@" in word:
        username, _, address = word.rpartition("@")
        host, colon, port = address.rpartition(":")
        where = {"host": host, "port": int(port)} if colon and port.isdecimal() else {"host": address}
        return {"name": name, "kind": "ssh", "platform": "linux", "username": username, "agent": True, **where}
    return {"name": name, "kind": "adb", "address" if re.fullmatch(r".+:[0-9]{1,5}", word) else "serial": word}


def _made(entry: Mapping[str, Any], options: Options) -> base.DeviceSettings:
    kind: type[base.Device] = plugins.load("devices", entry["kind"])
    platform = {"platform": options.platform} if options.platform else {}
    try:
        return kind.Settings.model_validate_json(json.dumps({**entry, **platform}), context={"directory": Path.cwd()})
    except pydantic.ValidationError as error:
        raise errors.CommandError(f"device {entry['name']}: {told(error)}; describe it in a file and give --config") from error


def _changed(device: base.DeviceSettings, options: Options) -> base.DeviceSettings:
    own: dict[str, Any] = {}
    if options.cooldown is not None:
        own["cooldown"] = options.cooldown
    if options.cpus:
        own["cpus"] = options.cpus
    if options.set_freq or options.reboot:
        if options.reboot and plugins.load("devices", device.kind).on_this_host:  # type: ignore[attr-defined]
            raise errors.CommandError(f"--reboot: {device.name} is this host, which cannot be rebooted for an experiment")
        own["conditioning"] = _conditioning(device.conditioning, options)
    return device.model_copy(update=own)


def _conditioning(before: base.Conditioning, options: Options) -> base.Conditioning:
    try:
        frequency = base.Conditioning(frequency=options.set_freq).frequency
    except pydantic.ValidationError as error:
        raise errors.CommandError(f"--set-freq: {told(error)}") from error
    return before.model_copy(update={"frequency": frequency or before.frequency, "reboot": options.reboot or before.reboot})


def told(error: pydantic.ValidationError) -> str:
    """What pydantic found, on one line."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"] for one in error.errors(include_url=False)
    )
