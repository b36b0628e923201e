"""``aibenchctl names``: names of what there is, as completion asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from aibenchd.api import call

SECONDS = 3.0  # that a person who pressed the tabulator waits at most
PLACES = {  # where names are: the question, the list in the answer, and the key of its items
    "devices": ("/v1/devices", "devices", "name"),
    "repositories": ("/v1/status", "repositories", "name"),
    "benchmarks": ("/v1/coverage", "coverage", "benchmark"),
    "models": ("/v1/coverage", "coverage", "model"),
    "cells": ("/v1/coverage", "coverage", "column"),
    "sinks": ("/v1/sinks", "sinks", "name"),
    "experiments": ("/v1/experiments", "experiments", "id"),
    "findings": ("/v1/findings", "findings", "id"),
    "builds": ("/v1/builds", "builds", "id"),
    "requests": ("/v1/requests", "requests", "id"),
}


def of(daemon: call.Daemon, kind: str) -> Iterator[str]:
    """Each once, in the daemon's order; of what has a number the newest, as many as its list shows.

    Args:
        kind: one of :data:`PLACES`.

    Raises:
        call.Refused, call.Unreachable: the daemon will not, or does not answer.
    """
    target, section, key = PLACES[kind]
    answer = json.loads(b"".join(daemon.stream("GET", target, seconds=SECONDS)))
    yield from dict.fromkeys(str(item[key]) for item in answer[section])
