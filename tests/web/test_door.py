"""Who may look, who may change things, and what another site can make a browser do: nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import anyio.to_thread
import pastweeks
import pytest
import statusd

from aibenchd import errors, settings
from aibenchd.api import peers, server
from aibenchd.store import finding_views

TOKEN = "correct-horse-battery-staple"
NOBODY = 65534


async def key(client: aiohttp.ClientSession, url: str) -> str:
    """Of the first form of a page."""
    async with client.get(url) as reply:
        found = re.search(r'name="key" value="(\w+)"', await reply.text())
    assert found
    return found.group(1)


async def post(client: aiohttp.ClientSession, url: str, form: dict[str, str], **headers: str) -> tuple[int, str]:
    async with client.post(url, data=form, headers=headers, allow_redirects=False) as reply:
        return reply.status, reply.headers.get("Location", "") or await reply.text()


async def triage_of(dashboard: pastweeks.Dashboard) -> Any:
    found = await dashboard.house.store.read(lambda connection: finding_views.finding(connection, 1))
    return found and found["triage"]


async def test_a_form_of_ours_is_obeyed(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    form = {"key": await key(client, f"{dashboard.url}/findings/1"), "action": "acknowledge"}
    answer = await post(
        client, f"{dashboard.url}/findings/1/triage", form, Origin=dashboard.url, **{"Sec-Fetch-Site": "same-origin"}
    )
    assert answer == (303, "/findings/1")
    assert await triage_of(dashboard) == "acknowledged"


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        ({"key": ""}, {}),
        ({"key": "0" * 64}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Origin": "null"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
        ({}, {"Sec-Fetch-Site": "same-site"}),
    ],
)
async def test_a_form_of_another_site_changes_nothing(
    dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession, change: dict[str, str], headers: dict[str, str]
) -> None:
    form = {"key": await key(client, f"{dashboard.url}/findings/1"), "action": "acknowledge"} | change
    code, text = await post(client, f"{dashboard.url}/findings/1/triage", form, **headers)
    assert code == 403
    assert "not of a page of ours" in text
    assert await triage_of(dashboard) == ""


async def test_the_key_of_another_browser_is_none(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as other:
        theirs = await key(other, f"{dashboard.url}/findings/1")
    await key(client, f"{dashboard.url}/findings/1")
    code, _ = await post(client, f"{dashboard.url}/findings/1/triage", {"key": theirs, "action": "acknowledge"})
    assert code == 403


async def test_another_name_of_this_host_is_not_answered(dashboard: pastweeks.Dashboard, client: aiohttp.ClientSession) -> None:
    for path in ("/", "/v1/status", "/metrics"):
        async with client.get(dashboard.url + path, headers={"Host": "rebound.example:80"}) as reply:
            assert reply.status == 421
    async with client.get(dashboard.url, headers={"Host": "localhost:1234"}) as reply:
        assert reply.status == 200


POSTS = """
import encodings.idna, http.cookiejar, os, re, sys, urllib.error, urllib.parse, urllib.request
url, user = sys.argv[1], int(sys.argv[2])
os.setgroups([]); os.setgid(user); os.setuid(user)
cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
page = opener.open(url + "/findings/1").read().decode()
key = re.search('name="key" value="([0-9a-f]+)"', page).group(1)
form = urllib.parse.urlencode({"key": key, "action": "acknowledge"}).encode()
try:
    opener.open(url + "/findings/1/triage", form)
except urllib.error.HTTPError as error:
    print(error.code, re.sub("<.*?>", "", error.read().decode()))
"""


async def test_who_is_no_operator_may_look_and_not_touch(dashboard: pastweeks.Dashboard) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    argv = [sys.executable, "-I", "-c", POSTS, dashboard.url, str(NOBODY)]
    done = await anyio.to_thread.run_sync(lambda: subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/"))
    assert done.stdout.startswith("403 "), done.stderr
    assert "nobody may not change anything here" in done.stdout
    assert await triage_of(dashboard) == ""


async def test_with_a_token_nothing_is_seen_without_it(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    async with pastweeks.serving(tmp_path, token) as dashboard:
        async with client.get(f"{dashboard.url}/findings?state=open", allow_redirects=False) as reply:
            assert (reply.status, reply.headers["Location"]) == (303, "/sign-in?to=/findings?state%3Dopen")
        for path in ("/v1/status", "/metrics"):
            async with client.get(dashboard.url + path, headers={"Accept": "*/*"}) as reply:
                assert reply.status == 401
            async with client.get(dashboard.url + path, headers={"Accept": "*/*", "Authorization": f"Bearer {TOKEN}"}) as reply:
                assert reply.status == 200
        assert (await post(client, f"{dashboard.url}/sign-in", {"name": "kim", "token": "guess"}))[0] == 403
        assert (await post(client, f"{dashboard.url}/findings/1/triage", {"action": "acknowledge"}))[0] == 401
        form = {"name": "kim", "token": TOKEN, "to": "/findings/1"}
        assert await post(client, f"{dashboard.url}/sign-in", form) == (303, "/findings/1")
        made = {"key": await key(client, f"{dashboard.url}/findings/1"), "action": "accept", "why": "worth it"}
        assert (await post(client, f"{dashboard.url}/findings/1/triage", made))[0] == 303
        found = await dashboard.house.store.read(lambda connection: finding_views.finding(connection, 1))
        assert found is not None
        assert [(one["by"], one["why"]) for one in found["triages"]] == [("kim", "worth it")]
        out = {"key": await key(client, f"{dashboard.url}/findings/1")}
        assert (await post(client, f"{dashboard.url}/sign-out", out))[0] == 303
        async with client.get(dashboard.url, allow_redirects=False) as reply:
            assert reply.status == 303


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_nobody_is_sent_elsewhere(tmp_path: Path, client: aiohttp.ClientSession, to: str) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    async with pastweeks.serving(tmp_path, token) as dashboard:
        assert await post(client, f"{dashboard.url}/sign-in", {"name": "kim", "token": TOKEN, "to": to}) == (303, "/")


async def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("short")
    token.chmod(0o600)
    async with statusd.serving(tmp_path) as daemon:
        daemon.configure(dashboard=settings.DashboardSettings(listen="127.0.0.1:0", token_file=token))
        with pytest.raises(errors.CredentialError, match="fewer than 16 characters can be guessed"):
            await server.serve(daemon.house, tmp_path / "other.sock")


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "lab.example.org:8080", "192.0.2.1:80"])
def test_what_others_can_reach_needs_a_token(listen: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can be reached from elsewhere"):
        settings.DashboardSettings(listen=listen)
    assert settings.DashboardSettings(listen=listen, token_file=tmp_path).listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "127.8.8.8:1", ""])
def test_loopback_needs_none(listen: str) -> None:
    assert settings.DashboardSettings(listen=listen).listen == listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_knows_whose_a_connection_within_this_host_is(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this host has no {host}")
    with listening, socket.create_connection(listening.getsockname()[:2]) as client:
        accepted, there = listening.accept()
        with accepted:
            peer = peers.on_this_host(accepted.getsockname()[:2], there[:2])
            assert peer is not None
            assert peer.uid == os.getuid()
            assert peers.on_this_host(accepted.getsockname()[:2], (host, client.getsockname()[1] ^ 1)) is None
