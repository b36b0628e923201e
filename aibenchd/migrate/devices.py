"""What was measured on: the section devices. Blocking."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aibenchd.migrate import answers
from aibenchd.migrate.old import Old, Tree, Value, known, name_of, pure

HOST = "host"
_HOSTS = ("host", "linux", "mac", "windows")  # what platforms of this host begin with
_MODEL = re.compile(r".+-[0-9]+(\.[0-9]+)*-[0-9]+")  # <model>-<release>-<sdk>
_ADDRESS = re.compile(r".+:[0-9]{1,5}")
_PHONES = (
    *("--android_dir", "--device", "--devices", "--device_name_mapping"),
    *("--excluded_devices", "--hash_platform_mapping", "--monsoon_map"),
)  # arguments that are about phones alone


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone that something names. ``model`` is empty where nothing tells it, ``origin`` the argument that names the phone."""

    serial: str
    origin: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The devices, and which of them every benchmark runs on; no selection: on all."""

    devices: list[Tree]
    selection: dict[str, Tree]


def devices(old: Old) -> Found:
    """An entry for this host, or for each phone that the arguments name.

    Raises:
        ArgumentError: a platform is none of FAI-PEP's, or something is no number.
        InvalidFileError: a mapping is none.
    """
    given = old.get("--platforms", "--platform")
    if given is None:
        old.note("--platform", "was not given: nothing says what is measured on; `aibenchd discover` prints entries for devices")
        return Found([], {})
    hosts: list[str] = []
    phones: list[str] = []
    for platform in dict.fromkeys(old.listed("--platforms", "--platform")):
        if platform.startswith("android"):
            phones.append(platform)
        elif platform.startswith(_HOSTS):
            hosts.append(platform)
        elif platform.startswith("ios"):
            old.note(given.argument.name, f"{platform} is not carried over: there are no iOS devices yet")
        else:
            raise given.wrong("platforms that begin with android, host, linux, mac or ios, with commas between them")
    made = [_host(old, hosts, given.argument.name)] if hosts else []
    _say_what_is_for_others(old, phones)
    if not phones:
        return Found(made, {})
    if phones[1:]:
        others = f"{', '.join(phones[1:])}, which takes devices of its own"
        old.note(given.argument.name, f"phones are built for {phones[0]} here; not carried over: {others}")
    _say_meters(old)
    found = _phones(old)
    entries = {one: _phone(old, one, found, Value(phones[0], given.argument.name)) for one in found}
    return Found([*made, *entries.values()], _selection(old, made, entries))


def _say_what_is_for_others(old: Old, phones: Sequence[str]) -> None:
    if old.get("--ios_dir"):
        old.note("--ios_dir", "there are no iOS devices yet")
    for name in _PHONES if not phones else ():
        if old.get(name):
            old.note(name, "is about phones, and none is measured on")


def _host(old: Old, platforms: Sequence[str], origin: str) -> Tree:
    first, *others = platforms
    if others:
        old.note(origin, f"this host is one device, here of the platform {first}; not carried over: {', '.join(others)}")
    if not first.startswith(("host", "linux")):
        old.note(origin, f"{first}: aibenchd runs on Linux; on another system it cannot be measured")
    _say_what_is_left_alone(old)
    signature = old.value("--platform_sig")
    return {
        "name": Value(name_of(signature.value, HOST), signature.origin) if signature else HOST,
        "kind": "local",
        "platform": Value(first, origin),
        **known(cooldown=old.duration("--cooldown")),
    }


def _say_what_is_left_alone(old: Old) -> None:
    """Of this host: FAI-PEP's platforms for hosts do neither."""
    if old.flag("--reboot"):
        old.note("--reboot", "this host is not rebooted, which FAI-PEP did not do either")
    frequency = old.text("--set_freq")
    if frequency:
        advice = f"on this host conditioning: {{frequency: {frequency}}} does, as root or with a helper"
        old.note("--set_freq", f"FAI-PEP set it on phones alone; {advice}")


def _phones(old: Old) -> list[Phone]:
    """All that something names, each once; a note where there are none."""
    found = {one.serial: one for one in (*_listed(old), *_single(old), *_mapped(old))}
    models = _models(old)
    if not found:
        advice = "run `aibenchd discover`, and put its entries under devices"
        old.note("--platform", f"android: FAI-PEP took every phone that adb showed; {advice}")
    return [Phone(one.serial, one.origin, one.model or models.get(one.serial, "")) for one in found.values()]


def _models(old: Old) -> dict[str, str]:
    given = old.get("--hash_platform_mapping")
    return answers.texts(given) if given else {}


def _listed(old: Old) -> Iterator[Phone]:
    yield from (Phone(text, "--devices") for text in old.listed("--devices") if not _MODEL.fullmatch(text))


def _single(old: Old) -> Iterator[Phone]:
    """``--device`` is a serial number, or an object with it as its ``hash``."""
    given = old.get("--device")
    if given is None:
        return
    if not given.words[0].startswith("{"):
        yield Phone(given.words[0], "--device")
        return
    told = answers.texts(given)
    if "hash" not in told:
        raise given.wrong('a serial number, or an object such as {"hash": "…", "kind": "…"}')
    yield Phone(told["hash"], "--device", told.get("kind", ""))


def _mapped(old: Old) -> Iterator[Phone]:
    """Those of the mapping: all, or where devices are named by their model those of that."""
    wanted = {text for text in old.listed("--devices") if _MODEL.fullmatch(text)}
    named = {one.serial for one in (*_listed(old), *_single(old))}
    for serial, model in _models(old).items():
        if serial not in named and (model in wanted or not (wanted or named)):
            yield Phone(serial, "--hash_platform_mapping", model)


def _phone(old: Old, phone: Phone, every: Sequence[Phone], platform: Value) -> Tree:
    kind = "address" if _ADDRESS.fullmatch(phone.serial) else "serial"
    conditioning = known(frequency=old.value("--set_freq"), reboot=Value(True, "--reboot") if old.flag("--reboot") else None)
    return known(
        name=_called(old, phone, every),
        kind="adb",
        platform=platform if platform.value != "android" else None,
        **{kind: Value(phone.serial, phone.origin)},
        directory=_directory(old),
        cooldown=old.duration("--cooldown"),
        conditioning=conditioning or None,
    )


def _directory(old: Old) -> Value | None:
    """One of our own below the one that was named: what lies in it is ours to remove."""
    given = old.get("--android_dir")
    if given and not given.words[0].startswith("/"):
        raise given.wrong("an absolute path on the phone, such as /data/local/tmp")
    return Value(f"{given.words[0].rstrip('/')}/aibenchd", given.argument.name) if given else None


def _called(old: Old, phone: Phone, every: Sequence[Phone]) -> Any:
    """By what its model is called, where it is the only one of that; else by its serial number."""
    given = old.get("--device_name_mapping")
    name = answers.texts(given).get(phone.model, "") if given else ""
    if name and [one.model for one in every].count(phone.model) == 1:
        return Value(name_of(name, phone.serial), "--device_name_mapping")
    return name_of(phone.serial, "phone")


def _say_meters(old: Old) -> None:
    given = old.get("--monsoon_map")
    for serial, monsoon in answers.texts(given).items() if given else ():
        meter = f'meter: {{kind: program, command: [PROGRAM, "{monsoon}"]}}'
        old.note("--monsoon_map", f"have a PROGRAM print the watts of Monsoon {monsoon}, and give {serial} a {meter}")


def _selection(old: Old, hosts: Sequence[Tree], entries: Mapping[Phone, Tree]) -> dict[str, Tree]:
    """Which devices a benchmark runs on, where it is not all of them."""
    models = {text for text in old.listed("--devices") if _MODEL.fullmatch(text)}
    absent = sorted(models - {phone.model for phone in entries})
    if absent:
        advice = "no serial number is known here; `aibenchd discover` prints an entry of it"
        old.note("--devices", f"{', '.join(absent)}: {advice}")
    names = [pure(entry["name"]) for entry in (*hosts, *entries.values())]
    return known(
        names=Value(names, "--devices") if absent and names else None,
        models=Value(absent, "--devices") if absent else None,
        exclude=_excluded(old, entries),
    )


def _excluded(old: Old, entries: Mapping[Phone, Tree]) -> Value | None:
    unwanted = old.listed("--excluded_devices")
    for text in unwanted:
        if not any(text in (phone.serial, phone.model) for phone in entries):
            old.note("--excluded_devices", f"{text}: has no entry here, so nothing is measured on it; add none")
    names = [pure(entry["name"]) for phone, entry in entries.items() if {phone.serial, phone.model} & set(unwanted)]
    return Value(names, "--excluded_devices") if names else None
