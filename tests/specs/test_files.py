from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import anyio
import fileserver
import pytest
import structlog.testing

from aibenchd import errors, model, settings
from aibenchd.specs import download, files

BODY = random.Random(7).randbytes(700_000)  # of several pieces
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _body(file_server: fileserver.FileServer) -> None:
    file_server.body = BODY


def benchmark(tmp_path: Path, *, test: dict[str, Any] | None = None, **file: Any) -> model.Benchmark:
    fields = {"filename": "net.pb", **file}
    whole = {"name": "net", "format": "caffe2", "files": {"predict": fields} if file else {}}
    source = tmp_path / "spec/net.json"
    source.parent.mkdir(exist_ok=True)
    return model.Benchmark(whole, {"identifier": "i", "metric": "delay", "commands": ["x"], **(test or {})}, str(source))


def cache(tmp_path: Path, **chosen: Any) -> files.ModelCache:
    fields = {"timeout": "5s", **chosen}
    return files.ModelCache(settings.ModelCacheSettings(**fields), tmp_path / "cache", first_pause=0.001)


def kept(tmp_path: Path) -> list[Path]:
    """What lies under final names; each must be what its name says, whatever happened."""
    found = list((tmp_path / "cache/.content/sha256").glob("*"))
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in found)
    return found


async def failure(tmp_path: Path, **file: Any) -> str:
    with pytest.raises((errors.ModelFileError, errors.SourceAwayError)) as caught:
        await cache(tmp_path).ensure(benchmark(tmp_path, **file))
    assert kept(tmp_path) == []
    return str(caught.value)


async def test_a_file_is_downloaded_once_and_found_by_its_name(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    wanted, models = benchmark(tmp_path, location=file_server.url, sha256=SHA256), cache(tmp_path)
    found = (await models.ensure(wanted)).files["predict"]
    assert (found.digest, found.name, found.path.read_bytes()) == (SHA256, "net.pb", BODY)
    assert (tmp_path / "cache/caffe2/net/net.pb").resolve() == found.path
    assert (found.path.stat().st_mode & 0o777, kept(tmp_path)) == (0o444, [found.path])
    assert (await models.ensure(wanted)).files["predict"] == found
    assert (await cache(tmp_path).ensure(wanted)).files["predict"] == found
    assert len(file_server.requests) == 1


async def test_the_old_digest_does_too(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    wanted = benchmark(tmp_path, location=file_server.url, md5=MD5.upper())
    first = await cache(tmp_path).ensure(wanted)
    assert first == await cache(tmp_path).ensure(wanted)
    assert (first.files["predict"].digest, len(file_server.requests)) == (SHA256, 1)


async def test_two_that_want_it_at_once_download_it_once(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    models, found = cache(tmp_path), []

    async def ensure(name: str) -> None:
        wanted = benchmark(tmp_path, location=file_server.url, sha256=SHA256, filename=name)
        found.append((await models.ensure(wanted)).files["predict"].path)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(ensure, f"{number % 2}.pb")
    assert (len(set(found)), len(file_server.requests)) == (1, 1)
    assert {path.name for path in (tmp_path / "cache/caffe2/net").iterdir()} == {"0.pb", "1.pb"}


@pytest.mark.parametrize(
    "script",
    [
        [fileserver.status(500), fileserver.status(429), fileserver.reset, fileserver.garbage],
        [fileserver.truncated(0), fileserver.truncated(1)],
        [fileserver.moved("/elsewhere")],
        [fileserver.chunked],
        [fileserver.wrong_bytes],
        [fileserver.truncated(400_000), fileserver.without_ranges],
        [fileserver.truncated(400_000), fileserver.other_range],
        [fileserver.truncated(400_000), fileserver.status(416)],
        [fileserver.truncated(400_000), fileserver.wrong_bytes],
    ],
    ids=lambda script: "-".join(answer.__qualname__.split(".")[0] for answer in script),
)
async def test_a_server_that_fails_and_mends(
    tmp_path: Path, file_server: fileserver.FileServer, script: list[fileserver.Answer]
) -> None:
    file_server.script = list(script)
    found = await cache(tmp_path).ensure(benchmark(tmp_path, location=file_server.url, sha256=SHA256))
    assert found.files["predict"].path.read_bytes() == BODY
    assert (file_server.script, list((tmp_path / "cache/.content/partial").iterdir())) == ([], [])


async def test_a_download_goes_on_where_it_broke_off(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file_server.script = [fileserver.truncated(300_000), fileserver.truncated(300_000)]
    await cache(tmp_path).ensure(benchmark(tmp_path, location=file_server.url, md5=MD5))
    assert [request.start for request in file_server.requests] == [0, 300_000, 600_000]


async def test_a_download_goes_on_after_a_restart(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    wanted = benchmark(tmp_path, location=file_server.url, sha256=SHA256)
    file_server.script = [fileserver.truncated(100_000)] * download.ATTEMPTS
    with pytest.raises(errors.SourceAwayError, match=r"500000 bytes are kept to go on from"):
        await cache(tmp_path).ensure(wanted)
    assert kept(tmp_path) == []
    await cache(tmp_path).ensure(wanted)
    assert file_server.requests[-1].start == 500_000


async def test_a_server_that_stalls_is_left(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file_server.script = [fileserver.stalled]
    wanted = benchmark(tmp_path, location=file_server.url, sha256=SHA256)
    assert (await cache(tmp_path, timeout="200ms").ensure(wanted)).files["predict"].digest == SHA256
    assert file_server.requests[-1].start > 0


@pytest.mark.parametrize("code", [401, 403, 404, 410])
async def test_a_refusal_is_final(tmp_path: Path, file_server: fileserver.FileServer, code: int) -> None:
    file_server.script = [fileserver.status(code)]
    message = await failure(tmp_path, location=file_server.url, sha256=SHA256)
    assert f"answers {code} Such; mend its location" in message
    assert len(file_server.requests) == 1


async def test_a_server_that_is_not_there_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceAwayError) as caught:
        await cache(tmp_path).ensure(benchmark(tmp_path, location="http://127.0.0.1:9/net.pb", sha256=SHA256))
    message = str(caught.value)
    assert "files.predict: http://127.0.0.1:9/net.pb cannot be downloaded: ConnectError" in message


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:99999/", "http://nowhere.invalid:x/"])
async def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    with pytest.raises((errors.ModelFileError, errors.SourceAwayError), match="cannot be downloaded"):
        await cache(tmp_path).ensure(benchmark(tmp_path, location=url, sha256=SHA256))


async def test_a_password_in_an_address_is_not_shown(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file_server.script = [fileserver.status(404)]
    url = file_server.url.replace("://", "://somebody:hunter22@")
    assert "hunter22" not in await failure(tmp_path, location=url, sha256=SHA256)


@pytest.mark.parametrize("digest", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"sha256": SHA256, "md5": "0" * 32}])
async def test_bytes_that_stay_wrong_are_an_error_with_both_digests(
    tmp_path: Path, file_server: fileserver.FileServer, digest: dict[str, str]
) -> None:
    message = await failure(tmp_path, location=file_server.url, **digest)
    assert (len(file_server.requests), list((tmp_path / "cache/.content/partial").iterdir())) == (2, [])
    found, expected = (MD5, "0" * 32) if "md5" in digest else (SHA256, "0" * 64)
    assert found in message
    assert f"the specification says {expected}" in message
    assert f"write sha256: {SHA256} into the specification" in message


@pytest.mark.parametrize("answer", [fileserver.whole, fileserver.chunked])
async def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, file_server: fileserver.FileServer, answer: fileserver.Answer
) -> None:
    file_server.script = [answer]
    wanted = benchmark(tmp_path, location=file_server.url, sha256=SHA256)
    with pytest.raises(errors.ModelFileError, match=r"is larger than 512000 bytes; raise models\.max_file_size"):
        await cache(tmp_path, max_file_size="500KiB").ensure(wanted)
    assert kept(tmp_path) == []


def _spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"x" + BODY[1:])


@pytest.mark.parametrize("harm", [Path.unlink, _spoil], ids=["evicted", "spoilt"])
async def test_a_cached_file_that_was_harmed_is_downloaded_again(
    tmp_path: Path, file_server: fileserver.FileServer, harm: Any
) -> None:
    for digest in ({"sha256": SHA256}, {"md5": MD5}):
        wanted, models = benchmark(tmp_path, location=file_server.url, **digest), cache(tmp_path)
        before = await models.ensure(wanted)
        harm(before.files["predict"].path)
        assert not before.unchanged()
        after = await models.ensure(wanted)
        assert after.unchanged()
        assert after.files["predict"].path.read_bytes() == BODY


async def test_a_change_shows_in_size_time_or_inode(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    found = await cache(tmp_path).ensure(benchmark(tmp_path, location=file_server.url, sha256=SHA256))
    path = found.files["predict"].path
    copy = path.with_name("copy")
    copy.write_bytes(BODY)
    os.utime(copy, ns=(0, path.stat().st_mtime_ns))
    assert found.unchanged()
    copy.replace(path)
    assert not found.unchanged()


async def test_whatever_a_server_does_nothing_unverified_is_kept(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    chance = random.Random(3)
    answers = [
        fileserver.whole,
        fileserver.without_ranges,
        fileserver.other_range,
        fileserver.chunked,
        fileserver.wrong_bytes,
        fileserver.reset,
    ]
    answers += [
        fileserver.garbage,
        fileserver.truncated(0),
        fileserver.truncated(250_000),
        fileserver.status(404),
        fileserver.status(503),
    ]
    good = 0
    for _ in range(20):
        file_server.script = chance.choices(answers, k=chance.randrange(8))
        try:
            found = await cache(tmp_path).ensure(benchmark(tmp_path, location=file_server.url, sha256=SHA256))
            good += found.files["predict"].path.read_bytes() == BODY
        except errors.ModelFileError:
            pass
        for path in kept(tmp_path):
            path.unlink()
    assert good > 5


# ---------------------------------------------------------------- local files


async def test_a_file_beside_its_specification(tmp_path: Path) -> None:
    wanted = benchmark(tmp_path, location="data/net.pb", sha256=SHA256)
    (tmp_path / "spec/data").mkdir()
    (tmp_path / "spec/data/net.pb").write_bytes(BODY)
    found = (await cache(tmp_path).ensure(wanted)).files["predict"]
    assert (found.path.read_bytes(), found.path.parent.name) == (BODY, "sha256")


async def test_a_local_file_without_a_digest_is_taken_as_it_is_and_a_change_is_shown(tmp_path: Path) -> None:
    wanted, source = benchmark(tmp_path, location="net.pb"), tmp_path / "spec/net.pb"
    source.write_bytes(b"first")
    first = await cache(tmp_path).ensure(wanted)
    with structlog.testing.capture_logs() as logs:
        assert await cache(tmp_path).ensure(wanted) == first
    assert logs == []
    source.write_bytes(b"second")
    with structlog.testing.capture_logs() as logs:
        second = await cache(tmp_path).ensure(wanted)
    (log,) = (log for log in logs if log["log_level"] == "warning")
    assert (log["before"], log["now"]) == (first.files["predict"].digest, second.files["predict"].digest)
    assert first.unchanged()  # who began with it goes on with it
    assert (tmp_path / "cache/caffe2/net/net.pb").read_bytes() == b"second"


async def test_a_local_file_of_another_digest_is_an_error(tmp_path: Path) -> None:
    wanted = benchmark(tmp_path, location="net.pb", sha256="0" * 64)
    (tmp_path / "spec/net.pb").write_bytes(BODY)
    with pytest.raises(errors.ModelFileError, match=f"has sha256 {SHA256}, and the specification says 0{{64}}"):
        await cache(tmp_path).ensure(wanted)


@pytest.mark.parametrize("location", ["//nets/net.pb", "file://{root}/nets/net.pb", "{root}/nets/net.pb", "../root/nets/net.pb"])
async def test_files_below_the_root(tmp_path: Path, location: str) -> None:
    root = tmp_path / "root"
    (root / "nets").mkdir(parents=True)
    (root / "nets/net.pb").write_bytes(BODY)
    wanted = benchmark(tmp_path, location=location.replace("{root}", str(root)), sha256=SHA256)
    with pytest.raises(errors.ModelFileError, match=r"models\.root"):
        await cache(tmp_path).ensure(wanted)
    found = await cache(tmp_path, root=root).ensure(wanted)
    assert found.files["predict"].digest == SHA256


@pytest.mark.parametrize("location", ["../secret", "link", "data/../../secret", "/etc/hostname", "file:///etc/hostname"])
async def test_a_location_does_not_leave_its_directory(tmp_path: Path, location: str) -> None:
    benchmark(tmp_path)
    (tmp_path / "secret").write_bytes(BODY)
    (tmp_path / "spec/data").mkdir()
    (tmp_path / "spec/link").symlink_to(tmp_path / "secret")
    assert "leaves the directory of its specification" in await failure(tmp_path, location=location, sha256=SHA256)


async def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    assert "nowhere is not there: no file or directory at" in await failure(tmp_path, location="nowhere", sha256=SHA256)
    os.mkfifo(tmp_path / "spec/pipe")
    assert "pipe is not there" in await failure(tmp_path, location="pipe", sha256=SHA256)
    (tmp_path / "spec/loop").symlink_to("loop")
    assert "loop is not there" in await failure(tmp_path, location="loop", sha256=SHA256)
    assert "a%00b is no path of a file: " in await failure(tmp_path, location="file:///a%00b", sha256=SHA256)
    (tmp_path / "spec/file").write_bytes(BODY)
    assert "is a file, and the specification says a directory" in await failure(tmp_path, location="file", md5="directory")
    (tmp_path / "spec/directory").mkdir()
    assert "is a directory, which has no MD5" in await failure(tmp_path, location="directory", md5=MD5)


async def test_a_local_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    wanted = benchmark(tmp_path, location="net.pb", sha256=SHA256)
    (tmp_path / "spec/net.pb").write_bytes(BODY)
    with pytest.raises(errors.ModelFileError, match=r"models\.max_file_size"):
        await cache(tmp_path, max_file_size="1KiB").ensure(wanted)


# ---------------------------------------------------------------- which files


async def test_files_of_model_and_test_and_around_it(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file = {"filename": "x", "location": file_server.url, "sha256": SHA256}
    made = {"filename": "y", "location": "{HOSTDIR}/y"}
    test = {
        "input_files": {"images": file, "made": made},
        "files": {"labels": file},
        "preprocess": {"command": "x", "files": {"program": file}},
    }
    found = await cache(tmp_path).ensure(benchmark(tmp_path, test=test, **file))
    assert [sorted(group) for group in (found.files, found.input_files, found.host_files)] == [
        ["predict"],
        ["images"],
        ["labels", "program"],
    ]
    assert len(file_server.requests) == 1


async def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(errors.ModelFileError, match=r"the model cache .*/cache cannot be used: Not a directory"):
        await cache(tmp_path).ensure(benchmark(tmp_path, location=file_server.url, sha256=SHA256))
