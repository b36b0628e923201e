from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from aibenchd import model
from aibenchd.report import base, local

PLACE = "host/pytorch/squeezenet/delay/squeeze_1~{digest}/2026/3/3/" + "a" * 40 + "/12"


async def deliver(kind: type[base.Sink], directory: Path, records: list[model.Record]) -> base.Delivery:
    sink = kind(kind.Settings.model_validate({"name": "files", "kind": "local", "directory": str(directory)}), Path("/"))
    async with sink.outlet() as outlet:
        return await outlet.deliver(records)


def files(directory: Path) -> dict[str, Any]:
    return {str(path.relative_to(directory)): json.loads(path.read_text()) for path in directory.rglob("*") if path.is_file()}


async def test_layout_is_that_of_faipep(tmp_path: Path, verdicts: list[model.Record]) -> None:
    samples = model.Record("x", "samples", "{}")
    assert await deliver(local.Local, tmp_path, [*verdicts, samples]) == base.Delivery(base.Answer.DONE)
    place = PLACE.format(digest=local.component("squeeze/1").partition("~")[2])
    written = files(tmp_path)
    assert set(written) == {f"{place}/NET latency.txt", f"{place}/ID_0_Conv latency.txt", f"{place}/meta.txt"}
    network = written[f"{place}/NET latency.txt"]
    assert (network["type"], network["metric"], network["unit"]) == ("NET", "latency", "us")
    assert network["values"] == [20.0, 21.0]
    assert network["summary"]["mean"] == 20.5
    assert network["diff_summary"]["p90"] == 30.5 - 8.5
    meta = written[f"{place}/meta.txt"]
    assert (meta["commit"], meta["net_name"], meta["run_type"], meta["device"]) == ("a" * 40, "squeezenet", "verify", "lab")


async def test_record_that_comes_again_replaces_its_own_file(tmp_path: Path, verdicts: list[model.Record]) -> None:
    await deliver(local.Local, tmp_path, verdicts)
    before = files(tmp_path)
    await deliver(local.Local, tmp_path, verdicts[:1])
    assert files(tmp_path) == before


async def test_simple_layout_is_one_file_per_benchmark(tmp_path: Path, verdicts: list[model.Record]) -> None:
    await deliver(local.SimpleLocal, tmp_path, verdicts[:1])
    await deliver(local.SimpleLocal, tmp_path, verdicts[1:])
    ((name, content),) = files(tmp_path).items()
    assert name == f"{local.component('squeeze/1')}/data.txt"
    assert set(content["data"]) == {"NET latency", "ID_0_Conv latency"}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"data": 3}'])
async def test_simple_layout_holds_the_latest_experiment_alone(tmp_path: Path, verdicts: list[model.Record], damage: str) -> None:
    later = model.Record("later", "verdict", model.canonical_json({**verdicts[1].payload, "experiment": 13}))
    await deliver(local.SimpleLocal, tmp_path, verdicts)
    await deliver(local.SimpleLocal, tmp_path, [later])
    path = tmp_path / local.component("squeeze/1") / "data.txt"
    assert set(json.loads(path.read_text())["data"]) == {"ID_0_Conv latency"}
    path.write_text(damage)
    await deliver(local.SimpleLocal, tmp_path, [later])
    assert set(json.loads(path.read_text())["data"]) == {"ID_0_Conv latency"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_directory_that_refuses_is_for_a_person(tmp_path: Path, verdicts: list[model.Record]) -> None:
    tmp_path.chmod(0o500)
    delivery = await deliver(local.Local, tmp_path / "below", verdicts)
    assert delivery.answer is base.Answer.PAUSED


async def test_file_in_the_way_is_for_a_person(tmp_path: Path, verdicts: list[model.Record]) -> None:
    (tmp_path / "host").write_text("")
    delivery = await deliver(local.Local, tmp_path, verdicts)
    assert delivery.answer is base.Answer.PAUSED
    assert str(tmp_path / "host") in delivery.reason


names = st.text() | st.sampled_from([".", "..", "../..", "/etc", "a/b", "a\\b", "~", "a" * 500, "meta", "con", "x\0y", "\ud800"])


@hypothesis.given(names)
@hypothesis.example("")
def test_component_never_leaves_its_directory(name: str) -> None:
    part = local.component(name)
    assert part not in ("", ".", "..")
    assert "/" not in part
    assert "\0" not in part
    assert len(part.encode()) <= 200
    assert (Path("/a") / part).parent == Path("/a")


@hypothesis.given(names, names)
def test_two_names_never_meet(one: str, other: str) -> None:
    assert (local.component(one) == local.component(other)) == (one == other)
