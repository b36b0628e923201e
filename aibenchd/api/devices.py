"""What people see of devices: what each is and does, how much waits for it, and how noisy its benchmarks are."""

from __future__ import annotations

from aibenchd.api import screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def devices(out: screen.Screen, answer: dict[str, Any]) -> None:
    """What each is and how it is; then what about them makes figures vary."""
    items = answer["devices"]
    head = ("device", "kind", "hash", "abi", "os", "state", "since", "health", "finds", "queue", "left", "last block", "doing")
    rows = [
        (
            item["name"],
            item["kind"],
            item["hash"],
            item["abi"],
            item["model"] or item["os"],
            item["state"],
            out.ago(item["since"]),
            item["health"],
            _smallest(item["smallest"]),
            str(_queue(item)),
            busy_for(item),
            out.ago(item["last_block"] and item["last_block"]["finished_at"]),
            out.said(item["reason"]),
        )
        for item in items
    ]
    out.table(head, rows, [screen.style_of(item) for item in items])
    for item in items:
        for advice in item["advice"]:
            out.line(f"{item['name']}: {out.said(advice)}", "dim")


def _queue(device: dict[str, Any]) -> int:
    """How many of its experiments are not decided."""
    undecided: int = device["experiments"].get("waiting", 0) + device["experiments"].get("open", 0)
    return undecided


def busy_for(device: dict[str, Any]) -> str:
    """How long its queue is expected to take, as ``about 12 blocks, 4m``; of how many, where that is not known of all."""
    left = device["left"]
    if left is None:
        return ""
    part = "" if left["experiments"] == _queue(device) else f" for {left['experiments']} of {_queue(device)}"
    return screen.left(left["blocks"], left["seconds"]) + part


def _smallest(smallest: list[float | None] | None) -> str:
    """The smallest change that is found, of the quietest and of the noisiest benchmark."""
    if smallest is None:
        return ""
    named = dict.fromkeys("none" if one is None else f"{one:.1%}" for one in smallest)
    return " … ".join(named)


def noise(out: screen.Screen, answer: dict[str, Any]) -> None:
    """How noisy benchmarks are, by device."""
    items = answer["noise"]
    head = ("repository", "device", "benchmark", "backend", "finds", "noise", "second slot", "blocks", "when", "decided on")
    rows = [
        (
            item["repository"],
            item["device"],
            item["identifier"],
            item["backend"],
            "?" if item["scale"] is None else _smallest([item["smallest"]]),
            "" if item["scale"] is None else f"{item['scale']:.2%}",
            _slot(item),
            str(item["blocks"]),
            out.ago(item["measured_at"]),
            item["decided_on"],
        )
        for item in items
    ]
    out.table(head, rows)
    if items:
        out.line("finds: the smallest change that is found within the budget; noise: of the ratio, from block to block", "dim")


def _slot(item: dict[str, Any]) -> str:
    if item["slot"] is None:
        return ""
    ends = (item["slot_low"], item["slot_high"])
    return f"{item['slot']:+.2%}" + ("" if None in ends else f" ({ends[0]:+.2%} … {ends[1]:+.2%})")


def at_work(out: screen.Screen, answer: dict[str, Any]) -> None:
    """Devices as ``status`` has them: what each is doing, and how much waits for it."""
    items = answer["devices"]
    head = ("device", "kind", "state", "since", "waiting", "open", "left", "doing")
    rows = [
        (
            item["name"],
            item["kind"],
            item["state"],
            out.ago(item["since"]),
            str(item["experiments"].get("waiting", 0)),
            str(item["experiments"].get("open", 0)),
            busy_for(item),
            out.said(item["reason"]),
        )
        for item in items
    ]
    out.table(head, rows, [screen.style_of(item) for item in items])
