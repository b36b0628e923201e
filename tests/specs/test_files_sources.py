"""Several sources, generators, directories and archives; through the real launcher and a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import os
import pwd
import signal
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import fileserver
import httpx
import launchers
import pytest

from aibenchd import board, digests, errors, events, hostgate, model, settings
from aibenchd.devices import base as devices
from aibenchd.devices import local
from aibenchd.specs import content, download, files, trees

BODY = b"weights" * 10_000
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = "0" * 64
WRITES = f"import sys; open(sys.argv[-1], 'wb').write({BODY[:7]!r} * 10_000)"


@pytest.fixture(autouse=True)
def _body(file_server: fileserver.FileServer) -> None:
    file_server.body = BODY


def benchmark(tmp_path: Path, *, test: dict[str, Any] | None = None, **file: Any) -> model.Benchmark:
    fields = {"filename": "net.pb", **file}
    whole = {"name": "net", "format": "caffe2", "files": {"predict": fields} if file else {}}
    source = tmp_path / "spec/net.json"
    source.parent.mkdir(exist_ok=True)
    return model.Benchmark(whole, {"identifier": "i", "metric": "delay", "commands": ["x"], **(test or {})}, str(source))


def generator(tmp_path: Path, text: str, name: str = "make.py", where: str = "spec") -> Path:
    path = tmp_path / where / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def cache(tmp_path: Path, house: files.House | None = None, **chosen: Any) -> files.ModelCache:
    fields = {"timeout": "5s", "generators_directory": tmp_path / "generators", **chosen}
    return files.ModelCache(settings.ModelCacheSettings(**fields), tmp_path / "cache", house, first_pause=0.001)


async def have(tmp_path: Path, **file: Any) -> content.VerifiedFile:
    return (await cache(tmp_path).ensure(benchmark(tmp_path, **file))).files["predict"]


async def failure(tmp_path: Path, models: files.ModelCache | None = None, **file: Any) -> str:
    with pytest.raises((errors.ModelFileError, errors.SourceAwayError)) as caught:
        await (models or cache(tmp_path)).ensure(benchmark(tmp_path, **file))
    assert list((tmp_path / "cache/.content/sha256").glob("*")) == []
    return str(caught.value)


def left_of_generators(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "generate").glob("*"))


# ---------------------------------------------------------------- one after the other


async def test_sources_are_tried_in_order(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file_server.script = [fileserver.status(404)]
    generator(tmp_path, "raise SystemExit(3)")
    (tmp_path / "spec/wrong").write_bytes(b"other bytes")
    sources = [file_server.url, "absent", "wrong", {"generator": ["make.py"]}, file_server.url]
    found = await have(tmp_path, location=sources, sha256=SHA256)
    assert (found.path.read_bytes(), len(file_server.requests)) == (BODY, 2)


async def test_a_source_that_works_is_the_last_that_is_asked(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    benchmark(tmp_path)
    (tmp_path / "spec/net").write_bytes(BODY)
    await have(tmp_path, location=["net", file_server.url], sha256=SHA256)
    assert file_server.requests == []


async def test_where_none_has_it_each_is_named_with_its_reason(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file_server.script = [fileserver.status(404), fileserver.wrong_bytes, fileserver.wrong_bytes]
    generator(tmp_path, "import sys; print('no luck', file=sys.stderr); raise SystemExit(3)")
    sources = [file_server.url, file_server.url + "?again", "absent", "//rooted", {"generator": ["make.py", "a b"]}]
    message = await failure(tmp_path, location=sources, sha256=SHA256)
    head, *reasons = message.split("\n  ")
    assert head == f"{tmp_path}/spec/net.json: files.predict: none of its 5 sources has it:"
    assert reasons[0] == f"{file_server.url} answers 404 Such; mend its location, or what may be read there"
    assert f"and the specification says {SHA256}; it was fetched twice" in reasons[1]
    assert reasons[2].startswith("absent is not there: no file or directory at")
    assert reasons[3] == "//rooted is relative to models.root, which the configuration does not set"
    assert reasons[4] == "generator make.py 'a b' ended with exit status 3\nno luck"


async def test_wrong_bytes_touch_no_specification(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    wanted = benchmark(tmp_path, location=[file_server.url, "beside"], sha256=OTHER)
    (tmp_path / "spec/beside").write_bytes(b"not it either")
    specification = Path(wanted.source)
    specification.write_text("{ as it was }")
    before = trees.signature(specification)
    with pytest.raises(errors.ModelFileError, match=f"has sha256 {SHA256}, and the specification says {OTHER}"):
        await cache(tmp_path).ensure(wanted)
    assert (specification.read_text(), trees.signature(specification)) == ("{ as it was }", before)
    assert sorted(path.name for path in specification.parent.iterdir()) == ["beside", "net.json"]


async def test_local_files_without_a_digest_may_have_several_places(tmp_path: Path) -> None:
    benchmark(tmp_path)
    (tmp_path / "spec/second").write_bytes(BODY)
    assert (await have(tmp_path, location=["first", "second"])).digest == SHA256
    (tmp_path / "spec/first").write_bytes(b"first")
    assert (await have(tmp_path, location=["first", "second"])).path.read_bytes() == b"first"


async def test_an_address_of_another_kind_says_which_there_are(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    message = await failure(tmp_path, location="s3://bucket/net.pb", sha256=SHA256)
    assert "s3://bucket/net.pb is an address of a kind that is not known here; there are http, https and file" in message
    assert (await have(tmp_path, location=file_server.url.replace("http", "HTTP"), sha256=SHA256)).digest == SHA256


async def test_a_redirect_of_another_server_is_followed_without_what_is_secret(
    tmp_path: Path, file_server: fileserver.FileServer
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        other = fileserver.FileServer(BODY)
        listening = await stack.enter_async_context(await asyncio.start_server(other.serve, "127.0.0.1", 0))
        other.port = listening.sockets[0].getsockname()[1]
        file_server.script = [fileserver.moved("/same"), fileserver.moved(other.url)]
        location = file_server.url.replace("//", "//me:secret-of-mine@")
        assert (await have(tmp_path, location=location, sha256=SHA256)).digest == SHA256
    assert ["authorization" in request.headers for request in file_server.requests] == [True, True]
    assert [(request.path, "authorization" in request.headers) for request in other.requests] == [("/net.pb", False)]


@pytest.mark.parametrize(
    "to",
    [
        *("ftp://127.0.0.1/net.pb", "gopher://example.org/x", "http://localhost:1/net.pb", "http://169.254.169.254/"),
        *(
            "http://localhost.:1/",
            "http://127.1:1/",
            "http://0x7f000001:1/",
            "http://2852039166/",
            "http://[::ffff:169.254.169.254]/",
        ),
    ],
)
async def test_a_redirect_that_leads_to_what_only_this_host_sees_is_not_followed(
    tmp_path: Path, file_server: fileserver.FileServer, to: str
) -> None:
    file_server.script = [fileserver.moved(to)]
    message = await failure(tmp_path, location=file_server.url, sha256=SHA256)
    assert f"{file_server.url} leads to {to}, which is not followed; name that address if it is meant" in message
    assert len(file_server.requests) == 1


async def test_redirects_without_end_are_not_followed(tmp_path: Path, file_server: fileserver.FileServer) -> None:
    file_server.script = [fileserver.moved(f"/{number}") for number in range(20)]
    message = await failure(tmp_path, location=file_server.url, sha256=SHA256)
    assert "maximum allowed redirects" in message
    assert len(file_server.requests) == download.REDIRECTS + 1


@pytest.mark.parametrize("to", ["http://[::1", "http://xn--/"])
async def test_a_redirect_to_what_is_no_address_is_no_traceback(
    tmp_path: Path, file_server: fileserver.FileServer, to: str
) -> None:
    file_server.script = [fileserver.moved(to)]
    assert "cannot be downloaded: " in await failure(tmp_path, location=file_server.url, sha256=SHA256)
    assert len(file_server.requests) == 1


async def test_https_is_not_left_for_http() -> None:
    response = httpx.Response(
        302, headers={"Location": "http://example.org/"}, request=httpx.Request("GET", "https://example.org/")
    )
    with pytest.raises(errors.ModelFileError, match=r"https://example\.org/ leads to http://example\.org/"):
        await download._judge_redirect(response)
    response = httpx.Response(
        302, headers={"Location": "https://cdn.example.org/"}, request=httpx.Request("GET", "http://example.org/")
    )
    await download._judge_redirect(response)


async def test_a_file_that_the_daemon_may_not_read_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    benchmark(tmp_path)
    (tmp_path / "spec/net").write_bytes(BODY)
    (tmp_path / "spec/net").chmod(0)
    assert "cannot be read" in await failure(tmp_path, location="net")


# ---------------------------------------------------------------- generators


async def test_a_generator_beside_the_specification_goes_first(tmp_path: Path) -> None:
    generator(tmp_path, "raise SystemExit(3)", where="generators")
    generator(tmp_path, WRITES)
    found = await have(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256)
    assert (found.path.read_bytes(), found.path.parent.name) == (BODY, "sha256")
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o444
    assert left_of_generators(tmp_path) == []


async def test_what_a_generator_is_given(tmp_path: Path) -> None:
    told = "import os, sys; open(sys.argv[-1], 'w').write(repr((sys.argv[1:-1], os.getcwd(), sorted(os.environ))))"
    generator(tmp_path, told, name="below/make.py", where="generators")
    location = {"generator": ["below/make.py", "a b", "$HOME", 3]}
    with pytest.raises(errors.ModelFileError) as caught:
        await cache(tmp_path).ensure(benchmark(tmp_path, location=location, sha256=OTHER))
    digest = str(caught.value).partition("has sha256 ")[2][:64]
    arguments, home, names = eval((await have(tmp_path, location=location, sha256=digest)).path.read_text())
    assert arguments == ["a b", "$HOME", "3"]
    assert home.startswith(str(tmp_path / "generate"))
    assert {"HOME", "PATH", "PYTHONHASHSEED"} <= set(names)
    assert not set(names) & {"PYTEST_CURRENT_TEST", "VIRTUAL_ENV", "USER"}


async def test_a_program_of_any_language(tmp_path: Path) -> None:
    program = generator(tmp_path, '#!/bin/sh\nprintf %s "$1" > "$2"\n', name="make")
    location = {"generator": ["make", "net"]}
    digest = hashlib.sha256(b"net").hexdigest()
    assert "cannot be executed; 'chmod +x" in await failure(tmp_path, location=location, sha256=digest)
    program.chmod(0o755)
    assert (await have(tmp_path, location=location, sha256=digest)).path.read_bytes() == b"net"


async def test_a_generator_runs_once_where_many_want_what_it_writes(tmp_path: Path) -> None:
    note = tmp_path / "runs"
    generator(tmp_path, f"open({str(note)!r}, 'a').write('x')\n{WRITES}")
    file = {"filename": "x", "location": {"generator": ["make.py"]}, "sha256": SHA256}
    wanted = benchmark(tmp_path, test={"input_files": {"a": file, "b": file}, "files": {"c": file}}, **file)
    models = cache(tmp_path)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(models.ensure, wanted)
    assert note.read_text() == "x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit(3)", "ended with exit status 3, and printed nothing"),
        ("print('x' * 5000); print('the end'); raise ValueError", "the end"),
        ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11 (Segmentation fault)"),
        ("pass", "ended well and wrote nothing to the path that is its last argument"),
        (WRITES + "; open(sys.argv[-1], 'a').write('!')", f"and the specification says {SHA256}"),
        (WRITES.replace("10_000", "1_000_000"), "is larger than 1048576 bytes; raise models.max_file_size"),
        ("import sys, os; os.symlink('/etc/hostname', sys.argv[-1])", "cannot be read"),
        ("import sys, os; os.mkfifo(sys.argv[-1])", "is no plain file"),
        ("import sys, os; os.mkdir(sys.argv[-1])", f"and the specification says {SHA256}"),
        ("import sys, os; os.mkdir(sys.argv[-1]); os.symlink('../..', sys.argv[-1] + '/up')", "holds up, a link to ../.."),
        (
            "import sys, os; os.makedirs(sys.argv[-1] + '/a/b'); os.chdir(sys.argv[-1])\n"
            "os.symlink('../..', 'a/b/top'); os.symlink('top/../../home', 'a/b/out')",
            "holds a/b/out, a link to top/../../home, which leads out",  # though by its text alone it does not
        ),
    ],
)
async def test_a_generator_that_fails(tmp_path: Path, text: str, reason: str) -> None:
    generator(tmp_path, text)
    models = cache(tmp_path, max_file_size="1MiB")
    assert reason in await failure(tmp_path, models, location={"generator": ["make.py"]}, sha256=SHA256)
    assert left_of_generators(tmp_path) == []


async def test_a_generator_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    generator(
        tmp_path,
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        f"print(os.getpid(), child.pid, file=open({str(pids)!r}, 'w'), flush=True)\n"
        "time.sleep(1000)",
    )
    for seconds in (1, 8, 64):  # until it is enough for both to begin
        models = cache(tmp_path, generator_timeout=f"{seconds}s")
        reason = f"took longer than models.generator_timeout ({seconds} s) and was killed"
        assert reason in await failure(tmp_path, models, location={"generator": ["make.py"]}, sha256=SHA256)
        if pids.exists() and pids.read_text():
            break
    await launchers.until_gone(*map(int, pids.read_text().split()))


async def test_a_generator_that_writes_without_end_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    generator(
        tmp_path,
        "import os, sys\n"
        f"print(os.getpid(), file=open({str(pids)!r}, 'w'), flush=True)\n"
        "file = open(os.path.join(os.environ['TMPDIR'], 'scratch'), 'wb')\n"
        "while True: file.write(bytes(100_000)); file.flush()",
    )
    models = cache(tmp_path, max_file_size="2MB")
    message = await failure(tmp_path, models, location={"generator": ["make.py"]}, sha256=SHA256)
    assert "is larger than 2000000 bytes" in message
    await launchers.until_gone(*map(int, pids.read_text().split()))


async def test_a_generator_ends_with_its_caller(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"import os, time; print(os.getpid(), file=open({str(pids)!r}, 'w'), flush=True); time.sleep(1000)"
    generator(tmp_path, text)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache(tmp_path).ensure, benchmark(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256))
        pid = int(await launchers.until_written(pids))
        tasks.cancel_scope.cancel()
    await launchers.until_gone(pid)
    assert left_of_generators(tmp_path) == []


@pytest.mark.parametrize("link", [False, True])
async def test_a_generator_does_not_lead_out_of_where_it_is_looked_for(tmp_path: Path, link: bool) -> None:
    secret = generator(tmp_path, WRITES, where="elsewhere")
    benchmark(tmp_path)
    if link:
        (tmp_path / "spec/make.py").symlink_to(secret)
        message = await failure(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256)
        assert "lies outside" in message
    else:
        with pytest.raises(errors.CommandError, match="a name that does not leave its directory"):
            await have(tmp_path, location={"generator": ["../elsewhere/make.py"]}, sha256=SHA256)


async def test_a_generator_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    message = await failure(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256)
    where = f"no make.py beside the specification, nor in models.generators_directory ({tmp_path}/generators)"
    assert f"generator make.py is not there: {where}" in message


async def test_a_generator_of_the_tree_that_the_specification_lies_in_is_found_last(tmp_path: Path) -> None:
    tree = tmp_path / "clone"
    wanted = benchmark(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256)
    specification = tree / "models/onnxruntime/net/net.json"
    specification.parent.mkdir(parents=True)
    inside = dataclasses.replace(wanted, source=str(specification))
    (tree / "generators").mkdir()
    with pytest.raises(errors.ModelFileError, match=f"nor in models.generators_directory .*, nor in {tree}/generators; put it"):
        await cache(tmp_path).ensure(inside)
    generator(tmp_path, WRITES, where="clone/generators")
    assert (await cache(tmp_path).ensure(inside)).files["predict"].digest == SHA256
    generator(tmp_path, "raise SystemExit(3)", where="generators")  # what is configured goes first
    with pytest.raises(errors.ModelFileError, match="ended with exit status 3"):
        await cache(tmp_path / "other", generators_directory=tmp_path / "generators").ensure(inside)


async def test_no_generator_runs_while_this_host_measures(tmp_path: Path) -> None:
    gate, told = hostgate.HostGate(), events.Events()
    house = files.House(told, board.Board(told), gate, devices.RunSettings)
    generator(tmp_path, WRITES)
    wanted = benchmark(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256)
    async with anyio.create_task_group() as tasks, gate.measuring():
        tasks.start_soon(cache(tmp_path, house).ensure, wanted)
        with anyio.move_on_after(0.5):
            while not left_of_generators(tmp_path):
                await anyio.sleep(0.02)
        assert left_of_generators(tmp_path) == []
    assert (await have(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256)).digest == SHA256


@launchers.needs_root
async def test_a_generator_runs_as_the_user_that_programs_run_as() -> None:
    with launchers.reachable_directory() as place:
        program = generator(place, '#!/bin/sh\numask 077\nmkdir "$1"\nid -un > "$1/who"\n', name="make")
        program.chmod(0o755)
        place.joinpath("spec").chmod(0o755)
        digest = hashlib.sha256(b"file who\0" + hashlib.sha256(b"nobody\n").hexdigest().encode() + b"\n").hexdigest()
        told = events.Events()
        house = files.House(told, board.Board(told), hostgate.OpenGate(), lambda: devices.RunSettings(user="nobody"))
        wanted = benchmark(place, location={"generator": ["make"]}, sha256=digest)
        found = (await cache(place, house).ensure(wanted)).files["predict"]
        assert (found.path / "who").read_text() == "nobody\n"
        assert (found.path / "who").stat().st_uid == os.geteuid() != pwd.getpwnam("nobody").pw_uid
        assert left_of_generators(place) == []


async def test_programs_that_cannot_be_run_here_are_tried_again(tmp_path: Path) -> None:
    generator(tmp_path, WRITES)
    told = events.Events()
    run = devices.RunSettings(launcher=tmp_path / "socket")
    house = files.House(told, board.Board(told), hostgate.OpenGate(), lambda: run)
    with pytest.raises(errors.HarnessError, match=r"run\.launcher"):
        await cache(tmp_path, house).ensure(benchmark(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256))


async def test_a_launcher_that_dies_is_no_fault_of_the_generator(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"import os, time; print(os.getpid(), file=open({str(pids)!r}, 'w'), flush=True); time.sleep(1000)"
    generator(tmp_path, text)

    async def kill() -> None:
        await launchers.until_written(pids)
        (supervisor,) = launchers.children(launchers.own_launcher())
        os.kill(supervisor, signal.SIGKILL)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        with pytest.raises(errors.HarnessError, match="the launcher died"):
            await cache(tmp_path).ensure(benchmark(tmp_path, location={"generator": ["make.py"]}, sha256=SHA256))
    await launchers.until_gone(int(pids.read_text()))


# ---------------------------------------------------------------- directories


def tree(root: Path) -> str:
    """A directory with what one may have; its digest."""
    (root / "below").mkdir(parents=True)
    (root / "weights").write_bytes(BODY)
    (root / "below/run").write_text("#!/bin/sh\n")
    (root / "below/run").chmod(0o755)
    (root / "link").symlink_to("below/run")
    return digests.of_tree(root)


async def test_a_directory_of_this_host(tmp_path: Path) -> None:
    benchmark(tmp_path)
    digest = tree(tmp_path / "spec/net")
    for given in ({"sha256": digest}, {"md5": "directory", "sha256": digest}, {"md5": "directory"}, {}):
        found = await have(tmp_path, filename="net", location="net", **given)
        assert (found.digest, digests.of_tree(found.path), found.size) == (digest, digest, len(BODY) + 10)
    assert (tmp_path / "cache/caffe2/net/net").resolve() == found.path
    assert stat.S_IMODE((found.path / "below/run").stat().st_mode) == 0o555
    assert found.unchanged()


def listed(tmp_path: Path) -> str:
    """The digest of a directory, beside which there is a file that lists it, and so has the same one."""
    benchmark(tmp_path)
    root = tmp_path / "spec/net"
    digest = tree(root)
    below = sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
    (tmp_path / "spec/listing").write_text("".join(digests.entry(name, root / name) for name in below))
    return digest


async def test_a_file_that_lists_a_directory_does_not_take_its_place(tmp_path: Path) -> None:
    digest, models = listed(tmp_path), cache(tmp_path)
    assert (await models.ensure(benchmark(tmp_path, location="listing", sha256=digest))).files["predict"].path.is_file()
    for _ in range(2):
        wanted = benchmark(tmp_path, location="net", md5="directory", sha256=digest)
        found = (await models.ensure(wanted)).files["predict"]
        assert digests.of_tree(found.path) == digest
        assert (found.path / "weights").read_bytes() == BODY


async def test_nor_is_it_deleted_while_somebody_has_it_in_hand(tmp_path: Path) -> None:
    digest, models = listed(tmp_path), cache(tmp_path)
    in_hand = await models.ensure(benchmark(tmp_path, location="listing", sha256=digest))
    wanted = benchmark(tmp_path, location="net", md5="directory", sha256=digest)
    with pytest.raises(errors.SourceAwayError, match="is in use"):
        await models.ensure(wanted)
    assert in_hand.unchanged()
    del in_hand
    assert (await models.ensure(wanted)).files["predict"].path.is_dir()


def _rewrite(path: Path) -> None:
    (path / "weights").chmod(0o644)
    (path / "weights").write_bytes(BODY)


async def test_a_directory_is_pushed_as_it_is(tmp_path: Path) -> None:
    benchmark(tmp_path)
    digest = tree(tmp_path / "spec/net")
    found = await have(tmp_path, filename="below/net", location="net", sha256=digest)
    chosen = local.Settings(name="host", kind="local", minimum_free="1B")
    async with local.Local(chosen, tmp_path / "device", devices.RunSettings()).session() as session:
        place = Path(await session.push(devices.Push(found.path, found.digest, "net")))
        assert (place.name, digests.of_tree(place)) == ("net", digest)


@pytest.mark.parametrize(
    "harm",
    [
        _rewrite,
        lambda path: (path / "below/more").write_text(""),
        lambda path: (path / "link").unlink(),
        lambda path: (path / "below/run").chmod(0o444),
        lambda path: path.rename(path.with_name("gone")),
    ],
)
async def test_a_change_within_a_directory_is_seen(tmp_path: Path, harm: Callable[[Path], Any]) -> None:
    benchmark(tmp_path)
    digest = tree(tmp_path / "spec/net")
    models, wanted = cache(tmp_path), benchmark(tmp_path, location="net", sha256=digest)
    before = await models.ensure(wanted)
    harm(before.files["predict"].path)
    assert not before.unchanged()
    after = await models.ensure(wanted)
    assert after.unchanged()
    assert digests.of_tree(after.files["predict"].path) == digest


async def test_a_directory_of_other_bytes(tmp_path: Path) -> None:
    benchmark(tmp_path)
    digest = tree(tmp_path / "spec/net")
    assert f"has sha256 {digest}, and the specification says {OTHER}" in await failure(tmp_path, location="net", sha256=OTHER)
    assert list((tmp_path / "cache/.content/partial").iterdir()) == []


async def test_a_directory_that_leads_out_or_is_too_large(tmp_path: Path) -> None:
    benchmark(tmp_path)
    tree(tmp_path / "spec/net")
    small = cache(tmp_path, max_file_size="50kB")
    assert "is larger than 50000 bytes" in await failure(tmp_path, small, location="net", md5="directory")
    (tmp_path / "spec/net/out").symlink_to("../../secret")
    assert "holds out, a link to ../../secret" in await failure(tmp_path, location="net", md5="directory")


async def test_names_within_a_directory_do_not_write_into_it(tmp_path: Path) -> None:
    benchmark(tmp_path)
    digest = tree(tmp_path / "spec/net")
    inner = {"filename": "net/weights", "location": "net/weights", "sha256": SHA256}
    wanted = benchmark(tmp_path, test={"input_files": {"inner": inner}}, filename="net", location="net", sha256=digest)
    models = cache(tmp_path)
    for _ in range(3):
        found = await models.ensure(wanted)
        assert digests.of_tree(found.files["predict"].path) == digest
        assert found.unchanged()


async def test_a_generator_may_write_a_directory(tmp_path: Path) -> None:
    digest = tree(tmp_path / "model")
    generator(tmp_path, f"import shutil, sys; shutil.copytree({str(tmp_path / 'model')!r}, sys.argv[-1], symlinks=True)")
    found = await have(tmp_path, location={"generator": ["make.py"]}, md5="directory", sha256=digest)
    assert digests.of_tree(found.path) == digest


def _tar(mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{mode}") as archive:
        for name, text, bits in (("net/weights", BODY, 0o600), ("net/run", b"x", 0o700)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), bits
            archive.addfile(member, io.BytesIO(text))
    return packed.getvalue()


def _zip(_mode: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text, bits in (("net/weights", BODY, 0o100600), ("net/run", b"x", 0o100700)):
            item = zipfile.ZipInfo(name)
            item.external_attr = bits << 16
            archive.writestr(item, text)
    return packed.getvalue()


@pytest.mark.parametrize(("pack", "mode"), [(_tar, ""), (_tar, "gz"), (_tar, "xz"), (_tar, "bz2"), (_zip, "")])
async def test_a_directory_from_the_network_is_an_archive(
    tmp_path: Path, file_server: fileserver.FileServer, pack: Callable[[str], bytes], mode: str
) -> None:
    file_server.body = pack(mode)
    (tmp_path / "like/net").mkdir(parents=True)
    (tmp_path / "like/net/weights").write_bytes(BODY)
    (tmp_path / "like/net/run").write_bytes(b"x")
    (tmp_path / "like/net/run").chmod(0o755)
    digest = digests.of_tree(tmp_path / "like")
    found = await have(tmp_path, location=file_server.url, md5="directory", sha256=digest)
    assert (found.digest, (found.path / "net/weights").read_bytes()) == (digest, BODY)
    assert list((tmp_path / "cache/.content/partial").iterdir()) == []
    (found.path / "more").write_text("")
    file_server.script = [fileserver.truncated(50)]
    again = await have(tmp_path, location=file_server.url, md5="directory", sha256=digest)
    assert (digests.of_tree(again.path), len(file_server.requests)) == (digest, 3)


def _hostile(**fields: Any) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo()
        for name, value in fields.items():
            setattr(member, name, value)
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no archive at all", "is no archive that can be unpacked"),
        (_tar("gz")[:100], "is no archive that can be unpacked"),
        (_hostile(name="../out", size=1), "holds '../out', a name that leads out of its directory"),
        (_hostile(name="/tmp/out", size=1), "a name that leads out of its directory"),
        (_hostile(name="link", type=tarfile.SYMTYPE, linkname="/etc"), "holds 'link', neither a file nor a directory"),
        (_hostile(name="pipe", type=tarfile.FIFOTYPE), "holds 'pipe', neither a file nor a directory"),
        (_hostile(name="large", size=200_000), "is larger than 100000 bytes"),
        (_hostile(name="a", size=1)[:1024] + _hostile(name="a", size=1), "holds 'a' twice"),
        (_hostile(name="a", size=1)[:1024] + _hostile(name="a/b", size=1), "holds 'a/b' twice"),
    ],
)
async def test_an_archive_that_is_none_or_hostile(
    tmp_path: Path, file_server: fileserver.FileServer, body: bytes, reason: str
) -> None:
    file_server.body = body
    models = cache(tmp_path, max_file_size="250kB" if "larger" not in reason else "100kB")
    if "larger" in reason:
        file_server.body = _gzipped(body)
    assert reason in await failure(tmp_path, models, location=file_server.url, md5="directory", sha256=OTHER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "spec"]


def _gzipped(body: bytes) -> bytes:
    import gzip

    return gzip.compress(body)


# ---------------------------------------------------------------- side by side, and seen


@pytest.fixture
async def watched() -> AsyncIterator[tuple[files.House, list[events.Event]]]:
    told = events.Events()
    house = files.House(told, board.Board(told), hostgate.OpenGate(), devices.RunSettings)
    seen: list[events.Event] = []

    async def watch() -> None:
        async with told.subscribe() as stream:
            async for event in stream:
                seen.append(event)  # noqa: PERF401  it never ends

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield house, seen
        await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_files_of_a_benchmark_are_fetched_side_by_side_and_not_too_many(
    tmp_path: Path, file_server: fileserver.FileServer
) -> None:
    at_once, most, enough = 0, 0, anyio.Event()

    async def slow(writer: Any, request: fileserver.Request, body: bytes) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            enough.set()
        with anyio.fail_after(20):
            await enough.wait()
        await anyio.sleep(0.05)
        at_once -= 1
        await fileserver.whole(writer, request, body + request.path.encode())

    bodies = {str(number): BODY + f"/{number}".encode() for number in range(6)}
    file_server.script = [slow] * len(bodies)
    place = file_server.url.rpartition("/")[0]
    inputs = {
        key: {"filename": key, "location": f"{place}/{key}", "sha256": hashlib.sha256(body).hexdigest()}
        for key, body in bodies.items()
    }
    found = await cache(tmp_path, parallel=2).ensure(benchmark(tmp_path, test={"input_files": inputs}))
    assert {key: file.path.read_bytes() for key, file in found.input_files.items()} == bodies
    assert most == 2


async def test_all_files_that_cannot_be_had_are_named_at_once(tmp_path: Path) -> None:
    inputs = {key: {"filename": key, "location": key, "sha256": SHA256} for key in ("a", "b")}
    with pytest.raises(errors.SourceAwayError) as caught:
        await cache(tmp_path).ensure(benchmark(tmp_path, test={"input_files": inputs}))
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["input_files.a", "input_files.b"]


async def test_a_download_shows_on_the_board_and_is_gone_at_its_end(
    tmp_path: Path, file_server: fileserver.FileServer, watched: tuple[files.House, list[events.Event]], monkeypatch: Any
) -> None:
    house, seen = watched
    monkeypatch.setattr("aibenchd.specs.progress.PAUSE_SECONDS", 0.0)
    half, go_on = anyio.Event(), anyio.Event()

    async def in_two(writer: Any, request: fileserver.Request, body: bytes) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:35_000])
        await writer.drain()
        half.set()
        await go_on.wait()
        writer.write(body[35_000:])

    file_server.script = [in_two]
    async with anyio.create_task_group() as tasks:
        url = file_server.url.replace("://", "://me:hunter22@")
        tasks.start_soon(cache(tmp_path, house).ensure, benchmark(tmp_path, location=url, sha256=SHA256))
        await half.wait()
        with anyio.fail_after(20):
            while not any("35,000 of 70,000" in notice.reason for notice in house.board.notices("model")):
                await anyio.sleep(0.01)
        (notice,) = house.board.notices("model")
        go_on.set()
    assert (notice.unit, notice.state, notice.fault) == ("model/net/net.pb", "downloading", False)
    assert notice.reason.startswith("35,000 of 70,000 bytes (50 %) from http://[redacted]@127.0.0.1")
    assert house.board.notices("model") == []
    with anyio.fail_after(20):
        while seen[-1].topic != "model.fetched":
            await anyio.sleep(0.01)
    assert seen[-1].facts == {"file": "net/net.pb", "sha256": SHA256, "bytes": len(BODY)}
    assert {"file": "net/net.pb", "bytes": 35_000, "total": 70_000} in [event.facts for event in seen]


async def test_what_a_generator_is_told_in_confidence_is_not_shown(
    tmp_path: Path, watched: tuple[files.House, list[events.Event]]
) -> None:
    house, _ = watched
    generator(tmp_path, "import time; time.sleep(100)")
    location = {"generator": ["make.py", "--token=hunter22"]}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache(tmp_path, house).ensure, benchmark(tmp_path, location=location, sha256=SHA256))
        with anyio.fail_after(20):
            while not house.board.notices("model"):
                await anyio.sleep(0.01)
        (notice,) = house.board.notices("model")
        tasks.cancel_scope.cancel()
    assert notice.reason == "generator make.py --token=[redacted]"


async def test_progress_is_told_now_and_then_only(
    tmp_path: Path, file_server: fileserver.FileServer, watched: tuple[files.House, list[events.Event]]
) -> None:
    house, seen = watched
    file_server.body = bytes(5 << 20)
    digest = hashlib.sha256(file_server.body).hexdigest()
    began = anyio.current_time()
    await cache(tmp_path, house).ensure(benchmark(tmp_path, location=file_server.url, sha256=digest))
    took = anyio.current_time() - began
    await anyio.sleep(0.01)
    assert len([event for event in seen if event.topic == "model.progress"]) <= took


# ---------------------------------------------------------------- golden outputs


async def test_golden_files_stay_here_and_are_watched(tmp_path: Path) -> None:
    benchmark(tmp_path)
    (tmp_path / "spec/golden.npy").write_bytes(BODY)
    golden = {"filename": "golden.npy", "location": "golden.npy", "sha256": SHA256}
    test = {"output_files": {"out": {"filename": "out.npy", "golden": golden}, "other": {"filename": "other.npy"}}}
    found = await cache(tmp_path).ensure(benchmark(tmp_path, test=test))
    assert (list(found.golden), found.golden["out"].digest) == (["out"], SHA256)
    assert (found.files, found.input_files, found.host_files) == ({}, {}, {})
    assert found.unchanged()
    found.golden["out"].path.unlink()
    assert not found.unchanged()
