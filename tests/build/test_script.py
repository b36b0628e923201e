from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aibenchd import errors, settings
from aibenchd.build import script, slot

TIME = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def frameworks(tmp_path: Path) -> Path:
    return tmp_path / "frameworks"


def _write(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_platforms_own_script_comes_first(frameworks: Path) -> None:
    _write(frameworks / "caffe2/build.sh")
    own = _write(frameworks / "caffe2/android/build.sh")
    assert script.find(frameworks, "caffe2", "android").path == own


@pytest.mark.parametrize("platform", ["host", "host/incremental"])
def test_the_frameworks_script_serves_platforms_without_one(frameworks: Path, platform: str) -> None:
    common = _write(frameworks / "caffe2/build.sh")
    assert script.find(frameworks, "caffe2", platform).path == common


def test_a_missing_script_names_the_paths_expected(frameworks: Path) -> None:
    _write(frameworks / "build.sh")
    with pytest.raises(errors.BuildError, match=f"expected {frameworks}/caffe2/host/build.sh or {frameworks}/caffe2/build.sh"):
        script.find(frameworks, "caffe2", "host")


@pytest.mark.parametrize("names", [("../caffe2", "host"), ("caffe2", ".."), ("/etc", "host"), ("caffe2", "a//b"), ("", "host")])
def test_a_name_that_leads_out_is_refused(frameworks: Path, names: tuple[str, str]) -> None:
    _write(frameworks / "caffe2/build.sh")
    with pytest.raises(errors.BuildError, match="cannot name a framework or platform"):
        script.find(frameworks, *names)


def test_meta_json_beside_the_script_is_read(frameworks: Path) -> None:
    path = _write(frameworks / "caffe2/host/build.sh")
    assert script.find(frameworks, "caffe2", "host").meta == {}
    _write(path.with_name("meta.json"), '{"compiler": "gcc"}')
    assert script.find(frameworks, "caffe2", "host").meta == {"compiler": "gcc"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not to be read as JSON"), ("[]", "expected a JSON object"), ('"' + "x" * 70_000 + '"', "larger than 65536 bytes")],
)
def test_a_bad_meta_json_is_said(frameworks: Path, text: str, message: str) -> None:
    path = _write(frameworks / "caffe2/host/build.sh")
    _write(path.with_name("meta.json"), text)
    with pytest.raises(errors.BuildError, match=f"meta.json: {message}"):
        script.find(frameworks, "caffe2", "host")


def test_a_script_that_is_not_executable_is_run_with_sh(frameworks: Path) -> None:
    path = _write(frameworks / "caffe2/build.sh")
    found = script.find(frameworks, "caffe2", "host")
    assert found.argv(Path("/s"), Path("/p")) == ("sh", str(path), "/s", "/p")
    path.chmod(0o755)
    assert found.argv(Path("/s"), Path("/p")) == (str(path), "/s", "/p")


def _environment(copy: int = 1, **chosen: object) -> dict[str, str]:
    where = slot.Slot(Path("/slot-0"))
    return script.environment(settings.BuildSettings.model_validate(chosen), where, Path("/ccache"), TIME, copy)


def test_the_environment_is_small_and_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "something of the caller's")
    environment = _environment(compiler_cache=False)
    assert environment["SOURCE_DATE_EPOCH"] == str(int(TIME.timestamp()))
    assert environment["AIBENCHD_PYTHON"] == sys.executable
    assert environment["AIBENCHD_COPY"] == "1"
    assert Path(environment["AIBENCHD_RUNNERS"]).is_dir()
    names = "AIBENCHD_COPY AIBENCHD_PYTHON AIBENCHD_RUNNERS HOME LC_ALL PATH SOURCE_DATE_EPOCH TMPDIR TZ"
    assert sorted(environment) == names.split()


def test_what_is_configured_wins() -> None:
    environment = _environment(env={"AIBENCHD_PYTHON": "/opt/python", "CC": "clang"})
    assert environment["AIBENCHD_PYTHON"] == "/opt/python"
    assert environment["CC"] == "clang"


def test_another_layout_is_added_to_what_is_configured() -> None:
    environment = _environment(
        77, env={"CFLAGS": "-O3"}, layout={"CFLAGS": "-ffunction-sections", "LDFLAGS": "-Wl,--by={seed},${x}"}
    )
    assert environment["AIBENCHD_LAYOUT_SEED"] == environment["AIBENCHD_COPY"] == "77"
    assert environment["CFLAGS"] == "-O3 -ffunction-sections"
    assert environment["LDFLAGS"] == "-Wl,--by=77,${x}"
    assert "CXXFLAGS" not in environment


def test_the_compiler_cache_is_named_where_it_is_kept() -> None:
    assert _environment()["CCACHE_DIR"] == "/ccache"
    assert "CCACHE_DIR" not in _environment(compiler_cache=False)


def test_compilers_that_go_through_the_cache_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(script, "COMPILER_CACHES", (str(tmp_path), "/nowhere"))
    assert _environment()["PATH"] == f"{tmp_path}:{script.PATH}"
