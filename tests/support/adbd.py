"""The phone's side of adb, over TCP, for the real client and server: real shells and real files, and faults on demand.

A phone is a directory. What it calls /data, /sys and /proc/sys/kernel/random lies below that; its commands are Android's own
shell and tools (mksh and toybox, from Debian), or this host's where they are not installed, and a few scripts in place of
Android's services. It asks for no key unless it is told to, and its programs run as whoever runs the test: loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import adbutils
import pytest
import remotes

from aibenchd.devices import adbphone

HEADER = struct.Struct("<6I")
ORDER = struct.Struct("<4sI")
PACKET = struct.Struct("<BI")
CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION = 0x01000001  # from which checksums are not looked at
PAYLOAD = 256 << 10
TOKEN, TOKEN_SIZE, PUBLIC_KEY = 1, 20, 3
CHUNK = 64 << 10
OWN = re.compile(r"(?<![\w/.-])/(?=(?:data|sys|proc/sys/kernel/random)(?:/|\b))")
TAG = "AIBENCHD_TEST_PHONE"  # in the environment of all that a phone runs

PROPERTIES = {
    "ro.product.model": "Model T",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abi": "x86_64",
    "ro.build.fingerprint": "test/model_t/model_t:14/1",
    "ro.serialno": "0123456789",
    "ro.debuggable": "0",
    "sys.boot_completed": "1",
}
SCRIPTS = {
    "getprop": """
        file={root}/phone/properties
        if [ $# -gt 0 ]; then sed -n "s/^$1=//p" $file; else sed 's/^\\([^=]*\\)=\\(.*\\)/[\\1]: [\\2]/' $file; fi
    """,
    "dumpsys": "cat {root}/phone/dumpsys/$1",
    "settings": """
        file={root}/phone/settings/$3
        case $1 in
            get) if [ -f $file ]; then cat $file; else echo null; fi ;;
            put) echo "$4" >$file ;;
            delete) rm -f $file ;;
        esac
    """,
    "input": """
        case $2 in 223) echo mWakefulness=Asleep ;; 224) echo mWakefulness=Awake ;; esac >{root}/phone/dumpsys/power
    """,
    "cmd": """
        case $3 in enable) echo 1 ;; disable) echo 0 ;; *) exit 1 ;; esac >{root}/phone/settings/airplane_mode_on
    """,
    "id": 'if [ -n "$PHONE_ROOT" ]; then echo 0; else echo 2000; fi',
    "su": "echo 'su: not found' >&2; exit 127",
    "logcat": """
        [ -f {root}/phone/logcat ] || : >{root}/phone/logcat
        case $1 in -d) cat {root}/phone/logcat ;; *) exec tail -f -n 10000 {root}/phone/logcat ;; esac
    """,
    # An app is a script, which is told its arguments' file, and started beside what starts it.
    "pm": """
        case $1 in
            install) cp $3 {root}/phone/app ;;
            uninstall) : >{root}/phone/logcat; rm -f {root}/phone/app ;;
        esac
    """,
    "am": """
        case $1 in
            start) env -u AIBENCHD_RUN setsid sh {root}/bin/zygote $5 >/dev/null 2>&1 </dev/null & ;;
            force-stop) kill -9 -$(cat {root}/phone/pid) 2>/dev/null; true ;;
        esac
    """,
    "zygote": """
        echo $$ >{root}/phone/pid
        log() { while read -r line; do printf '%s\\n' "11-24 13:00:00.000  1000  1000 I Bench : $line"; done; }
        say() { log >>{root}/phone/logcat; }
        sh {root}/phone/app {root}/data/local/tmp/benchmark.json >{root}/phone/said
        code=$?
        say <{root}/phone/said
        if [ $code = 0 ]; then echo "$1 BENCHMARK_DONE" | say; fi
        echo "11-24 13:00:00.000  500  500 I ActivityManager: Process ${1%%/*} (pid $$) has died" >>{root}/phone/logcat
    """,
}
TOOLS = (*adbphone.TOOLS, "awk", "date", "dd", "expr", "id", "sed", "setsid", "sha256sum", "tail", "taskset", "tr", "uname")
SETPROP = 'file={root}/phone/properties; sed -i "/^$1=/d" $file; echo "$1=$2" >>$file'
SU = 'if [ "$1" = 0 ]; then shift; else shift; set -- sh -c "$@"; fi; PHONE_ROOT=yes exec "$@"'


@dataclass
class Fault:
    """What goes wrong once, when a service that begins with ``service`` has moved so many bytes.

    Attributes:
        what: ``drop`` the line, ``hang`` the service, ``garbage`` in its stream, ``close`` the service.
    """

    service: str
    what: str
    after: int = 0


@dataclass
class Phone:
    """A phone in ``root``; :meth:`on` makes it reachable at its port."""

    root: Path
    port: int
    features: str = "shell_v2,cmd,stat_v2"
    trusts: bool = True
    mute: bool = False  # takes connections, and never says a word
    root_adbd: bool = False
    boot_seconds: float = 0.2
    path: str = "/usr/bin:/bin:/usr/sbin:/sbin"  # where its shell looks beside its own programs
    faults: list[Fault] = field(default_factory=list)
    services: list[str] = field(default_factory=list)  # that were asked for
    _lines: set[Line] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _shells: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        """Where /data/local/tmp/aibenchd lies."""
        return self.root / "data/local/tmp/aibenchd"

    def make(self) -> None:
        """Lay it out, as it comes from its maker."""
        for name in ("data/local/tmp", "phone/dumpsys", "phone/settings", "bin", "proc/sys/kernel/random"):
            (self.root / name).mkdir(parents=True)
        self.set(**PROPERTIES)
        (self.root / "phone/dumpsys/battery").write_text("Current Battery Service state:\n  level: 87\n  temperature: 291\n")
        (self.root / "phone/dumpsys/power").write_text("mWakefulness=Awake\n")
        self.heat(0, 35.0)
        self.cool("thermal-cpufreq-0", 0)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        for name, text in SCRIPTS.items():
            self.script(name, text)
        for policy, steps in (("policy0", (300000, 900000, 1800000)), ("policy4", (500000, 1500000, 2800000))):
            self._frequencies(self.root / "sys/devices/system/cpu/cpufreq" / policy, steps)
        (self.root / "bin" / "sh").symlink_to(shell())
        if shutil.which("toybox"):
            names = subprocess.run(["toybox"], capture_output=True, text=True, check=True).stdout.split()
            for name in set(names) - SCRIPTS.keys() - {"sh"}:
                (self.root / "bin" / name).symlink_to(str(shutil.which("toybox")))

    def set(self, **properties: str) -> None:
        """Set properties; those of before stay."""
        file = self.root / "phone/properties"
        before = dict(line.split("=", 1) for line in file.read_text().splitlines()) if file.exists() else {}
        file.write_text("".join(f"{name}={value}\n" for name, value in {**before, **properties}.items()))

    def heat(self, status: int, celsius: float) -> None:
        """What its thermal service says."""
        (self.root / "phone/dumpsys/thermalservice").write_text(
            f"IsStatusOverride: false\nThermalEventListeners:\nThermal Status: {status}\nCached temperatures:\n"
            f"\tTemperature{{mValue=99.0, mType=0, mName=old, mStatus=0}}\nHAL Ready: true\nCurrent temperatures from HAL:\n"
            f"\tTemperature{{mValue={celsius}, mType=0, mName=cpu, mStatus={status}}}\n"
            "\tTemperature{mValue=80.0, mType=5, mName=bcl, mStatus=0}\n"
        )

    def cool(self, kind: str, state: int) -> None:
        """What the kernel's cooling device is, and does."""
        place = self.root / "sys/class/thermal/cooling_device0"
        place.mkdir(parents=True, exist_ok=True)
        (place / "type").write_text(f"{kind}\n")
        (place / "cur_state").write_text(f"{state}\n")

    def script(self, name: str, text: str) -> None:
        """A program of the phone."""
        file = self.root / "bin" / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!{shell()}\n{text.replace('{root}', str(self.root))}\n")
        file.chmod(0o755)

    def without(self, *names: str) -> None:
        """It has its own programs alone, and of these not those."""
        own = self.root / "bin"
        for name in {*TOOLS, *names} - set(names):
            if not (own / name).exists():
                (own / name).symlink_to(str(shutil.which(name)))
        for name in names:
            (own / name).unlink(missing_ok=True)
        self.path = str(own)

    def frequencies(self, policy: str = "policy0") -> tuple[str, str, str]:
        """Governor, lowest and highest frequency of a policy."""
        place = self.root / "sys/devices/system/cpu/cpufreq" / policy
        governor, low, high = ((place / f"scaling_{name}").read_text().strip() for name in ("governor", "min_freq", "max_freq"))
        return governor, low, high

    @staticmethod
    def _frequencies(place: Path, steps: tuple[int, ...]) -> None:
        place.mkdir(parents=True)
        files = {
            "scaling_governor": "schedutil",
            "scaling_min_freq": steps[0],
            "scaling_max_freq": steps[-1],
            "cpuinfo_min_freq": steps[0],
            "cpuinfo_max_freq": steps[-1],
            "scaling_available_frequencies": " ".join(map(str, steps)),
        }
        for name, value in files.items():
            (place / name).write_text(f"{value}\n")

    async def on(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def off(self) -> None:
        """Gone, with all that runs on it."""
        if self._server:
            self._server.close()
        self.drop()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._lines:
            await asyncio.sleep(0.005)
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for process in self._shells:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.sleep(0)  # by then their transports have closed

    def drop(self) -> None:
        """Cut the line; what runs learns of it as it would on a phone."""
        for line in list(self._lines):
            line.writer.transport.abort()

    def processes(self) -> dict[int, str]:
        """All that runs on it: command lines by process ids."""
        tag = f"{TAG}={self.root}\0".encode()
        found: dict[int, str] = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if tag in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    def here(self, text: str) -> str:
        """A path or a command of the phone, as this host has to be told it."""
        return OWN.sub(f"{self.root}/", text)

    def struck(self, service: str, moved: int) -> str:
        """The fault that strikes a service now, which is then over; empty where none does."""
        for fault in self.faults:
            if service.startswith(fault.service) and moved >= fault.after:
                self.faults.remove(fault)
                return fault.what
        return ""

    async def restart(self, *, boot: bool) -> None:
        """Start adbd anew, or the whole phone."""
        if self._server:
            self._server.close()
        self.drop()
        if boot:
            self.root_adbd = False
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
            self.set(**{"sys.boot_completed": ""})
        await asyncio.sleep(self.boot_seconds)
        await self.on()
        await asyncio.sleep(self.boot_seconds)
        self.set(**{"sys.boot_completed": "1"})

    def keep(self, task: asyncio.Task[None]) -> None:
        """Have a task ended with the phone."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ran(self, process: asyncio.subprocess.Process) -> None:
        """Have a shell ended with the phone."""
        self._shells = [*(shell for shell in self._shells if shell.returncode is None), process]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(self, reader, writer)
        self._lines.add(line)
        try:
            await line.serve()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._lines.discard(line)
            line.hang_up()


class Line:
    """One connection of a server's."""

    def __init__(self, phone: Phone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.phone, self.reader, self.writer = phone, reader, writer
        self.payload = 4096
        self._streams: dict[int, Stream] = {}
        self._count = 0

    async def serve(self) -> None:
        while True:
            command, first, second, length, _, _ = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            data = await self.reader.readexactly(length)
            if self.phone.mute:
                continue
            if command in (CNXN, AUTH):
                if (command, first) != (AUTH, PUBLIC_KEY) or self.phone.trusts:  # else it shows it on its screen, and waits
                    await self._greet(second if command == CNXN else 0)
            elif command == OPEN:
                self._open(first, data.rstrip(b"\0").decode())
            elif stream := self._streams.get(second):
                if command == WRTE:
                    stream.inbox.put_nowait(data)
                elif command == OKAY:
                    stream.acknowledged.set()
                elif command == CLSE:
                    stream.end()
            elif command == WRTE:
                self.send(CLSE, 0, first)

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        self.writer.write(HEADER.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF) + data)

    def hang_up(self) -> None:
        self.writer.close()
        for stream in list(self._streams.values()):
            stream.end()

    def closed(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)

    async def _greet(self, payload: int) -> None:
        if not self.phone.trusts:
            self.send(AUTH, TOKEN, 0, os.urandom(TOKEN_SIZE))
            return
        self.payload = min(payload or PAYLOAD, PAYLOAD)
        banner = f"device::ro.product.name=t;ro.product.model=T;ro.product.device=t;features={self.phone.features}"
        self.send(CNXN, VERSION, self.payload, banner.encode())

    def _open(self, peer: int, service: str) -> None:
        self._count += 1
        stream = Stream(self, self._count, peer, service)
        self._streams[stream.number] = stream
        self.phone.services.append(service)
        self.phone.keep(asyncio.create_task(stream.serve()))


class Stream:
    """One service that was opened."""

    def __init__(self, line: Line, number: int, peer: int, service: str) -> None:
        self.line, self.number, self.peer, self.service = line, number, peer, service
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.acknowledged = asyncio.Event()
        self._ended, self._moved, self._buffer = False, 0, b""

    def end(self) -> None:
        self._ended = True
        self.acknowledged.set()
        self.inbox.put_nowait(b"")

    async def serve(self) -> None:
        phone = self.line.phone
        kind, _, rest = self.service.partition(":")
        try:
            if kind in ("reboot", "root", "unroot"):
                await self._restart(kind)
            elif kind.split(",")[0] in ("shell", "exec", "sync"):
                self.line.send(OKAY, self.number, self.peer)
                await (self._sync() if kind == "sync" else self._shell(phone.here(rest), packets="v2" in kind.split(",")))
        except (EOFError, OSError):
            pass
        finally:
            self.line.closed(self)
            with contextlib.suppress(OSError):
                self.line.send(CLSE, self.number, self.peer)

    async def _restart(self, kind: str) -> None:
        phone = self.line.phone
        if kind in ("root", "unroot"):
            phone.root_adbd = kind == "root"
        self.line.send(OKAY, self.number, self.peer)
        await self.write(b"restarting\n")
        phone.keep(asyncio.create_task(phone.restart(boot=kind == "reboot")))

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.line.payload):
            await self._fault()
            part = data[start : start + self.line.payload]
            self.acknowledged.clear()
            if self._ended:
                raise EOFError
            self.line.send(WRTE, self.number, self.peer, part)
            await self.acknowledged.wait()
            self._moved += len(part)

    async def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._fault()
            data = await self.inbox.get()
            if not data:
                raise EOFError
            self._moved += len(data)
            self._buffer += data
            self.line.send(OKAY, self.number, self.peer)
        result, self._buffer = self._buffer[:size], self._buffer[size:]
        return result

    async def _fault(self) -> None:
        what = self.line.phone.struck(self.service, self._moved)
        if what == "drop":
            self.line.phone.drop()
            raise EOFError
        if what == "hang":
            while not self._ended:
                await asyncio.sleep(0.05)
            raise EOFError
        if what == "garbage":
            self.line.send(WRTE, self.number, self.peer, b"\xff\xfe\xfdgarbage" * 100)
        if what == "close":
            raise EOFError

    # ---- the shell

    async def _shell(self, text: str, *, packets: bool) -> None:
        phone = self.line.phone
        outputs = {1: asyncio.subprocess.PIPE, 2: asyncio.subprocess.PIPE if packets else asyncio.subprocess.STDOUT}
        environment = {
            "PATH": f"{phone.root}/bin:{phone.path}",
            "HOME": "/",
            TAG: str(phone.root),
            **({"PHONE_ROOT": "yes"} if phone.root_adbd else {}),
        }
        process = await asyncio.create_subprocess_exec(
            shell(), "-c", text, cwd="/", env=environment, stdin=asyncio.subprocess.PIPE, stdout=outputs[1], stderr=outputs[2],
            start_new_session=True,
        )  # fmt: skip
        phone.ran(process)
        feeding = asyncio.create_task(self._feed(process, packets))
        try:
            await asyncio.gather(*(self._print(kind, process, packets) for kind in ((1, 2) if packets else (1,))))
            code = await process.wait()
            if packets:
                await self.write(PACKET.pack(3, 1) + bytes([code & 255]))
        finally:
            feeding.cancel()
            self._hang_up(process)
            for number in (1, 2):  # which what it left behind may hold open
                if pipe := process._transport.get_pipe_transport(number):  # type: ignore[attr-defined]
                    pipe.close()

    async def _feed(self, process: asyncio.subprocess.Process, packets: bool) -> None:
        assert process.stdin
        with contextlib.suppress(EOFError, OSError):
            while True:
                size = PACKET.unpack(await self.read(PACKET.size))[1] if packets else 1
                process.stdin.write(await self.read(size))
                await process.stdin.drain()
        self._hang_up(process)

    @staticmethod
    def _hang_up(process: asyncio.subprocess.Process) -> None:
        """As adbd does where its line is gone."""
        if process.stdin:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)

    async def _print(self, kind: int, process: asyncio.subprocess.Process, packets: bool) -> None:
        source = process.stdout if kind == 1 else process.stderr
        assert source
        while data := await source.read(CHUNK):
            await self.write(PACKET.pack(kind, len(data)) + data if packets else data.replace(b"\n", b"\r\n"))

    # ---- files

    async def _sync(self) -> None:
        while True:
            order, length = ORDER.unpack(await self.read(ORDER.size))
            if order == b"QUIT":
                return
            path = self.line.phone.here((await self.read(length)).decode())
            try:
                await {b"SEND": self._take, b"RECV": self._give, b"STAT": self._stat}[order](path)
            except (OSError, ValueError) as error:
                said = str(error).encode()
                await self.write(ORDER.pack(b"FAIL", len(said)) + said)

    async def _take(self, path: str) -> None:
        path, _, mode = path.rpartition(",")
        with Path(path).open("wb") as file:
            while True:
                order, length = ORDER.unpack(await self.read(ORDER.size))
                if order == b"DONE":
                    break
                if order != b"DATA":
                    raise ValueError(f"{order!r} in a file")
                file.write(await self.read(length))
        Path(path).chmod(stat.S_IMODE(int(mode)))
        await self.write(ORDER.pack(b"OKAY", 0))

    async def _give(self, path: str) -> None:
        with Path(path).open("rb") as file:
            while data := file.read(CHUNK):
                await self.write(ORDER.pack(b"DATA", len(data)) + data)
        await self.write(ORDER.pack(b"DONE", 0))

    async def _stat(self, path: str) -> None:
        try:
            found = Path(path).stat()
        except OSError:
            await self.write(struct.pack("<4sIII", b"STAT", 0, 0, 0))
        else:
            await self.write(struct.pack("<4sIII", b"STAT", found.st_mode, found.st_size, int(found.st_mtime)))


def shell() -> str:
    """Android's, or this host's."""
    return shutil.which("mksh") or "/bin/sh"


class Server:
    """A real adb server on a port of its own."""

    def __init__(self, home: Path, port: int = 0) -> None:
        self.port = port or remotes.free_port()
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "HOME": str(self._home), "ANDROID_ADB_SERVER_PORT": str(self.port), "ADB_MDNS": "0"}
        with (self._home / "adb.log").open("ab") as log:
            self._process = subprocess.Popen(
                [adbutils.adb_path(), "nodaemon", "server"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(10)
                connection.sendall(b"000chost:version")
                if connection.recv(4) == b"OKAY":
                    return
            time.sleep(0.05)
        raise AssertionError((self._home / "adb.log").read_text())

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)


@contextlib.contextmanager
def server(home: Path) -> Iterator[Server]:
    """One that is stopped at the end."""
    one = Server(home)
    one.start()
    try:
        yield one
    finally:
        one.stop()


@contextlib.asynccontextmanager
async def phone(root: Path, **more: object) -> AsyncIterator[Phone]:
    """One that is on, until the end."""
    one = Phone(root, remotes.free_port(), **more)  # type: ignore[arg-type]
    one.make()
    await one.on()
    try:
        yield one
    finally:
        await one.off()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of a module, whose phones have ports of their own."""
    with server(tmp_path_factory.mktemp("adb")) as one:
        yield one


@pytest.fixture
async def fresh_phone(tmp_path: Path) -> AsyncIterator[Phone]:
    async with phone(tmp_path / "phone") as one:
        yield one


if __name__ == "__main__":  # a phone for trying by hand: python tests/support/adbd.py DIRECTORY

    async def _main() -> None:
        async with phone(Path(sys.argv[1]).absolute()) as one:
            print(f"adb connect {one.address}")
            await asyncio.Event().wait()

    asyncio.run(_main())
