"""Regressions that are measured again with another memory layout: the real daemon, real git, an engine in C, gcc and lld."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import lab
import pytest
import receiver

from aibenchd.plan import order

OPERATORS = ("conv", "relu", "pool", "gemm", "softmax", "concat")
# It takes as long as its commit says, and tells what it computes and how long its padding is.
ENGINE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define OPERATOR(name, factor) __attribute__((noinline)) int name(int x) { return x * factor + 1; }
OPERATOR(conv, 3) OPERATOR(relu, 5) OPERATOR(pool, 7) OPERATOR(gemm, 11) OPERATOR(softmax, 13) OPERATOR(concat, 17)
static void say(const char *type, const char *metric, double value) {
    printf("PyTorchObserver {\\"type\\": \\"%s\\", \\"metric\\": \\"%s\\", ", type, metric);
    printf("\\"unit\\": \\"us\\", \\"value\\": %.4f}\\n", value);
}
int main(void) {
    struct timespec now;
    const char *padding = getenv("AIBENCHD_PADDING");
    clock_gettime(CLOCK_REALTIME, &now);
    srand48(now.tv_nsec ^ getpid());
    for (int i = 0; i < 8; i++) say("NET", "latency", LATENCY * (1 + 0.01 * (drand48() - 0.5)));
    say("SUM", "value", softmax(gemm(pool(relu(conv(concat(2)))))));
    say("ENV", "padding", padding ? (double)strlen(padding) : -1);
    return 0;
}
"""
BUILD = '#!/bin/sh\nset -e\ngcc ${CFLAGS:-} -x c "$1/bench" -x none -o "$2" ${LDFLAGS:-}\n'
# What is slow is how the first build of a commit happens to be laid out, and no other.
QUICK_WHEN_RELAID = """#!/bin/sh
set -e
sed "s/130/$([ -z "${AIBENCHD_LAYOUT_SEED:-}" ] && echo 130 || echo 100)/" "$1/bench" > "$2"
echo "# laid out by ${AIBENCHD_LAYOUT_SEED:-nothing}" >> "$2"
"""
NO_SUCH_LINKER = {"LDFLAGS": "-Wl,--shuffle-by-no-linker={seed}"}


def begin(directory: Path, sink: str = "", **builds: Any) -> lab.Lab:
    """A lab that measures again with another layout; watched from its first commit on, which it has."""
    made = lab.make(directory, sink)
    made.configure(verify={"enabled": True, "builds": "relaid"}, builds=made.configuration["builds"] | builds)
    return made


def watch(made: lab.Lab) -> None:
    (chosen,) = made.configuration["repositories"]
    made.configure(repositories=[chosen | {"start_at": made.commits[0]}])


def engine(latency: int) -> str:
    return ENGINE.replace("LATENCY", f"{latency}.0")


async def settled(made: lab.Lab) -> dict[str, Any]:
    await made.until("SELECT count(*) FROM findings WHERE state <> 'suspect'", within=60)
    (found,) = (await made.ctl("findings"))["findings"]
    return dict(await made.ctl("finding", str(found["id"])))


@pytest.fixture
def tools() -> None:
    for needed in ("gcc", "ld.lld", "nm"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")


@pytest.mark.usefixtures("tools")
async def test_a_regression_that_another_layout_shows_too_is_confirmed_with_both_intervals(tmp_path: Path) -> None:
    async with receiver.Receiver().listening() as sink:
        made = begin(tmp_path, sink.url)
        made.commit("first", bench=engine(100), build=BUILD)
        watch(made)
        async with made.daemon():
            await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
            made.commit("slower", bench=engine(130), build=BUILD)
            await made.until("SELECT count(*) FROM findings WHERE search = 'found'", within=60)
            found = await settled(made)
            assert (found["state"], found["reason"]) == ("open", "")
            assert abs(found["first_seen"]["estimate"] - 0.3) < 0.02
            assert abs(found["estimate"] - 0.3) < 0.02
            assert found["first_seen"] != {name: found[name] for name in ("estimate", "low", "high")}
            page = shown(made, found["id"])
            assert f"made for another memory layout (seed {found['layout']})" in page
            assert f"experiment {found['suspect']}, regressed +{100 * found['first_seen']['estimate']:.1f} %" in page
            await made.until_delivered()
        records = [record for request in sink.requests for record in request.records if record["key"] == "NET latency"]
        assert {one["run_type"]: one["layout"] for one in records} == {
            "benchmark": None,
            "verify": found["layout"],
            "regress": found["layout"],
        }
        (confirmed,) = [one for one in records if one["run_type"] == "regress"]
        assert confirmed["first_seen"] == found["first_seen"]
    check_programs(made, found["layout"])
    check_padding(made, found["verify"])


def shown(made: lab.Lab, finding: int) -> str:
    client = [sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket), "finding", str(finding)]
    return subprocess.run(client, check=True, capture_output=True, text=True).stdout


def check_programs(made: lab.Lab, seed: int) -> None:
    """Both commits were built twice; each pair has the same operators, at other addresses in another order."""
    programs = {
        (commit, copy): Path(directory) / program
        for commit, copy, directory, program in made.rows('SELECT "commit", copy, directory, program FROM builds')
    }
    assert set(programs) == {(commit, copy) for commit in made.commits for copy in (0, seed)}
    listed = {key: addresses(program) for key, program in programs.items()}
    for commit in made.commits:
        first, relaid = listed[commit, 0], listed[commit, seed]
        assert set(first) == set(relaid) == set(OPERATORS)
        assert sorted(first, key=first.__getitem__) != sorted(relaid, key=relaid.__getitem__)
    assert listed[made.commits[0], seed] == listed[made.commits[1], seed]  # whose code differs in a number alone
    computed = made.rows("SELECT DISTINCT \"values\" FROM samples WHERE type = 'SUM'")
    assert len({number for (values,) in computed for number in json.loads(values)}) == 1  # a profiler runs it many times


def addresses(program: Path) -> dict[str, int]:
    lines = subprocess.run(["nm", str(program)], check=True, capture_output=True, text=True).stdout.splitlines()
    words = [line.split() for line in lines]
    return {one[-1]: int(one[0], 16) for one in words if one[-1] in OPERATORS}


def check_padding(made: lab.Lab, verify: int) -> None:
    """In each block both arms have as many bytes as its journalled seed draws; elsewhere there is none."""
    rows = made.rows(
        "SELECT t.experiment, t.block, s.\"values\" FROM samples s JOIN trials t ON t.id = s.trial WHERE s.type = 'ENV'"
    )
    lengths: dict[tuple[int, int], list[float]] = defaultdict(list)
    for experiment, block, values in rows:
        lengths[experiment, block] += json.loads(values)
    ((seed,),) = made.rows(f"SELECT json_extract(design, '$.seed') FROM experiments WHERE id = {verify}")
    of_verify = {block: drawn for (experiment, block), drawn in lengths.items() if experiment == verify}
    assert of_verify == {block: [float(order.padding(seed, block))] * 2 for block in of_verify}
    assert len({tuple(drawn) for drawn in of_verify.values()}) > 1
    assert {value for (experiment, _), drawn in lengths.items() for value in drawn if experiment != verify} == {-1.0}


async def test_a_regression_of_one_layout_alone_is_refuted(tmp_path: Path) -> None:
    made = begin(tmp_path)
    made.commit("first", build=QUICK_WHEN_RELAID)
    watch(made)
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("laid out badly", latency=130, build=QUICK_WHEN_RELAID)
        found = await settled(made)
        assert (found["state"], found["confirmed"]) == ("refuted", False)
        assert found["reason"].startswith("built with another memory layout and measured again: unchanged")
        assert made.rows(f"SELECT count(*) FROM builds WHERE copy = {found['layout']} AND state = 'built'") == [(2,)]


async def test_a_tool_chain_that_does_not_listen_is_told_of(tmp_path: Path) -> None:
    async with receiver.Receiver().listening() as sink:
        made = begin(tmp_path, sink.url)
        made.commit("first")
        watch(made)
        async with made.daemon():
            await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
            made.commit("slower", latency=130)
            found = await settled(made)
            assert found["state"] == "open"
            said = "built again with another memory layout, the treatment and the control came out the same: "
            assert found["reason"].startswith(said)
            assert "builds.layout" in found["reason"]
            assert said in " ".join(shown(made, found["id"]).split())
            await made.until_delivered()
        (confirmed,) = [one for request in sink.requests for one in request.records if one["run_type"] == "regress"]
        assert confirmed["reason"] == found["reason"]


@pytest.mark.usefixtures("tools")
async def test_what_cannot_be_linked_with_another_layout_says_what_to_set(tmp_path: Path) -> None:
    made = begin(tmp_path, layout=NO_SUCH_LINKER)
    made.commit("first", bench=engine(100), build=BUILD)
    watch(made)
    async with made.daemon():
        await made.until("SELECT count(*) FROM experiments WHERE verdict = 'measured'")
        made.commit("slower", bench=engine(130), build=BUILD)
        found = await settled(made)
        assert found["state"] == "unconfirmed"
        assert "the treatment does not build" in found["reason"]
        assert "builds.layout" in found["reason"]
