"""``aibenchd spec pin``: fetch the files of specifications and write their SHA-256 into them. Nothing else ever writes there."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pydantic

from aibenchd import errors, faults, logs, settings, yamlfile
from aibenchd.specs import files, forms, handwriting, places, schema, sources

KEY = "sha256"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the files of one specification: texts for a person.

    Attributes:
        written: digests that are in the specification now.
        left: files that are made at run time, which have none.
        failed: files that could not be had; nothing was written for them.
    """

    written: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def run(parsed: argparse.Namespace) -> int:
    """Pin the specifications that the command line names; the exit code: 1 where a file of them could not be had."""
    logs.configure(level="error")  # what is wrong is said below
    failed = False
    async with _cache(parsed.config) as cache:
        for path in parsed.files:
            result = await pin(path, cache, renew=parsed.renew)
            sys.stdout.writelines(f"{line}\n" for line in (*result.written, *result.left))
            sys.stderr.writelines(f"{line}\n" for line in result.failed)
            if not any((result.written, result.left, result.failed)):
                sys.stdout.write(f"{path}: every file has its {KEY}\n")
            failed = failed or bool(result.failed)
    return 1 if failed else 0


async def pin(path: Path, cache: files.ModelCache, *, renew: bool) -> Result:
    """Write the SHA-256 of each file that has none into a model file.

    Args:
        renew: also where there is one; an MD5 still holds.

    Raises:
        InvalidFileError: it is not a model file.
        ModelFileError: it was changed meanwhile, or cannot be written.
    """
    text = await anyio.to_thread.run_sync(_text, path)
    document = await anyio.to_thread.run_sync(_judged, path)
    result, found = Result(), _Found(path, cache)
    async with anyio.create_task_group() as tasks:
        for key_path, one in places.files(document.value):
            file = schema.File.model_validate(one, context=schema.UNPINNED)
            shown = f"{path}: {yamlfile.key_text(key_path)}"
            if file.made_at_run_time:
                result.left.append(f"{shown}: made at run time, and has no digest")
            elif renew or not file.sha256:
                tasks.start_soon(found.digest, key_path, file)
    result.failed.extend(found.reasons)
    if found.digests:
        await anyio.to_thread.run_sync(_write, path, document, text, found.digests)
    result.written.extend(
        f"{path}: {yamlfile.key_text(key)}: {KEY} {digest}" for key, digest in sorted(found.digests.items(), key=str)
    )
    return result


class _Found:
    """Digests of files by where they stand in the specification; each source is asked once."""

    def __init__(self, path: Path, cache: files.ModelCache) -> None:
        self._path, self._cache = path, cache
        self._locks: dict[object, anyio.Lock] = {}
        self._known: dict[object, str] = {}
        self.digests: dict[places.KeyPath, str] = {}
        self.reasons: list[str] = []

    async def digest(self, key_path: places.KeyPath, file: schema.File) -> None:
        """Fetch a file and note its digest, or why there is none."""
        same = (file.sources, file.md5 or "")
        async with self._locks.setdefault(same, anyio.Lock()):
            if same not in self._known:
                expected = {name: digest for name, digest in file.digests.items() if name != KEY}
                wanted = sources.Wanted(yamlfile.key_text(key_path), file.filename, file, self._path, expected)
                try:
                    self._known[same] = (await self._cache.fetch(wanted)).digest
                except errors.AibenchdError as error:
                    self.reasons.append(str(error))
                    return
        self.digests[key_path] = self._known[same]


@contextlib.asynccontextmanager
async def _cache(config: Path | None) -> AsyncIterator[files.ModelCache]:
    """One of its own, with the configuration's places and limits, and as whom its programs run."""
    chosen = settings.Settings() if config is None else await anyio.to_thread.run_sync(settings.load, config)
    models = chosen.models.model_copy(update={"directory": None})
    with tempfile.TemporaryDirectory(prefix="aibenchd-pin-") as directory:
        os.chmod(directory, 0o711)  # noqa: PTH101, S103  programs may run as another user, and pass through it
        yield files.ModelCache(models, Path(directory) / "models", files.House.alone(lambda: chosen.run))


def _text(path: Path) -> str:
    """As it is, line ends and all."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ModelFileError(f"{path}: cannot be read: {error}") from error


def _judged(path: Path) -> yamlfile.Document:
    """A model file that is right but for the digests that it has not got."""
    document = yamlfile.load(path)
    if isinstance(document.value, dict) and "benchmarks" in document.value:
        raise errors.InvalidFileError([document.fault((), "is a benchmarks file; pin the model files that it lists")])
    try:
        schema.ModelFile.model_validate(forms.model_file(document.value, document.earlier), context=schema.UNPINNED)
    except pydantic.ValidationError as error:
        raise errors.InvalidFileError(faults.of(error, document, schema.ModelFile)) from error
    return document


def _write(path: Path, document: yamlfile.Document, text: str, digests: Mapping[places.KeyPath, str]) -> None:
    """Set the digests in the text, and put it in the file's place at once."""
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    try:
        new = bom + handwriting.with_key(text.removeprefix(bom), is_json=path.suffix == ".json", key=KEY, values=digests)
    except ValueError as error:
        raise _by_hand(path, digests) from error
    real = path.resolve()
    fresh = real.with_name(f".{real.name}.{os.getpid()}{real.suffix}")
    try:
        _put(fresh, new, real.stat())
        if not _reads(fresh, _with_digests(document.value, digests)):
            raise _by_hand(path, digests)
        if _text(path) != text:
            raise errors.ModelFileError(f"{path}: was changed meanwhile; pin it again")
        fresh.replace(real)
    except OSError as error:
        raise errors.ModelFileError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _reads(path: Path, value: Any) -> bool:
    try:
        return bool(yamlfile.load(path).value == value)
    except errors.InvalidFileError:
        return False


def _put(path: Path, text: str, like: os.stat_result) -> None:
    with path.open("xb") as file:  # never through a link that lies there
        file.write(text.encode())
        os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
        if os.geteuid() == 0:
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
        file.flush()
        os.fsync(file.fileno())


def _with_digests(value: Any, digests: Mapping[places.KeyPath, str], path: places.KeyPath = ()) -> Any:
    """The document as it must read now; an alias of a file has its digest too."""
    if isinstance(value, list):
        return [_with_digests(child, digests, (*path, index)) for index, child in enumerate(value)]
    if not isinstance(value, dict):
        return value
    inner = {key: _with_digests(child, digests, (*path, key)) for key, child in value.items()}
    return inner | {KEY: digests[path]} if path in digests else inner


def _by_hand(path: Path, digests: Mapping[places.KeyPath, str]) -> errors.ModelFileError:
    listed = ", ".join(f"{yamlfile.key_text(key)}: {KEY}: {digest}" for key, digest in digests.items())
    return errors.ModelFileError(f"{path}: cannot be written without touching more; write there by hand: {listed}")
