"""A program of any kind, built for Android by compilers where an NDK has them: here, this host's in their place."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "specifications/frameworks/generic/android/build.sh"
MAKEFILE = "benchmark: benchmark.c\n\t$(CC) -o $@ $<\n"
SOURCE = "#include <stdio.h>\nint main(void) { puts(TARGET); return 0; }\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/Makefile").write_text(MAKEFILE)
    (tmp_path / "source/benchmark.c").write_text(SOURCE)
    return tmp_path / "source"


@pytest.fixture
def ndk(tmp_path: Path) -> Path:
    tools = tmp_path / "ndk/toolchains/llvm/prebuilt/linux-x86_64/bin"
    tools.mkdir(parents=True)
    for name in ("aarch64-linux-android26-clang", "armv7a-linux-androideabi24-clang"):
        (tools / name).write_text(f'#!/bin/sh\nexec cc \'-DTARGET="{name}"\' "$@"\n')
        (tools / name).chmod(0o755)
    return tmp_path / "ndk"


def build(source: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "ANDROID_NDK")}
    argv = [SCRIPT, source, source.parent / "program"]
    return subprocess.run(argv, env=kept | env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(not shutil.which("cc") or not shutil.which("make"), reason="a C compiler or make is not installed")
@pytest.mark.parametrize(
    ("env", "compiler"),
    [
        ({}, "aarch64-linux-android26-clang"),
        ({"ANDROID_TARGET": "armv7a-linux-androideabi", "ANDROID_API": "24"}, "armv7a-linux-androideabi24-clang"),
    ],
)
def test_the_ndks_compiler_of_the_target_builds_it(source: Path, ndk: Path, env: dict[str, str], compiler: str) -> None:
    built = build(source, ANDROID_NDK=str(ndk), **env)
    assert built.returncode == 0, built.stderr
    assert subprocess.run([source.parent / "program"], capture_output=True, text=True, check=True).stdout == f"{compiler}\n"


def test_a_repositorys_own_script_needs_no_ndk(source: Path) -> None:
    (source / "build.sh").write_text('#!/bin/sh\necho own >"$2"\n')
    (source / "build.sh").chmod(0o755)
    assert build(source).returncode == 0
    assert (source.parent / "program").read_text() == "own\n"


def test_what_is_missing_is_named(source: Path, tmp_path: Path) -> None:
    assert "ANDROID_NDK is not set; set it in builds.env" in build(source).stderr
    assert "it must be the directory of an unpacked NDK" in build(source, ANDROID_NDK=str(tmp_path)).stderr
