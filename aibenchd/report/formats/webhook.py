"""Format ``webhook``: what people should know of a finding, one message each, as JSON of a template.

A message is sent when a regression is *confirmed*: measured again independently, and chosen among all suspects of its commit.
With ``on`` also when its search has named the commits at fault (``culprit``), when a later commit shows it to be gone
(``mended``), and when somebody takes it for the new baseline (``accepted``). What shows the same again is a sighting of the
open finding, and no message. Where the finding is of one commit alone, its search ends at once, with that one: a message by
``culprit``, unless ``confirmed`` has named it already.

The template's texts hold ``{placeholders}``, a brace of its own is written twice. A text that is one placeholder and nothing
else becomes its value, a number or a list where it is one. The default is what Slack, Mattermost and Teams take.

====================== ==============================================================================================
``message``            what follows in a few lines, for people; ``headline`` its first one, ``link`` its last
``event``              ``confirmed``, ``culprit``, ``mended`` or ``accepted``
``finding``            its number; ``link``: with the base address before it, empty where none is configured
``repository``         its name; ``commit``, ``control_commit``, and ``short_commit``, 12 digits of the first
``author``             of the commit; ``subject``: the first line of its message
``commits``            which commits it may be, with their subjects and authors: that one; how many came since the last that was
                       measured, and the newest of them; or, once a search has ended, those that it has named, a line each
``benchmark``          identifier; ``model``, ``device``, ``backend``, ``metric`` (``NET latency``)
``verdict``            ``regressed`` or ``broken``, ``reason`` where the numbers do not say it
``effect``             ``+5.2% [+4.8%, +5.6%]``: treatment / control - 1 of what measured it again, with ``in the tail`` where
                       it is of the slow iterations alone; ``estimate``, ``low``, ``high`` are its numbers
``operators``          what explains it, the largest change first, with their shares of it
``e_value``            of the evidence against no regression; ``promise``: how seldom what is confirmed is none
``culprits``           commits that the search has named, with their probabilities; ``mended``: the commit that shows it gone
``by``, ``why``        who accepted it, and why
``time``               ISO 8601, UTC; ``id`` of the message, the same when it is sent again
``token``              what ``token_file`` holds, for receivers that want a key in the body; then it is in no header
====================== ==============================================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
import pydantic_core

from aibenchd import faults, model
from aibenchd.report import base

SHORT = 12  # digits of a commit
OF_RECORD = (
    *("event", "finding", "repository", "commit", "control_commit", "author", "subject", "benchmark", "model", "device"),
    *("backend", "metric", "verdict", "reason", "estimate", "low", "high", "e_value", "promise", "mended", "by", "why", "time"),
    "id",
)
COMPOSED = ("message", "headline", "link", "short_commit", "effect", "operators", "culprits", "commits", "token")
WRITTEN = ("author", "subject", "benchmark", "model", "metric", "reason", "by", "why")  # by anyone who may push

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CALLS = re.compile(r"@(?=(?:all|channel|everyone|here)\b)")


def is_link(value: str) -> str:
    """The beginning of a finding's address, which its number is put behind; raises ValueError where it is none."""
    if value and not re.fullmatch(r"https?://[!-~]+", value):
        raise ValueError("expected an address that a finding's number is put behind, such as https://host/findings/")
    return value


Link = Annotated[str, pydantic.AfterValidator(is_link)]


class Webhook(base.Format):
    """Alerts, each a request of its own."""

    wants = "alerts"
    most = 1
    compressible = False

    class Settings(base.FormatSettings):
        on: Annotated[
            tuple[Literal["confirmed", "culprit", "mended", "accepted"], ...],
            pydantic.Field(description="when a message is sent: of a finding that is confirmed, and what comes of it"),
        ] = ("confirmed",)
        link: Annotated[Link, pydantic.Field(description="address that a finding's number is put behind; empty: no links")] = ""
        template: Annotated[
            dict[str, pydantic.JsonValue],
            pydantic.Field(
                default_factory=lambda: {"text": "{message}"}, min_length=1, description="the message; texts hold {placeholders}"
            ),
        ]
        markup: Annotated[
            bool,
            pydantic.Field(
                description="the receiver reads & < > and @all: those that a commit or a specification says are escaped"
            ),
        ] = True

        @pydantic.field_validator("template")
        @classmethod
        def _is_known(cls, value: dict[str, pydantic.JsonValue]) -> dict[str, pydantic.JsonValue]:
            bad = [_error(place, message) for place, text in _texts(value) for message in _mistakes(text)]
            if bad:
                raise pydantic.ValidationError.from_exception_data("template", bad)
            return value

    settings: Settings

    def __init__(self, settings: base.FormatSettings, category: str = "") -> None:
        super().__init__(settings, category)
        self.token_in_body = any("{token}" in text for _, text in _texts(self.settings.template))

    def accepts(self, record: model.Record) -> bool:
        return record.kind == "alert" and record.payload["event"] in self.settings.on and not self._named(record.payload)

    def _named(self, payload: Mapping[str, Any]) -> bool:
        """Whether it names the one commit of which another message of this sink has said that it is at fault."""
        return payload["event"] == "culprit" and payload.get("searched") == 1 and "confirmed" in self.settings.on

    def body(self, records: Sequence[model.Record], token: str) -> bytes:
        own = self.settings
        values = placeholders(records[0].payload, own.link, _escaped if own.markup else str) | {"token": token}
        return json.dumps(_filled(own.template, values)).encode()


def placeholders(payload: Mapping[str, Any], link: str, escaped: Callable[[str], str]) -> dict[str, Any]:
    """What each placeholder stands for, but for the token."""
    written = {name: escaped(payload.get(name, "")) for name in WRITTEN}  # records of an older version lack some
    told = {**{name: payload.get(name, "") for name in OF_RECORD}, **written}
    told |= {
        "short_commit": payload["commit"][:SHORT],
        "effect": _effect(payload),
        "operators": escaped(_operators(payload)),
        "culprits": _culprits(payload),
        "commits": escaped(_commits(payload)),
        "link": f"{link}{payload['finding']}" if link else "",
    }
    headline = _HEADLINES[payload["event"]](told)
    return told | {"headline": headline, "message": "\n".join([headline, *_more(told)])}


def _confirmed(told: Mapping[str, Any]) -> str:
    return (
        f"{_where(told)} {told['verdict']} at {told['short_commit']}: {told['metric']} {told['effect'] or told['reason']}".strip()
    )


def _culprit(told: Mapping[str, Any]) -> str:
    return f"{_where(told)}: what {told['verdict']} at {told['short_commit']} comes from {told['culprits']}"


def _mended(told: Mapping[str, Any]) -> str:
    return f"{_where(told)} is mended at {told['mended'][:SHORT]}: what {told['verdict']} at {told['short_commit']} is gone"


def _accepted(told: Mapping[str, Any]) -> str:
    by, why = (f" {word} {told[name]}" if told[name] else "" for word, name in (("by", "by"), ("because:", "why")))
    return f"{_where(told)}: what {told['verdict']} at {told['short_commit']} is accepted as the new baseline{by}{why}"


_HEADLINES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "confirmed": _confirmed,
    "culprit": _culprit,
    "mended": _mended,
    "accepted": _accepted,
}


def _where(told: Mapping[str, Any]) -> str:
    backend = f" ({told['backend']})" if told["backend"] else ""
    return f"{told['repository']}: {told['benchmark']} on {told['device']}{backend}"


def _more(told: Mapping[str, Any]) -> Iterator[str]:
    yield told["commits"]
    if told["operators"]:
        yield f"from {told['operators']}"
    if told["e_value"] is not None:
        yield f"e-value {told['e_value']:.3g}, {told['promise']}"
    if told["link"]:
        yield told["link"]


def _effect(payload: Mapping[str, Any]) -> str:
    if payload["estimate"] is None:
        return ""
    text = f"{payload['estimate']:+.1%}"
    if payload["low"] is not None and payload["high"] is not None:
        text += f" [{payload['low']:+.1%}, {payload['high']:+.1%}]"
    return f"{text} in the tail" if payload.get("in_tail") else text


def _operators(payload: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{one['name']} {one['change']:+.3g} {payload['unit']}{_share(one['share'])}" for one in payload["operators"]
    )


def _share(share: float | None) -> str:
    return "" if share is None else f" ({share:.0%})"


def _culprits(payload: Mapping[str, Any]) -> str:
    named = (("/".join(commit[:SHORT] for commit in one["commits"]), one["probability"]) for one in payload["culprits"])
    return ", ".join(f"{commits} ({probability:.0%})" for commits, probability in named)


def _commits(payload: Mapping[str, Any]) -> str:
    named = payload.get("named") or ()
    if named:
        return "\n".join(f"{one['commit'][:SHORT]} {_written(one)}" for one in named)
    between = payload.get("between") or 1  # nothing of the kind in records of an older version
    if between == 1:
        return _written(payload)
    return f"one of {between} commits after {payload['control_commit'][:SHORT]}; the newest: {_written(payload)}"


def _written(commit: Mapping[str, Any]) -> str:
    return f"{commit['subject']} ({commit['author']})"


def _escaped(text: str) -> str:
    """As receivers with a markup show it: what is written by anyone must not call people, nor link."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _CALLS.sub("@\u200b", text)


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if not isinstance(value, str):
        return value
    alone = _PIECE.fullmatch(value)
    if alone and alone[1]:
        return values[alone[1]]
    return _PIECE.sub(lambda piece: _text(values[piece[1]]) if piece[1] else piece[0][0], value)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _texts(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """All texts of a template, with their places."""
    if isinstance(value, str):
        yield place, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in pairs:
        yield from _texts(inner, (*place, step))


def _mistakes(text: str) -> Iterator[str]:
    for piece in _PIECE.finditer(text):
        if piece[0] in ("{", "}"):
            yield f"a single {piece[0]!r} in {faults.quoted(text)}; one that is no placeholder's is written twice"
        elif piece[1] is not None and piece[1] not in (*OF_RECORD, *COMPOSED):
            yield f"there is no placeholder {faults.quoted(piece[0])}; {faults.suggestion(piece[1], (*OF_RECORD, *COMPOSED))}"


def _error(place: tuple[str | int, ...], message: str) -> pydantic_core.InitErrorDetails:
    problem = pydantic_core.PydanticCustomError("template", "{message}", {"message": message})
    return pydantic_core.InitErrorDetails(type=problem, loc=place, input=None)
