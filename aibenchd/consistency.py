"""Whether the parts of a configuration fit together, and whether it holds a secret.

Works on plain values, so that these faults are told together with those of single keys; what has a wrong type is left to
the models. Pure, but for asking which kinds are installed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from aibenchd import errors, faults, model, plugins, yamlfile

Items: TypeAlias = list[tuple[int, dict[str, Any]]]

_SSH_KINDS = ("ssh", "ssh-gpu")

_SECRET_KEY = re.compile(r"(.*[_-])?(token|password|passwd|passphrase|secret|(api|access|private|secret)[_-]?key)", re.IGNORECASE)
_SECRET_URL = re.compile(
    r"[a-z][a-z0-9+.-]*://([^/\s@]*:[^/\s@]+|[^/\s@]{20,})@", re.IGNORECASE
)  # a password, or a token as the user
_INSTEAD = "secrets are not kept in this file: put it into a file that only the daemon can read, and name that with token_file"


def of(document: yamlfile.Document) -> list[errors.Fault]:
    """All faults of this sort."""
    if not isinstance(document.value, dict):
        return []
    names = (_unknown_names, _unknown_repositories)
    checks = (_secrets, _twice, _taken, _kinds, _meters, *names, _shared_cpus, _shared_phones, _shared_directories)
    return [document.fault(key_path, message) for check in checks for key_path, message in check(document.value)]


Finding: TypeAlias = tuple[tuple[str | int, ...], str]


def _items(value: dict[str, Any], key: str) -> Items:
    """The mappings in a list of the file, by index."""
    items = value.get(key)
    return [(index, item) for index, item in enumerate(items) if isinstance(item, dict)] if isinstance(items, list) else []


def _texts(item: Any, *keys: str) -> list[tuple[int, str]]:
    """The texts in a list below an item, by index."""
    for key in keys:
        item = item.get(key) if isinstance(item, dict) else None
    return [(index, text) for index, text in enumerate(item) if isinstance(text, str)] if isinstance(item, list) else []


def _secrets(value: Any, key_path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    pairs: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    elif isinstance(value, str) and _SECRET_URL.match(value):
        yield key_path, f"holds a password or token before the @; {_INSTEAD}"
    for step, inner in pairs:
        if isinstance(step, str) and _SECRET_KEY.fullmatch(step) and inner is not None:
            yield (*key_path, step), _INSTEAD
        else:
            yield from _secrets(inner, (*key_path, step))


def _twice(value: dict[str, Any]) -> Iterator[Finding]:
    for section in ("repositories", "devices", "sinks"):
        first: dict[str, int] = {}
        for index, item in _items(value, section):
            name = item.get("name")
            if isinstance(name, str) and first.setdefault(name, index) != index:
                reason = f"{faults.quoted(name)} is taken by {section}[{first[name]}]; each has a name of its own"
                yield (section, index, "name"), reason


def _taken(value: dict[str, Any]) -> Iterator[Finding]:
    for index, item in _items(value, "repositories"):
        if item.get("name") == model.SUBMITTED:
            message = f"{model.SUBMITTED!r} is what people send with 'aibenchctl submit'; take another name"
            yield ("repositories", index, "name"), message


def _kinds(value: dict[str, Any]) -> Iterator[Finding]:
    """Kinds that carry no keys of their own; those of devices and sinks are the models' affair."""
    named: list[tuple[tuple[str | int, ...], str, Any]] = [
        (("repositories", index, key), group, item.get(key))
        for index, item in _items(value, "repositories")
        for key, group in (("kind", "repositories"), ("framework", "frameworks"))
    ]
    named += [
        (("devices", index, "meter", "kind"), "meters", item["meter"].get("kind"))
        for index, item in _items(value, "devices")
        if isinstance(item.get("meter"), dict)
    ]
    for key_path, group, kind in named:
        known = plugins.names(group)
        if isinstance(kind, str) and kind not in known:
            yield key_path, f"{faults.quoted(kind)} is none of the installed kinds of {group}; {faults.suggestion(kind, known)}"


def _named(value: dict[str, Any], section: str, key: str) -> set[str]:
    return {item[key] for _, item in _items(value, section) if isinstance(item.get(key), str)}


def _unknown_names(value: dict[str, Any]) -> Iterator[Finding]:
    names = _named(value, "devices", "name")
    tags = {tag for _, item in _items(value, "devices") for _, tag in _texts(item, "tags")}
    known = {
        ("repositories",): ("repository is called", _named(value, "repositories", "name")),
        ("devices", "names"): ("device is called", names),
        ("devices", "exclude"): ("device is called", names),
        ("devices", "kinds"): ("device is of the kind", _named(value, "devices", "kind")),
        ("devices", "tags"): ("device has the tag", tags),
    }
    for index, item in _items(value, "benchmarks"):
        for keys, (what, there) in known.items():
            for place, text in _texts(item, *keys):
                if text not in there:
                    reason = f"no {what} {faults.quoted(text)}; {faults.suggestion(text, there)}"
                    yield ("benchmarks", index, *keys, place), reason


def _unknown_repositories(value: dict[str, Any]) -> Iterator[Finding]:
    """Of sinks that say where each repository is kept."""
    there = _named(value, "repositories", "name")
    for index, item in _items(value, "sinks"):
        keys = ("format", "repositories")
        kept: Any = item
        for key in keys:
            kept = kept.get(key) if isinstance(kept, dict) else None
        for name in kept if isinstance(kept, dict) else ():
            if name not in there:
                reason = f"no repository is called {faults.quoted(name)}; {faults.suggestion(name, there)}"
                yield ("sinks", index, *keys, name), reason


def _shared_phones(value: dict[str, Any]) -> Iterator[Finding]:
    """Two entries of one phone and directory would end each other's programs."""
    first: dict[tuple[Any, ...], int] = {}
    for index, item in _items(value, "devices"):
        named = "serial" if item.get("serial") else "address"
        if item.get("kind") == "adb" and isinstance(item.get(named), str):
            place = tuple(str(item.get(key, "")) for key in (named, "server_host", "server_port", "directory"))
            if first.setdefault(place, index) != index:
                reason = f"is the phone of devices[{first[place]}] too; give each a directory of its own, or remove one"
                yield ("devices", index, named), reason


def _shared_directories(value: dict[str, Any]) -> Iterator[Finding]:
    """Two entries of one SSH server, user and directory would end each other's sessions."""
    first: dict[str, int] = {}
    for index, item in _items(value, "devices"):
        if item.get("kind") not in _SSH_KINDS or not isinstance(item.get("host"), str):
            continue
        directory = posixpath.normpath(str(item.get("directory") or f"~/.aibenchd/{item.get('name')}")).removeprefix("~/")
        way = (item["host"].lower(), item.get("port", 22), item.get("username", ""), item.get("jump", []))
        if first.setdefault(repr((*way, directory)), index) != index:
            other = first[repr((*way, directory))]
            reason = f"is the directory of devices[{other}] on the same host too, which would end each other's sessions;"
            advice = "give each a directory of its own, or leave it out: then it is named after the device"
            yield ("devices", index, "directory"), f"{reason} {advice}"


def _shared_cpus(value: dict[str, Any]) -> Iterator[Finding]:
    """Two devices of this host would disturb each other on a CPU that both run on."""
    local = [(index, item) for index, item in _items(value, "devices") if _says("devices", item.get("kind"), "on_this_host")]
    taken: dict[int, int] = {}
    for index, item in local:
        cpus = item.get("cpus")
        if not cpus and len(local) > 1:
            yield ("devices", index, "cpus"), "runs on all CPUs beside another device of this host; say which CPUs are its own"
        for place, cpu in enumerate(cpus) if isinstance(cpus, list) else ():
            if isinstance(cpu, int) and taken.setdefault(cpu, index) != index:
                yield ("devices", index, "cpus", place), f"CPU {cpu} is taken by devices[{taken[cpu]}]; each needs its own"


def _meters(value: dict[str, Any]) -> Iterator[Finding]:
    """One that meters this host tells nothing of what runs on another."""
    for index, item in _items(value, "devices"):
        kind = item["meter"].get("kind") if isinstance(item.get("meter"), dict) else None
        if _says("meters", kind, "on_this_host") and _says("devices", item.get("kind"), "on_another_host"):
            reason = f"{kind} meters this host, and this device's programs run on another; name a meter of that one, or remove it"
            yield ("devices", index, "meter", "kind"), reason


def _says(group: str, kind: Any, what: str) -> bool:
    """Whether a kind says so of itself."""
    if not isinstance(kind, str) or kind not in plugins.names(group):
        return False
    try:
        return bool(getattr(plugins.load(group, kind), what, False))
    except errors.UnknownKindError:  # it cannot be imported, which the models tell
        return False
