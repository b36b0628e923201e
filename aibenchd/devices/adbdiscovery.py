"""Phones that an adb server knows, as entries of a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from aibenchd import errors
from aibenchd.devices import adbphone, adbreading, base

HOST, PORT = "127.0.0.1", 5037  # adb's own; adbutils reads the same variables, and refuses a port that is none
_ADDRESS = re.compile(r".+:[0-9]{1,5}")


async def phones() -> Sequence[base.Found]:
    """One after the other, each with what it is or why it cannot be used yet.

    Raises:
        DeviceLostError: the server does not answer.
    """
    server = (os.environ.get("ANDROID_ADB_SERVER_HOST", HOST), int(os.environ.get("ANDROID_ADB_SERVER_PORT", PORT)))
    rows = await adbphone.Phone("adb", server, "", address=False).others()
    return [await _found(server, serial, state) for serial, state in rows]


async def _found(server: tuple[str, int], serial: str, state: str) -> base.Found:
    facts: Mapping[str, str] = {}
    about = adbphone.advice_on(state)
    if state == adbphone.READY:
        try:
            facts = await _facts(server, serial)
            about = " ".join(filter(None, (facts.get("model"), facts.get("os"), facts.get("abi"))))
        except errors.HarnessError as error:
            about = str(error)
    where = {"server_host": server[0], "server_port": server[1]} if server != (HOST, PORT) else {}
    key = "address" if _ADDRESS.fullmatch(serial) else "serial"
    name = base.found_name(facts.get("model", "phone"), serial)
    return base.Found({"name": name, "kind": "adb", key: serial, **where}, about or f"its state is {state}")


async def _facts(server: tuple[str, int], serial: str) -> Mapping[str, str]:
    phone = adbphone.Phone(serial, server, serial, address=False)
    await phone.find()
    answer = await phone.ask(adbreading.questions(adbreading.FACTS))
    return adbreading.facts(adbreading.answers(adbreading.FACTS, answer.text), serial)
