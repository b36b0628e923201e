"""Sinks ``local`` and ``simple-local``: verdicts as files, in FAI-PEP's layouts.

``local``: ``<directory>/<platform>/<framework>/<net>/<metric>/<identifier>/<Y>/<M>/<D>/<commit>/<experiment>/``, dated by
the commit, with ``<type> <metric>.txt`` for each metric and ``meta.txt``, all JSON.
``simple-local``: ``<directory>/<identifier>/data.txt`` with the latest experiment of that benchmark, ``{"meta", "data"}``.

A file is whole or not there, and on the disk before its record leaves the outbox; a record that comes again replaces
its own file. Samples of blocks have no place in these layouts.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import anyio
import anyio.to_thread
import pydantic

from aibenchd import model
from aibenchd.report import base
from aibenchd.report.formats import faipep

COMPONENT_BOUND = 120  # characters of a file's name; file systems take 255 bytes
FOR_A_PERSON = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}

Payload = Mapping[str, Any]


class LocalSettings(base.SinkSettings):
    """The keys of both kinds, which lay out their files below ``directory`` each in its own way; see above."""

    directory: Annotated[Path, pydantic.Field(description="made if it is not there")]


class _Files(base.Sink):
    Settings: ClassVar[type[base.SinkSettings]] = LocalSettings
    settings: LocalSettings

    @abc.abstractmethod
    def write(self, payloads: Sequence[Payload]) -> None:
        """Have verdicts on the disk; in a worker thread."""

    @contextlib.asynccontextmanager
    async def outlet(self) -> AsyncIterator[base.Outlet]:
        yield _Outlet(self)


class Local(_Files):
    """A directory per experiment."""

    def write(self, payloads: Sequence[Payload]) -> None:
        experiments: dict[Path, Payload] = {}
        for payload in payloads:
            place = self.settings.directory.joinpath(*map(component, _parts(payload)))
            experiments[place] = payload
            _replace(place / f"{component(payload['key'])}.txt", faipep.series(payload))
        for place, payload in experiments.items():
            _replace(place / "meta.txt", _meta(payload))


class SimpleLocal(_Files):
    """A file per benchmark."""

    def write(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            path = self.settings.directory / component(payload["benchmark"]) / "data.txt"
            meta, before = _meta(payload), _load(path)
            series = before["data"] if before.get("meta") == meta else {}
            _replace(path, {"meta": meta, "data": {**series, payload["key"]: faipep.series(payload)}})


class _Outlet(base.Outlet):
    def __init__(self, files: _Files) -> None:
        self._files = files
        self._limiter = anyio.CapacityLimiter(1)  # a disk that hangs holds one thread, however often it is tried again

    async def deliver(self, records: Sequence[model.Record]) -> base.Delivery:
        def write() -> None:
            self._files.write([record.payload for record in records if record.kind == "verdict"])

        try:
            await anyio.to_thread.run_sync(write, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:
            answer = base.Answer.PAUSED if error.errno in FOR_A_PERSON else base.Answer.AGAIN
            return base.Delivery(answer, f"{error.filename or self._files.settings.directory}: {error.strerror or error}")
        return base.Delivery(base.Answer.DONE)


def component(name: str) -> str:
    """A name of anyone's making as one part of a path: it never leaves its directory, and no two names meet in one."""
    plain = re.sub(r"[^A-Za-z0-9 ._+=@-]", "_", name)[:COMPONENT_BOUND].strip(" .")
    return plain if plain == name and plain else f"{plain}~{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _parts(payload: Payload) -> list[str]:
    day = datetime.fromisoformat(payload["commit_time"])
    return [
        payload["platform"],
        payload["framework"],
        payload["model"],
        payload["benchmark_metric"],
        payload["benchmark"],
        str(day.year),
        str(day.month),
        str(day.day),
        payload["commit"],
        str(payload["experiment"]),
    ]


def _meta(payload: Payload) -> dict[str, Any]:
    times = {name: int(value) for name, value in faipep.times(payload).items()}
    return {**faipep.meta(payload), **times, "experiment": payload["experiment"], "device": payload["device"]["name"]}


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) and isinstance(loaded.get("data"), dict) else {}


def _replace(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
