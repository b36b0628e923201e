"""Whether a device is fit for a block, by what was read before it; and what about it makes figures vary. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from aibenchd.devices import base

FIXED = ("performance", "userspace")  # governors that hold a frequency
HELD = "; have it held with conditioning: {governor: performance}, or with 'sudo cpupower frequency-set -g performance'"


def obstacle(wanted: base.Conditioning, state: Mapping[str, str], more_state: str = "") -> str:
    """Why no block may begin now, such as ``81 °C, begins at 70 or below``; empty where one may.

    A limit on what the device does not tell is an obstacle too: nobody could say that it was kept. ``more_state`` is the
    session's.
    """
    return next(_obstacles(wanted, state, more_state), "")


def _obstacles(wanted: base.Conditioning, state: Mapping[str, str], more_state: str) -> Iterator[str]:
    if wanted.max_temperature is not None:
        found = _number(state, "temperature")
        if math.isnan(found):
            yield base.UNTOLD.format("temperature", "max_temperature", more_state)
        elif found > wanted.max_temperature:
            yield f"{found:g} °C, begins at {wanted.max_temperature:g} or below"
    if wanted.max_load is not None:
        found = _number(state, "load")
        if math.isnan(found):
            yield base.UNTOLD.format("load", "max_load", more_state)
        elif found > wanted.max_load:
            yield f"load {found:g}, begins at {wanted.max_load:g} or below"
    if wanted.min_battery is not None:
        found = _number(state, "battery")
        if math.isnan(found):
            yield base.UNTOLD.format("battery", "min_battery", more_state)
        elif found < wanted.min_battery:
            yield f"battery at {found:g} %, begins at {wanted.min_battery:g} or above"


def _number(state: Mapping[str, str], name: str) -> float:
    try:
        return float(state.get(name, ""))
    except ValueError:
        return math.nan


def hazards(fingerprint: Mapping[str, str], state: Mapping[str, str]) -> dict[str, str]:
    """What makes figures vary more than they need to: a word or two, and a sentence with what mends it."""
    found = {}
    governor = fingerprint.get("governor", "")
    if governor and governor not in FIXED and "frequency" not in fingerprint:
        found["governor not fixed"] = f"the governor {governor} lets the frequency vary{HELD}"
    if fingerprint.get("turbo") == "on":
        found["turbo on"] = (
            "turbo is on: the frequency varies with heat and with what other cores do; switch it off with"
            " 'echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo', or with"
            " 'echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost' where that is there"
        )
    if fingerprint.get("siblings"):
        found["core shared"] = (
            f"{fingerprint['siblings']}; take cpus that are all of their cores, or switch SMT off with"
            " 'echo off | sudo tee /sys/devices/system/cpu/smt/control'"
        )
    if fingerprint.get("swap"):
        found["swap on"] = f"memory can be swapped out to {fingerprint['swap']}; switch it off with 'sudo swapoff -a'"
    if fingerprint.get("persistence") == "off":
        found["persistence off"] = (
            "the driver lets go of the GPU between programs, and each starts it anew; have it kept with 'sudo nvidia-smi -pm 1'"
        )
    if state.get("processes"):
        found["GPU shared"] = f"other programs compute on the GPU: {state['processes']}; end them, or choose another GPU"
    if state.get("throttled"):
        found["throttled"] = (
            f"it runs slower than it could: {state['throttled']}; cool it, lower its frequency with conditioning.frequency, or"
            " have blocks wait with conditioning.max_temperature"
        )
    return found
