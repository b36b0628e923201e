from __future__ import annotations

import io
import json
import logging

import hypothesis
import hypothesis.strategies as st
import pytest
import structlog

from aibenchd import logs, redaction


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", {})


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer s3cr3t-value",
        "authorization: bearer s3cr3t-value",
        "Authorization: Basic s3cr3t0value=",
        "https://oauth2:s3cr3t-value@host/repo.git",
        "https://s3cr3t-value@host/repo.git",
        "GET /x?access_token=s3cr3t-value&page=2",
        '{"access_token": "s3cr3t-value|42", "logs": []}',
        r'"{\"access_token\": \"s3cr3t-value\"}"',
        "API_KEY='s3cr3t-value'",
        "MY_PASSWORD=s3cr3t-value",
        "client_secret: s3cr3t-value",
        "https://host/net.onnx?X-Amz-Expires=60&X-Amz-Signature=s3cr3t0",  # an address that is a key by itself
        "https://host/net.onnx?sv=2024&sig=s3cr3t%2Bvalue&se=2026 answers 403",
        "generator fetch.sh 'https://host/net?Signature=s3cr3t-value&Expires=1'",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    masked = redaction.text(text)
    assert redaction.MASK in masked
    assert "s3cr3t" not in masked
    assert redaction.text(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "token_file: /etc/aibenchd/token",
        "git@host:group/project.git",
        "the token was refused",
        "https://host:8080/a@b",
        "p50=1",
        "no signature=x here",
        "x?design=1",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert redaction.text(text) == text


def test_registered_secret_is_masked_wherever_it_stands() -> None:
    redaction.register("correct horse")
    assert redaction.text("fatal: correct horse: not found") == f"fatal: {redaction.MASK}: not found"


def test_short_text_is_not_registered() -> None:
    redaction.register("in")
    assert redaction.text("lines in files") == "lines in files"


def test_registered_secrets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "SECRETS_BOUND", 3)
    for number in range(10):
        redaction.register(f"secret number {number}")
    assert "secret number 9" not in redaction.text("secret number 9")
    assert len(redaction._secrets) == 3


@hypothesis.given(
    st.recursive(
        st.just("a hidden word") | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3) | st.tuples(inner),
        max_leaves=8,
    )
)
def test_no_depth_hides_a_secret(value: object) -> None:
    redaction.register("hidden word")
    event = redaction.processor(None, "info", {"event": "x", "value": value})
    assert "hidden" not in repr(event)


def test_values_of_secret_keys_are_masked() -> None:
    event = redaction.processor(
        None, "info", {"event": "x", "headers": {"Authorization": "abc", "x-api-key": "abc"}, "token": "abc"}
    )
    assert "abc" not in repr(event)


def test_objects_are_masked_as_their_text() -> None:
    class Thing:
        def __repr__(self) -> str:
            return "Thing(password=abc)"

    event = redaction.processor(
        None, "info", {"event": "x", "thing": Thing(), "error": OSError("token=abc"), "raw": b"secret=abc"}
    )
    assert "abc" not in repr(event)


def test_log_lines_hold_no_secret_in_tracebacks_either() -> None:
    before = structlog.get_config()
    stream = io.StringIO()
    redaction.register("hunter2hunter2")
    try:
        logs.configure(stream)
        try:
            int("https://me:hunter2hunter2@host")
        except ValueError:
            structlog.get_logger().exception("failed with hunter2hunter2", url="https://me:other-word@host")
    finally:
        structlog.configure(**before)
    line = json.loads(stream.getvalue())
    assert "ValueError" in line["exception"]
    assert "hunter2" not in stream.getvalue()
    assert "other-word" not in stream.getvalue()


def test_what_libraries_log_is_of_the_same_form_and_holds_no_secret() -> None:
    before = structlog.get_config()
    stream = io.StringIO()
    try:
        logs.configure(stream)
        try:
            int("token=abcdef")
        except ValueError:
            logging.getLogger("some.library").exception("failed at %s", "token=abcdef")
    finally:
        structlog.configure(**before)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("failed at token=[redacted]", "error", "some.library")
    assert "ValueError" in line["exception"]
    assert "abcdef" not in stream.getvalue()
