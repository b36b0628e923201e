"""Real remotes: repositories that commits are made in, and servers in front of them that want to be asked properly."""

from __future__ import annotations

import base64
import contextlib
import getpass
import http.client
import http.server
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WHO = "Ada <ada@example.org>"
EPOCH = 1_700_000_000  # 2023-11-14, a Tuesday


class GitRemote:
    """A git repository with a work tree, pushed to by nobody: commits are made in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = EPOCH
        path.mkdir(parents=True)
        self("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def __call__(self, *arguments: str, text: str = "") -> str:
        when = f"{self.time} +0200"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_DATE": when,
            "GIT_ALLOW_PROTOCOL": "file",
        }
        raw = text.encode(errors="surrogateescape")
        done = subprocess.run(["git", *arguments], cwd=self.path, env=environment, input=raw, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace").strip()

    def commit(self, subject: str = "change", **files: str) -> str:
        """Write files (``a__b`` is a/b), commit, and say the commit's id; each is a minute later than the last."""
        self.time += 60
        for name, content in (files or {"file": subject}).items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message", subject)
        return self("rev-parse", "HEAD")


class HgRemote:
    """A Mercurial repository with a work tree, worked on through one command server, which saves hg's start each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = EPOCH
        path.mkdir(parents=True)
        self._environment = {"PATH": os.environ["PATH"], "HGRCPATH": "/dev/null", "HGPLAIN": "1", "HGENCODING": "UTF-8"}
        subprocess.run(["hg", "init"], cwd=path, env=self._environment, check=True)
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def __call__(self, *arguments: str) -> str:
        server = self._serving()
        request = "\0".join(arguments).encode()
        server.stdin.write(b"runcommand\n" + struct.pack(">I", len(request)) + request)
        server.stdin.flush()
        said = {b"o": b"", b"e": b"", b"r": b""}
        while not said[b"r"]:
            channel, text = self._read()
            said[channel] += text
        assert said[b"r"] in (struct.pack(">i", 0), struct.pack(">i", 1)), said[b"e"].decode()
        return said[b"o"].decode(errors="replace").strip()

    def commit(self, subject: str = "change", **files: str) -> str:
        """As of a :class:`GitRemote`."""
        self.time += 60
        for name, content in (files or {"file": f"{subject} {self.time}"}).items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self("commit", "--addremove", "--quiet", "--user", WHO, "--date", f"{self.time} 0", "--message", subject)
        return self("identify", "--template", "{node}", "--rev", ".")

    def close(self) -> None:
        """Let go of the repository: it may be moved away then."""
        if self._server is not None:
            self._server.stdin.close()
            self._server.stdout.close()
            self._server.wait()
            self._server = None

    def _serving(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            command = ["hg", "--config", "extensions.strip=", "serve", "--cmdserver", "pipe"]
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(command, cwd=self.path, env=self._environment, stdin=pipe, stdout=pipe)
            self._read()  # its greeting
        return self._server

    def _read(self) -> tuple[bytes, bytes]:
        channel, size = struct.unpack(">cI", self._server.stdout.read(5))
        return channel, self._server.stdout.read(size)


class Guarded(http.server.ThreadingHTTPServer):
    """Lets requests with the right user and token through to ``answer``; looks meanwhile whether a process shows the token."""

    daemon_threads = True

    def __init__(self, username: str, token: str, answer: Callable[[Handler, bytes], None], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.username, self.token, self.answer = username, token, answer
        self.served = 0
        self.exposed: list[str] = []
        self.seen: list[str | None] = []  # each request's Authorization

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def admits(self, authorization: str | None) -> bool:
        self.seen.append(authorization)
        expected = base64.b64encode(f"{self.username}:{self.token}".encode()).decode()
        return authorization == f"Basic {expected}"

    def look_around(self) -> None:
        """What ``ps`` shows of each process, its environment too."""
        for shown in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")):
            with contextlib.suppress(OSError):
                if self.token.encode() in shown.read_bytes():
                    self.exposed.append(str(shown))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Guarded
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.server.admits(self.headers.get("Authorization")):
            self.reply(401, [("WWW-Authenticate", 'Basic realm="engine"')], b"who are you?")
            return
        self.server.served += 1
        self.server.look_around()
        self.server.answer(self, body)

    do_POST = do_GET  # noqa: N815

    def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(server: http.server.HTTPServer) -> Iterator[None]:
    """Serve in a thread within."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git_http(root: Path) -> Callable[[Handler, bytes], None]:
    """Answers as git does over HTTP, by its own program, for the repositories below ``root``; and the LFS files of them."""

    def answer(handler: Handler, body: bytes) -> None:
        path, _, query = handler.path.partition("?")
        if "/info/lfs/" in path:
            _lfs(handler, root, path, body)
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().splitlines()]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        handler.reply(status, [header for header in headers if header[0] not in ("Status", "Content-Length")], rest)

    return answer


def _lfs(handler: Handler, root: Path, path: str, body: bytes) -> None:
    """The batch call of Git LFS, and its downloads, out of what the repository itself keeps."""
    repository, _, rest = path.partition("/info/lfs/")
    if rest == "objects/batch":
        wanted = json.loads(body)["objects"]
        base = f"{handler.server.origin}{repository}/info/lfs/"
        objects = [{**one, "actions": {"download": {"href": base + one["oid"]}}} for one in wanted]
        answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
        handler.reply(200, [("Content-Type", "application/vnd.git-lfs+json")], answer)
    else:
        kept = root / repository.strip("/") / "lfs/objects" / rest[:2] / rest[2:4] / rest
        handler.reply(200, [("Content-Type", "application/octet-stream")], kept.read_bytes())


def forward_to(port: int) -> Callable[[Handler, bytes], None]:
    """Answers as the server at another port of this host does."""

    def answer(handler: Handler, body: bytes) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as behind:
            headers = {name: value for name, value in handler.headers.items() if name != "Authorization"}
            behind.request(handler.command, handler.path, body, headers)
            response = behind.getresponse()
            text = response.read()
            kept = [one for one in response.getheaders() if one[0].lower() not in ("content-length", "transfer-encoding")]
            handler.reply(response.status, kept, text)

    return answer


@contextlib.contextmanager
def started(command: list[str], port: int, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, once it listens; killed at the end."""
    process = subprocess.Popen(command, env={**os.environ, **more}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port that nothing has: none of those that whoever asks for any is given, or it might be taken before it is used."""
    drawn = random.SystemRandom()  # hypothesis seeds the other one
    while True:
        port = drawn.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Ssh:
    """A directory with the keys of an SSH server and its one user, and the server's configuration."""

    def __init__(self, directory: Path, port: int) -> None:
        directory.mkdir()
        self.port, self.user = port, getpass.getuser()
        self.key, self.other_key, host_key = (directory / name for name in ("key 100%", "other key", "host key"))
        for key in (self.key, self.other_key, host_key):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        admitted = directory / "authorized"
        admitted.write_text(_public(self.key))
        self.known_hosts, self.other_hosts = directory / "known hosts", directory / "other hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {_public(host_key)}")
        self.other_hosts.write_text(f"[127.0.0.1]:{port} {_public(self.other_key)}")
        self.configuration = directory / "sshd_config"
        self.configuration.write_text(
            f'Port {port}\nListenAddress 127.0.0.1\nHostKey "{host_key}"\nAuthorizedKeysFile "{admitted}"\nStrictModes no\n'
            "UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
            f'SetEnv PATH="{Path(sys.executable).parent}:{os.environ["PATH"]}"\n'
        )

    @property
    def command(self) -> list[str]:
        return ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.configuration)]

    def url(self, path: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"


def _public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text()
