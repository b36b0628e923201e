"""Another memory layout, by the variables of a build and real tool chains: the same program at other addresses."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aibenchd import settings
from aibenchd.build import script, slot
from aibenchd.store import again

OPERATORS = ("conv", "relu", "pool", "gemm", "softmax", "concat")
ENGINE_SYMBOLS = {*OPERATORS, *(f"{name}_calls" for name in OPERATORS)}
ENGINE = """
#include <stdio.h>
#define OPERATOR(name, factor) static int name##_calls = factor; \\
    __attribute__((noinline)) int name(int x) { return x * factor + name##_calls++; }
OPERATOR(conv, 3) OPERATOR(relu, 5) OPERATOR(pool, 7) OPERATOR(gemm, 11) OPERATOR(softmax, 13) OPERATOR(concat, 17)
int main(void) { printf("%d\\n", softmax(gemm(pool(relu(conv(concat(2))))))); return 0; }
"""
BUILD = 'set -e\n${CC:-cc} ${CFLAGS:-} "$1/engine.c" -o "$2" ${LDFLAGS:-}\n'  # as make's own rules have it
SEEDS = (again.layout_seed("b", "a"), again.layout_seed("c", "b"))


@pytest.fixture(params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    for needed in (request.param, "ld.lld", "nm"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    return str(request.param)


def built(directory: Path, compiler: str, copy: int, name: str, **chosen: object) -> Path:
    program = directory / name
    (directory / "engine.c").write_text(ENGINE)
    rules = settings.BuildSettings.model_validate({"env": {"CC": compiler, "CFLAGS": "-O1"}, "compiler_cache": False} | chosen)
    env = script.environment(rules, slot.Slot(directory), directory, datetime(2026, 2, 3, tzinfo=UTC), copy)
    subprocess.run(["sh", "-c", BUILD, "sh", str(directory), str(program)], env=env | {"TMPDIR": str(directory)}, check=True)
    return program


def order_of(program: Path, kinds: str) -> list[str]:
    """The names of its operators' symbols of these kinds, by address."""
    listed = subprocess.run(["nm", "--numeric-sort", str(program)], check=True, capture_output=True, text=True).stdout
    found = (line.split() for line in listed.splitlines())
    return [words[2] for words in found if len(words) == 3 and words[1] in kinds and words[2] in ENGINE_SYMBOLS]


def said(program: Path) -> str:
    return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout


def test_code_and_data_come_to_lie_elsewhere_and_compute_the_same(tmp_path: Path, compiler: str) -> None:
    first = built(tmp_path, compiler, 0, "first")
    one, other = (built(tmp_path, compiler, seed, f"relaid-{seed}") for seed in SEEDS)
    assert order_of(first, "T") == list(OPERATORS)
    for kinds in ("T", "dD"):
        orders = [order_of(program, kinds) for program in (first, one, other)]
        assert all(sorted(order) == sorted(orders[0]) for order in orders)
        assert len(set(map(tuple, orders))) == 3
    assert said(first) == said(one) == said(other) != ""


def test_a_seed_gives_the_same_layout_again(tmp_path: Path, compiler: str) -> None:
    programs = (built(tmp_path, compiler, SEEDS[0], name) for name in ("one", "two"))
    assert len({program.read_bytes() for program in programs}) == 1


def test_a_linker_that_shuffles_nothing_leaves_the_program_as_it_is(tmp_path: Path) -> None:
    """So that equal programs tell that a tool chain did not listen."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    deaf = {"CFLAGS": f"{settings.SECTIONS} -DLAYOUT={{seed}}"}  # which moves nothing
    one, other = (built(tmp_path, "gcc", copy, f"copy-{copy}", layout=deaf) for copy in (0, SEEDS[0]))
    assert one.read_bytes() == other.read_bytes()


def test_two_commits_have_one_seed_that_no_linker_takes_for_another() -> None:
    seeds = {again.layout_seed(f"{number}", f"{number - 1}") for number in range(10_000)}
    assert len(seeds) > 9_990  # 10,000 of 2 ** 31 meet 0.02 times
    assert min(seeds) > 1
    assert max(seeds) < 1 << 31
