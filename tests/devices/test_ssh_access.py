"""Who is let in, and whom we let in: host keys, keys, agents, certificates, jump hosts."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pydantic
import pytest
import remotes
import sshd

from aibenchd import errors, plugins
from aibenchd.devices import base, ssh, ssh_access


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path_factory.mktemp("box") / "ssh") as made:
        yield made


async def refused(server: sshd.Sshd, match: str, key: str = "", **settings: Any) -> None:
    """It is not reached, and that is about ``key`` of its entry, where one is given."""
    with pytest.raises(errors.DeviceLostError, match=match) as caught:
        await server.device(**settings).reach()
    assert not key or ".".join(map(str, errors.keys_of(caught.value))) == key


def test_the_kind_is_installed() -> None:
    assert plugins.load("devices", "ssh") is ssh.Ssh


async def test_a_device_that_can_be_had_is_reached_and_left_as_it_is(server: sshd.Sshd) -> None:
    await server.device("untouched").reach()

    assert not (server.home / "untouched").exists()


async def test_conditioning_that_cannot_be_had_there_is_told_and_nothing_changed(server: sshd.Sshd) -> None:
    """This host is the device: its kernel tells a load, and no battery."""
    asked = base.Conditioning(max_load=1000.0)
    await server.device("untouched", conditioning=asked).reach()
    with pytest.raises(errors.CommandError, match=r"does not tell its battery; remove conditioning\.min_battery"):
        await server.device("untouched", conditioning=asked.model_copy(update={"min_battery": 50.0})).reach()
    with pytest.raises(errors.CommandError, match=r"(no governor|frequency of cpu.*cannot be set)"):
        await server.device("untouched", conditioning=base.Conditioning(governor="no_such_governor")).reach()
    assert not (server.home / "untouched").exists()


async def test_a_host_key_that_is_not_known_is_refused_and_told(server: sshd.Sshd) -> None:
    found, other = re.escape(server.fingerprint()), re.escape(server.fingerprint(server.other_key))
    words = rf"box: .*its host key {found} \(ssh-ed25519\) is not {other}, which .*other hosts has: it was set up anew.*keygen"
    await refused(server, words, "host_key", known_hosts_file=str(server.other_hosts))


async def test_a_host_key_that_was_never_known_is_shown_with_what_makes_it_known(server: sshd.Sshd, tmp_path: Path) -> None:
    (tmp_path / "known hosts").write_text("")
    with pytest.raises(errors.DeviceLostError) as caught:
        await server.device(known_hosts_file=str(tmp_path / "known hosts")).reach()
    found, message = server.fingerprint(), str(caught.value)
    assert (
        f"its host key {found} (ssh-ed25519) is not known yet; compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519"
        in message
    )
    command = message.partition(f"then set host_key: {found}, or run `")[2].rstrip("`")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    await server.device(known_hosts_file=str(tmp_path / "known hosts")).reach()
    await server.device(host_key=found, known_hosts_file=str(server.other_hosts)).reach()


async def test_a_pinned_host_key_is_accepted_whatever_is_known(server: sshd.Sshd) -> None:
    await server.device(host_key=server.fingerprint(), known_hosts_file=str(server.other_hosts)).reach()


async def test_another_host_key_than_the_pinned_one_is_refused(server: sshd.Sshd) -> None:
    pinned = "SHA256:" + 43 * "A"
    await refused(server, f"{re.escape(server.fingerprint())} .* is not the pinned {pinned}", "host_key", host_key=pinned)


def test_a_public_key_as_the_key_file_is_refused(server: sshd.Sshd) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"key 100%.pub is the public half of a key; name the private one"):
        server.device(key_file=f"{server.key}.pub")


def test_a_fingerprint_that_is_none_is_refused(server: sshd.Sshd) -> None:
    with pytest.raises(pydantic.ValidationError, match="expected a fingerprint, SHA256: and 43 characters"):
        server.device(host_key="SHA256:short")


async def test_a_key_that_is_not_admitted_is_told(server: sshd.Sshd) -> None:
    words = r"it does not let us in .* put the public half of .*other key into ~/.ssh/authorized_keys there"
    await refused(server, words, "username", key_file=str(server.other_key))


async def test_a_key_file_that_cannot_be_used_is_told(server: sshd.Sshd, tmp_path: Path) -> None:
    await refused(server, "key_file .*none: No such file", "key_file", key_file=str(tmp_path / "none"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "word", "-f", tmp_path / "locked"], check=True)
    await refused(server, "key_file .*locked: .*needs no passphrase", key_file=str(tmp_path / "locked"))


async def test_known_hosts_that_cannot_be_read_are_told(server: sshd.Sshd, tmp_path: Path) -> None:
    await refused(server, "none", "known_hosts_file", known_hosts_file=str(tmp_path / "none"))


async def test_a_server_that_wants_a_password_gets_none(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "ssh", "PubkeyAuthentication no", "PasswordAuthentication yes") as server:
        await refused(server, "it does not let us in .* passwords are never used")


async def test_the_agent_has_the_key(server: sshd.Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL) as agent:
        with anyio.fail_after(20):
            while not (tmp_path / "agent").exists():
                await anyio.sleep(0.01)
        environment = os.environ | {"SSH_AUTH_SOCK": str(tmp_path / "agent")}
        subprocess.run(["ssh-add", "-q", server.key], check=True, env=environment)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        await refused(server, "it does not let us in", key_file=str(server.other_key))
        await server.device(key_file=str(server.other_key), agent=True).reach()
        agent.kill()


async def test_an_authority_signs_a_key(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "ssh", f'TrustedUserCAKeys "{tmp_path}/authority.pub"') as server:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "authority"], check=True)
        sign = ["ssh-keygen", "-q", "-s", tmp_path / "authority", "-I", "bench", "-n", server.user, f"{server.other_key}.pub"]
        subprocess.run(sign, check=True)
        await refused(server, "it does not let us in", key_file=str(server.other_key))
        await server.device(key_file=str(server.other_key), certificate_file=f"{server.other_key}-cert.pub").reach()


async def test_the_way_leads_through_another_server(server: sshd.Sshd, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "gate") as gate:
        through = {"host": "127.0.0.1", "port": gate.port, "key_file": str(gate.key), "known_hosts_file": str(gate.known_hosts)}
        await server.device(jump=[through]).reach()
        wrong = through | {"key_file": str(server.key)}
        await refused(server, f"127.0.0.1:{gate.port}: it does not let us in", "jump.0.username", jump=[wrong])
        await refused(
            server, f"127.0.0.1:{server.port}: .*is not known yet", jump=[through], known_hosts_file=str(gate.known_hosts)
        )
        nowhere = remotes.free_port()
        await refused(server, f"127.0.0.1:{nowhere}: the connection failed", jump=[through], port=nowhere)


async def test_nobody_listens(server: sshd.Sshd) -> None:
    port = remotes.free_port()
    await refused(server, f"Connection refused; see whether its SSH server runs, and on port {port}", port=port)


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("root@127.0.0.1", "write host: 127.0.0.1, username: root"),
        ("127.0.0.1:2299", "write host: 127.0.0.1, port: 2299"),
        ("bench@board:2299", "write host: board, username: bench, port: 2299"),
        ("bench@[::1]:2299", "write host: ::1, username: bench, port: 2299"),
        ("[::1]", "write host: ::1"),
    ],
)
def test_a_host_that_names_a_user_or_a_port_is_told_their_keys(server: sshd.Sshd, host: str, advice: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(advice)):
        server.device(host=host)
    for good in ("::1", "fe80::1%eth0", "board-7.example.org"):
        server.device(host=good)


async def test_a_connection_that_is_not_taken_is_told_with_where_to_look(server: sshd.Sshd) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, lambda stream: stream.aclose())
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        await refused(server, "the connection failed: .*; see what its SSH server logged", port=port)
        tasks.cancel_scope.cancel()


async def test_a_line_that_no_file_of_known_hosts_has_is_told_with_its_file(server: sshd.Sshd, tmp_path: Path) -> None:
    (tmp_path / "odd hosts").write_text("{\n")
    words = r"odd hosts: Invalid known hosts entry: \{; mend or remove that line"
    await refused(server, words, "known_hosts_file", known_hosts_file=str(tmp_path / "odd hosts"))


async def test_a_name_that_nobody_has(server: sshd.Sshd) -> None:
    await refused(server, "it cannot be reached: .*; correct host, or write its address", "host", host="no-such-host.invalid")


async def test_one_that_says_nothing_is_not_waited_for(server: sshd.Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        await refused(server, "no answer within 0.3 s", "host", port=mute.getsockname()[1], connect_timeout="300ms")


async def test_a_frozen_server_is_not_waited_for(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "ssh") as server:
        server.signal(signal.SIGSTOP)
        await refused(server, "no answer within 0.3 s", connect_timeout="300ms")


async def test_no_python_is_told(server: sshd.Sshd) -> None:
    await refused(server, "it has no Python: .*no-such-python.*apt-get install python3", "python", python="no-such-python")


async def test_a_python_that_is_too_old_is_told(server: sshd.Sshd, tmp_path: Path) -> None:
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\ncat > /dev/null & echo 'SyntaxError: invalid syntax' >&2; exit 1\n")
    old.chmod(0o755)
    await refused(server, "no supervisor can be started there, which needs Python 3.6: SyntaxError", "python", python=str(old))


async def test_what_a_login_shell_prints_is_passed_over(server: sshd.Sshd, tmp_path: Path) -> None:
    chatty = tmp_path / "chatty"
    chatty.write_text('#!/bin/sh\necho "Welcome to board 7"\necho\nexec python3 "$@"\n')
    chatty.chmod(0o755)
    await server.device(python=str(chatty)).reach()


async def test_what_is_no_supervisor_is_told(server: sshd.Sshd, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho '{\"oops'\nexec sleep 5\n")
    other.chmod(0o755)
    await refused(server, "its supervisor is not understood", python=str(other))


async def test_a_server_without_sftp_is_told(tmp_path: Path) -> None:
    with sshd.running(tmp_path / "ssh") as server:
        server.stop()
        server.configuration.write_text(server.configuration.read_text().replace("Subsystem sftp internal-sftp", ""))
        server.start()
        async with server.device().session() as session:
            with pytest.raises(
                errors.HarnessError, match=r"box: push: its SSH server has no SFTP .*Subsystem sftp internal-sftp"
            ):
                await session.push(sshd.file(tmp_path / "data", b"data"))


async def test_cpus_and_space_that_the_device_lacks_are_told(server: sshd.Sshd, tmp_path: Path) -> None:
    await refused(
        server, r"box: CPUs 1023 cannot be used: \w+ \w+ \(or our cpuset\) has [0-9,-]+; mend cpus", "cpus", cpus=[1023]
    )
    await refused(server, r"\d+ bytes are free at .*, fewer than minimum_free", "minimum_free", minimum_free="1000000TiB")
    (tmp_path / "file").write_text("")
    await refused(server, "file is no directory and cannot be written to", "directory", directory=str(tmp_path / "file"))
    await refused(
        server, "box: /proc cannot be written to: nothing can be kept there; name another", "directory", directory="/proc/bench"
    )


async def test_a_directory_of_others_is_told(server: sshd.Sshd, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others").chmod(0o500)
    if os.access(tmp_path / "others", os.W_OK):
        pytest.skip("whoever runs this may write everywhere; needs another user than root")
    await refused(server, f"others cannot be written to by {server.user}; name", directory=str(tmp_path / "others" / "mine"))


async def test_a_directory_that_commands_could_not_name_is_told(server: sshd.Sshd, tmp_path: Path) -> None:
    with pytest.raises(errors.DeviceLostError, match=r"box: '.*/a b' has white space in it"):
        async with server.device(directory=str(tmp_path / "a b")).session():
            pass
    assert not (tmp_path / "a b").exists()


async def test_so_many_are_reached_at_once_and_no_more(
    server: sshd.Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_access, "AT_ONCE", 2)
    slow, begun, seen = (tmp_path / name for name in ("slow", "begun", "seen"))
    begun.mkdir()
    slow.write_text(
        f'#!/bin/sh\nmkdir "{begun}/$$"; sleep 0.3; ls "{begun}" | wc -l >> "{seen}"; rmdir "{begun}/$$"; exec python3 "$@"\n'
    )
    slow.chmod(0o755)
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(server.device(f"box-{number}", python=str(slow)).reach)

    counts = [int(line) for line in seen.read_text().split()]
    assert len(counts) == 6
    assert max(counts) <= 2
