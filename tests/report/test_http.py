from __future__ import annotations

import contextlib
import email.utils
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydantic
import pytest
import receiver as receivers
import trustme

from aibenchd import errors, model, redaction
from aibenchd.report import base, http

Make = Callable[..., list[model.Record]]


def settings(**keys: object) -> http.Http.Settings:
    return http.Http.Settings.model_validate({"name": "sink", "kind": "http", "timeout": "20s", **keys})


@contextlib.asynccontextmanager
async def opened(receiver: receivers.Receiver, **keys: object) -> AsyncIterator[base.Outlet]:
    async with http.Http(settings(**{"url": receiver.url, **keys}), Path("/")).outlet() as outlet:
        yield outlet


async def answer_to(receiver: receivers.Receiver, made: Make, answer: object, **keys: object) -> base.Delivery:
    receiver.answer = lambda request: answer
    async with opened(receiver, **keys) as outlet:
        return await outlet.deliver(made(2))


async def test_records_arrive_whole_with_their_key(receiver: receivers.Receiver, made: Make) -> None:
    assert await answer_to(receiver, made, 200) == base.Delivery(base.Answer.DONE)
    (request,) = receiver.requests
    assert request.records == [record.payload for record in made(2)]
    assert request.key == http.idempotency_key(made(2))
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-encoding"] == "gzip"


async def test_large_batches_arrive_whole(receiver: receivers.Receiver, made: Make) -> None:
    records = made(50, padding=5_000)
    async with opened(receiver) as outlet:
        await outlet.deliver(records)
        await outlet.deliver(records)
    assert receiver.requests[1].ids == [record.id for record in records]
    assert receiver.requests[0].key == receiver.requests[1].key


def test_key_is_of_the_records_in_their_order(made: Make) -> None:
    keys = {http.idempotency_key(records) for records in (made(2), made(3), made(2)[::-1], made(2, "samples"))}
    assert len(keys) == 4
    assert http.idempotency_key(made(2)) in keys


async def test_bodies_go_as_they_are_where_asked(receiver: receivers.Receiver, made: Make) -> None:
    await answer_to(receiver, made, 200, compress=False, headers={"X-Lab": "seven"})
    assert "content-encoding" not in receiver.requests[0].headers
    assert receiver.requests[0].headers["x-lab"] == "seven"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *((status, base.Answer.DONE) for status in (200, 201, 202, 204)),
        *((status, base.Answer.AGAIN) for status in (408, 409, 425, 429, 500, 502, 503, 504, 599)),
        *((status, base.Answer.PAUSED) for status in (301, 302, 307, 308, 401, 403, 404, 405, 410, 415, 451)),
        (413, base.Answer.TOO_LARGE),
        (400, base.Answer.REFUSED),
        (422, base.Answer.REFUSED),
        ("truncate", base.Answer.AGAIN),
        ("reset", base.Answer.AGAIN),
        (receivers.Reply(200, body=b'{"accepted": 1}'), base.Answer.AGAIN),
        (receivers.Reply(200, body=b'{"accepted": 2}'), base.Answer.DONE),
        (receivers.Reply(200, body=b"x" * (1 << 20)), base.Answer.DONE),
    ],
)
async def test_what_answers_mean(receiver: receivers.Receiver, made: Make, answer: object, expected: base.Answer) -> None:
    assert (await answer_to(receiver, made, answer)).answer is expected


async def test_who_is_not_let_in_for_a_while_is_told_for_how_long(receiver: receivers.Receiver, made: Make) -> None:
    delivery = await answer_to(receiver, made, receivers.Reply(403, {"Retry-After": "30"}))
    assert (delivery.answer, delivery.retry_after) == (base.Answer.PAUSED, 30.0)


@pytest.mark.parametrize(
    ("status", "has_token", "advice"),
    [
        (401, True, "renew the token in {token}, then 'aibenchctl reload'"),
        (403, True, "renew the token in {token}, then 'aibenchctl reload'"),
        (401, False, "give it a token_file with a token that may write there, then 'aibenchctl reload'"),
        (404, True, "mend its url, then 'aibenchctl reload'"),
    ],
)
async def test_what_a_person_must_mend_is_said(
    receiver: receivers.Receiver, made: Make, tmp_path: Path, status: int, has_token: bool, advice: str
) -> None:
    token = tmp_path / "dashboard.token"
    token.touch(0o600)
    token.write_text("s3cret-of-the-lab")
    said = await answer_to(receiver, made, status, **({"token_file": str(token)} if has_token else {}))
    assert said.reason.startswith(f"{status} ")
    assert said.reason.endswith(f"; {advice.format(token=token)}")
    assert "s3cret" not in said.reason
    assert redaction.text(said.reason) == said.reason


async def test_no_answer_in_time_is_again(receiver: receivers.Receiver, made: Make) -> None:
    delivery = await answer_to(receiver, made, "hang", timeout="50ms")
    assert delivery.answer is base.Answer.AGAIN
    assert delivery.reason.startswith("no answer")


async def test_nobody_there_is_again(made: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with http.Http(settings(url=f"http://127.0.0.1:{port}"), Path("/")).outlet() as outlet:
        delivery = await outlet.deliver(made(1))
    assert delivery.answer is base.Answer.AGAIN
    assert delivery.reason.startswith("no answer: ")


async def test_nonsense_for_an_answer_is_again(made: Make) -> None:
    import asyncio

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with http.Http(settings(url=f"http://127.0.0.1:{port}"), Path("/")).outlet() as outlet:
            assert (await outlet.deliver(made(1))).answer is base.Answer.AGAIN


@pytest.mark.parametrize(("header", "least", "most"), [("7", 7, 7), ("0", 0, 0), ("date", 100, 121), ("past", 0, 0)])
async def test_retry_after_is_read(receiver: receivers.Receiver, made: Make, header: str, least: float, most: float) -> None:
    now = datetime.now(UTC)
    dates = {"date": now + timedelta(seconds=120), "past": now - timedelta(days=1)}
    value = email.utils.format_datetime(dates[header], usegmt=True) if header in dates else header
    delivery = await answer_to(receiver, made, receivers.Reply(503, {"Retry-After": value}))
    assert delivery.retry_after is not None
    assert least <= delivery.retry_after <= most


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "", "\u00b2"])
async def test_retry_after_that_does_not_read_is_none(receiver: receivers.Receiver, made: Make, value: str) -> None:
    delivery = await answer_to(receiver, made, receivers.Reply(429, {"Retry-After": value}))
    assert delivery == base.Delivery(base.Answer.AGAIN, "429 So")


async def test_reason_says_where_a_redirect_points(receiver: receivers.Receiver, made: Make) -> None:
    delivery = await answer_to(receiver, made, receivers.Reply(308, {"Location": "https://elsewhere/records"}))
    assert "https://elsewhere/records" in delivery.reason
    assert len(receiver.requests) == 1


async def test_reason_is_one_line_of_the_reply_without_secrets(receiver: receivers.Receiver, made: Make, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("long-secret-token")
    body = b"record 2:\n\x1b[31mno long-secret-token here " + b"x" * 10_000
    delivery = await answer_to(receiver, made, receivers.Reply(400, body=body), token_file=str(token))
    assert delivery.reason.startswith("400 So: record 2: [31mno [redacted] here")
    assert delivery.reason.isprintable()
    assert len(delivery.reason) <= http.EXCERPT


async def test_token_is_read_anew_for_each_batch(receiver: receivers.Receiver, made: Make, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    receiver.answer = lambda request: 200 if request.headers["authorization"] == "Bearer second-token" else 401
    token.write_text("first-token\n")
    async with opened(receiver, token_file=str(token)) as outlet:
        delivery = await outlet.deliver(made(1))
        assert delivery.answer is base.Answer.PAUSED
        assert "first-token" not in delivery.reason
        token.write_text("second-token\n")
        assert (await outlet.deliver(made(1))).answer is base.Answer.DONE


async def test_what_was_made_ready_is_sent_and_nothing_else(
    receiver: receivers.Receiver, verdicts: list[model.Record], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("first-token\n")
    receiver.answer = lambda request: receivers.Reply(200, body=b'{"count": %d}' % len(json.loads(request.json["logs"])))
    async with opened(receiver, url=f"{receiver.url}|perf", format="faipep", token_file=str(token)) as outlet:
        await outlet.prepare(verdicts)
        await outlet.deliver(list(verdicts))
        await outlet.prepare(verdicts[:1])
        await outlet.deliver(verdicts[1:])
        await outlet.prepare(verdicts)
        token.write_text("second-token\n")  # renewed since
        await outlet.deliver(verdicts)
    assert [len(json.loads(request.json["logs"])) for request in receiver.requests] == [2, 1, 2]
    assert [request.json["access_token"] for request in receiver.requests] == ["first-token"] * 2 + ["second-token"]
    assert receiver.requests[0].key != receiver.requests[1].key


async def test_token_that_cannot_be_read_says_so(receiver: receivers.Receiver, made: Make, tmp_path: Path) -> None:
    with pytest.raises(errors.CredentialError, match="No such file"):
        await answer_to(receiver, made, 200, token_file=str(tmp_path / "missing"))
    assert not receiver.requests


@pytest.mark.parametrize("key", ["token_file", "url_file"])
async def test_a_secret_that_cannot_be_read_is_told_before_there_is_anything_to_deliver(
    receiver: receivers.Receiver, tmp_path: Path, key: str
) -> None:
    where = {"url": ""} if key == "url_file" else {}
    with pytest.raises(errors.CredentialError, match="No such file"):
        async with opened(receiver, **where, **{key: str(tmp_path / "missing")}):
            pass


async def test_faipep_gets_its_payload_and_its_token_in_it(
    receiver: receivers.Receiver, verdicts: list[model.Record], made: Make, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("long-secret-token")
    receiver.answer = lambda request: receivers.Reply(200, body=b'{"count": %d}' % len(json.loads(request.json["logs"])))
    async with opened(receiver, url=f"{receiver.url}|perf", format="faipep", token_file=str(token)) as outlet:
        assert (await outlet.deliver([*made(1, "samples"), *verdicts])).answer is base.Answer.DONE
        assert (await outlet.deliver(made(2, "samples"))).answer is base.Answer.DONE
    (request,) = receiver.requests
    assert request.target == "/records"
    assert request.json["access_token"] == "long-secret-token"
    assert "authorization" not in request.headers
    assert {log["category"] for log in json.loads(request.json["logs"])} == {"perf"}


async def test_faipep_needs_the_count(receiver: receivers.Receiver, verdicts: list[model.Record]) -> None:
    async with opened(receiver, url=f"{receiver.url}|perf", format="faipep") as outlet:
        assert (await outlet.deliver(verdicts)).answer is base.Answer.AGAIN


async def test_certificates_are_verified(made: Make, tmp_path: Path) -> None:
    right, wrong = trustme.CA(), trustme.CA()
    right.cert_pem.write_to_path(str(tmp_path / "right.pem"))
    wrong.cert_pem.write_to_path(str(tmp_path / "wrong.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    right.issue_cert("127.0.0.1").configure_cert(tls)
    async with receivers.Receiver().listening(tls) as receiver:
        for keys in ({"ca_file": str(tmp_path / "wrong.pem")}, {}):
            delivery = await answer_to(receiver, made, 200, **keys)
            assert delivery.answer is base.Answer.PAUSED
            assert "certificate does not verify" in delivery.reason
        assert not receiver.requests
        assert (await answer_to(receiver, made, 200, ca_file=str(tmp_path / "right.pem"))).answer is base.Answer.DONE
        named = receiver.url.replace("127.0.0.1", "localhost")
        delivery = await answer_to(receiver, made, 200, url=named, ca_file=str(tmp_path / "right.pem"))
        assert delivery.answer is base.Answer.PAUSED


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_certificates_that_do_not_read_say_so(made: Make, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.SinkError, match=re.escape(str(path))):
        async with http.Http(settings(url="https://127.0.0.1", ca_file=str(path)), Path("/")).outlet():
            pass


async def test_environment_names_no_proxy(receiver: receivers.Receiver, made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (await answer_to(receiver, made, 200)).answer is base.Answer.DONE


async def test_proxy_is_used_where_one_is_named(receiver: receivers.Receiver, made: Make) -> None:
    delivery = await answer_to(receiver, made, 200, url="http://elsewhere.invalid/records", proxy=receiver.url)
    assert delivery.answer is base.Answer.DONE
    assert receiver.requests[0].target == "http://elsewhere.invalid/records"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"url": "ftp://host/x"}, "https://host/path"),
        ({"url": "host/x"}, "https://host/path"),
        ({"url": "http://"}, "https://host/path"),
        ({"url": "http://[::1"}, "Invalid IPv6"),
        ({"url": "http://host:99999/"}, "out of range"),
        ({"url": "http://host/#x"}, "fragment"),
        ({"url": "http://host/a b"}, "spaces"),
        ({"url": "https://me:hunter2@host/x"}, "token_file"),
        ({"url": "https://host/x?access_token=hunter2"}, "token_file"),
        ({"url": "https://host/x|perf"}, "no categories"),
        ({"url": "https://host/x", "format": "faipep"}, "category"),
        ({"url": "https://host/x", "format": "xml"}, "none of the installed kinds of formats"),
        ({"url": "https://host/x", "headers": {"Authorization": "hunter2"}}, "token_file"),
        ({"url": "https://host/x", "headers": {"X-Token": "Bearer hunter2"}}, "token_file"),
        ({"url": "https://host/x", "headers": {"X Y": "z"}}, "X Y"),
        ({"url": "https://host/x", "headers": {"X": "a\r\nY: b"}}, "printable"),
        ({"url": "http://host/x", "token_file": "/token"}, "in the clear"),
        ({"url": "https://host/x", "timeout": "0s"}, "timeout"),
        ({"url": "https://host/x", "batch_records": 0}, "batch_records"),
        ({"url": "https://host/x", "batch": 3}, "batch"),
    ],
)
def test_settings_say_what_is_wrong(keys: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(message)) as caught:
        settings(**keys)
    assert "hunter2" not in "".join(str(error["msg"]) for error in caught.value.errors())
