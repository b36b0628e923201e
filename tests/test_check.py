"""What ``aibenchd check`` finds before the daemon is started."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
import remotes

from aibenchd import check, cli, digests, errors, plugins, settings, yamlfile
from aibenchd.devices import base, metering
from aibenchd.specs import sources

SPECIFICATION = {
    "model": {"name": "net", "format": "generic", "framework": "generic"},
    "tests": [{"identifier": "net", "metric": "delay", "iter": 1, "commands": ["{program}"]}],
}
CONFIGURATION: dict[str, Any] = {
    "repositories": [{"name": "engine", "url": "./engine", "framework": "generic"}],
    "builds": {"frameworks_directory": "frameworks"},
    "devices": [{"name": "host", "kind": "local", "cpus": [min(os.sched_getaffinity(0))]}],
    "benchmarks": [{"specification": "net.json"}],
}

HOST, ENGINE = CONFIGURATION["devices"][0], CONFIGURATION["repositories"][0]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A directory with all that CONFIGURATION needs."""
    (tmp_path / "frameworks" / "generic").mkdir(parents=True)
    (tmp_path / "frameworks" / "generic" / "build.sh").write_text("true\n")
    (tmp_path / "net.json").write_text(json.dumps(SPECIFICATION))
    remotes.GitRemote(tmp_path / "engine").commit()
    return tmp_path


async def faults(lab: Path, **changes: Any) -> list[tuple[str, str]]:
    """Key and message of each fault, which are all of the configuration's own file."""
    path = lab / "aibenchd.yaml"
    path.write_text(json.dumps({**CONFIGURATION, **changes}, indent=1))
    found = await check.check(path)
    assert all(fault.file == str(path) and fault.line for fault in found)
    return [(fault.key, fault.message) for fault in found]


async def test_a_good_configuration_has_no_fault(lab: Path) -> None:
    assert await faults(lab) == []


async def test_a_specification_is_looked_at_whatever_another_section_says(lab: Path) -> None:
    selections = [{"specification": "net.json", "backendz": []}, {"specification": "absent.json"}]
    sinks = [{"name": "chat", "kind": "http", "url_file": "./no-hook"}]
    found = dict(await faults(lab, version=2, benchmarks=selections, sinks=sinks))
    assert found.keys() == {"version", "benchmarks[0].backendz", "benchmarks[1].specification", "sinks[0].url_file"}
    assert "absent.json is not there" in found["benchmarks[1].specification"]
    (lab / "net.json").write_text('{"model": {"name": "net"}, "tests": 5}')
    (lab / "aibenchd.yaml").write_text(json.dumps(CONFIGURATION | {"version": 2}))
    assert {fault.file for fault in await check.check(lab / "aibenchd.yaml")} == {
        str(lab / "net.json"),
        str(lab / "aibenchd.yaml"),
    }


async def test_what_a_fault_of_the_file_does_not_touch_is_looked_at_all_the_same(lab: Path) -> None:
    cpu = HOST["cpus"][0]
    devices = [
        {**HOST, "name": "taken", "kind": "gpu", "index": -1},
        {**HOST, "name": "first", "helper": "/nope.sock"},
        {**HOST, "name": "second"},
        {"name": "beyond", "kind": "local", "cpus": [8191]},
    ]
    repositories = [{"name": "bad", "url": "./engine", "step": 0, "framework": "generic"}, {**ENGINE, "url": "./gone"}]
    sinks = [{"name": "files", "kind": "local", "directory": 5}]
    found = dict(await faults(lab, devices=devices, repositories=repositories, sinks=sinks))
    assert found.keys() == {
        *("devices[0].index", "devices[1].cpus[0]", "devices[2].cpus[0]", "devices[3].cpus"),
        *("repositories[0].step", "repositories[1].url", "sinks[0].directory"),
    }
    assert found["devices[2].cpus[0]"] == f"CPU {cpu} is taken by devices[0]; each needs its own"
    assert found["devices[3].cpus"].startswith("beyond: CPUs 8191 cannot be used")
    assert found["repositories[1].url"].startswith("cannot be reached")


async def test_a_remote_is_looked_at_though_a_key_that_says_nothing_of_it_is_wrong(lab: Path) -> None:
    gone = {**ENGINE, "url": "./gone"}
    repositories = [{**gone, "poll_interval": 10}, {**gone, "name": "far", "credentialz": {}, "baseline": 5}]
    found = dict(await faults(lab, repositories=repositories))
    assert found.keys() == {
        *("repositories[0].poll_interval", "repositories[0].url"),
        *("repositories[1].credentialz", "repositories[1].baseline"),  # it may be that it is reached by what was misspelt
    }


async def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    (fault,) = await check.check(tmp_path / "absent.yaml")
    assert "No such file" in fault.message


async def test_faults_of_a_specification_are_its_own(lab: Path) -> None:
    path = lab / "aibenchd.yaml"
    path.write_text(json.dumps(CONFIGURATION))
    (lab / "net.json").write_text('{"model": {"name": "net"},\n "tests": 5}')
    found = await check.check(path)
    assert {fault.file for fault in found} == {str(lab / "net.json")}
    assert 2 in {fault.line for fault in found}


async def test_a_specification_that_cannot_be_read_is_a_fault_where_it_is_named(lab: Path) -> None:
    (lab / "empty").mkdir()
    (lab / "pipe.json").symlink_to("/dev/null")
    selections = [{"specification": name} for name in ("net.json", "absent.json", "absent.json", "empty", "pipe.json")]
    assert await faults(lab, benchmarks=selections) == [
        (
            "benchmarks[1].specification",
            f"{lab}/absent.json is not there; put a model file, a benchmarks file or a directory there, or mend the path",
        ),
        ("benchmarks[4].specification", f"{lab}/pipe.json is not a regular file"),
    ]


async def test_a_platform_without_a_build_script_is_a_fault_where_a_device_names_it(lab: Path) -> None:
    for platform in ("android", "host"):
        (lab / "frameworks" / "generic" / platform).mkdir()
        (lab / "frameworks" / "generic" / platform / "build.sh").write_text("true\n")
    (lab / "frameworks" / "generic" / "build.sh").unlink()
    here = CONFIGURATION["devices"][0]
    devices = [{**here, "name": "other", "kind": "simulated"}, {**here, "platform": "linux"}]
    ((key, message),) = await faults(lab, devices=devices)
    assert key == "devices[1].platform"
    assert "generic: no build script: expected " in message
    assert "there are scripts for the platforms android, host: name one of these, or write one" in message


async def test_a_framework_without_any_build_script_is_a_fault(lab: Path) -> None:
    (lab / "frameworks" / "generic" / "build.sh").rename(lab / "frameworks" / "build.sh")
    ((key, message),) = await faults(lab)
    assert key == "repositories[0].framework"
    assert str(lab / "frameworks" / "generic" / "host" / "build.sh") in message


async def test_a_benchmark_that_nothing_runs_is_a_fault(lab: Path) -> None:
    repositories = [{"name": "engine", "url": "./engine", "framework": "pytorch"}]
    ((key, message),) = await faults(lab, repositories=repositories)
    assert (key, message) == ("benchmarks[0]", "runs nowhere: no repository builds generic programs")


async def test_a_backend_or_device_that_does_not_fit_is_named(lab: Path) -> None:
    devices = [{**CONFIGURATION["devices"][0], "backends": ["cpu", "mkl"]}]
    benchmarks = [
        {"specification": "net.json", "backends": ["cuda"]},
        {"specification": "net.json", "devices": {"exclude": ["host"]}},
    ]
    assert await faults(lab, devices=devices, benchmarks=benchmarks) == [
        ("benchmarks[0]", "runs nowhere: host does not offer cuda, only cpu, mkl"),
        ("benchmarks[1]", "runs nowhere: host is excluded"),
    ]


async def test_a_misspelt_backend_of_a_device_is_a_fault(lab: Path) -> None:
    model = {**SPECIFICATION["model"], "framework": "onnxruntime"}
    (lab / "net.json").write_text(json.dumps({**SPECIFICATION, "model": model}))
    (lab / "frameworks" / "generic").rename(lab / "frameworks" / "onnxruntime")
    repositories = [{**CONFIGURATION["repositories"][0], "framework": "onnxruntime"}]
    said = "'cpuu' is no backend of onnxruntime, and nothing else runs there; did you mean 'cpu'?"
    for backends in (["cpu", "cpuu"], ["cpuu"]):
        devices = [{**CONFIGURATION["devices"][0], "backends": backends}]
        first, *others = await faults(lab, repositories=repositories, devices=devices)
        assert first == (f"devices[0].backends[{len(backends) - 1}]", said)
        assert [key for key, _ in others] == ([] if "cpu" in backends else ["benchmarks[0]"])


BYTES = b"weights"
MD5, SHA256, OTHER = hashlib.md5(BYTES).hexdigest(), hashlib.sha256(BYTES).hexdigest(), "0" * 64


def wants(lab: Path, test: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **files: Any) -> None:
    """Let the specification of ``lab`` name files of the model, each by what it says beside its name."""
    named = {key: {"filename": key, **file} for key, file in files.items()}
    whole = {**SPECIFICATION, "model": {**SPECIFICATION["model"], "files": named}, "meta": meta or {}}
    whole["tests"] = [*SPECIFICATION["tests"], {**SPECIFICATION["tests"][0], "identifier": "other", **(test or {})}]
    (lab / "net.json").write_text(json.dumps(whole, indent=1))


async def lacking(lab: Path, **changes: Any) -> dict[str, str]:
    """What is wrong with the files of that specification, by key; each at its line."""
    path = lab / "aibenchd.yaml"
    path.write_text(json.dumps({**CONFIGURATION, **changes}, indent=1))
    found = await check.check(path)
    lines = ["", *(lab / "net.json").read_text().splitlines()]
    for fault in found:
        assert fault.file == str(lab / "net.json")
        assert f'"{fault.key.rpartition(".")[2]}":' in lines[fault.line]
    return {fault.key: fault.message for fault in found}


async def test_model_files_that_are_not_there_are_faults_where_they_are_named(lab: Path) -> None:
    (lab / "root").mkdir()
    (lab / "beside").write_bytes(BYTES)
    wants(
        lab,
        test={"input_files": {"image": {"filename": "image", "location": "image.npy"}}},
        meta={"preprocess": {}, "files": {"merged": {"filename": "m", "location": "merged"}}},
        here={"location": "beside", "sha256": SHA256, "md5": MD5},
        gone={"location": "gone.pb"},
        absolute={"location": str(lab / "absolute"), "sha256": SHA256},
        scheme={"location": f"file://{lab}/scheme", "sha256": SHA256},
        rooted={"location": "//rooted", "sha256": SHA256},
        either={"location": ["one", "beside"], "sha256": SHA256},
        neither={"location": ["one", {"generator": ["two.py"]}], "sha256": SHA256},
        made={"location": {"generator": ["make.py"]}, "sha256": SHA256},
        remote={"location": ["gone.pb", "https://models.invalid/net.pb"], "sha256": SHA256},
        late={"location": "{HOSTDIR}/late"},
    )
    found = await lacking(lab, models={"root": "root", "generators_directory": "generators"})
    absent, advice = "is not there: no file or directory at", "put it there, or mend the location"
    nowhere = f"beside the specification, nor in models.generators_directory ({lab}/generators); put it into one of them"
    assert found["model.files.gone"] == f"gone.pb {absent} {lab}/gone.pb; {advice}"
    assert found["model.files.absolute"] == f"{lab}/absolute {absent} {lab}/absolute; {advice}"
    assert found["model.files.scheme"] == f"file://{lab}/scheme {absent} {lab}/scheme; {advice}"
    assert found["model.files.rooted"] == f"//rooted {absent} {lab}/root/rooted; {advice}"
    assert found["model.files.made"] == f"generator make.py is not there: no make.py {nowhere}, or mend its name"
    head, *reasons = found["model.files.neither"].split("\n  ")
    assert (head, len(reasons)) == ("none of its 2 sources has it:", 2)
    assert found["tests[1].input_files.image"].startswith("image.npy is not there")
    assert found["meta.files.merged"].startswith("merged is not there")
    assert len(found) == 8


async def test_no_generator_is_run_to_see_whether_it_is_there(lab: Path) -> None:
    (lab / "make.py").write_text(f"open({str(lab / 'ran')!r}, 'w')")
    (lab / "program").write_text("#!/bin/sh\n")
    made = {"location": {"generator": ["make.py"]}, "sha256": SHA256}
    wants(lab, made=made, not_executable={"location": {"generator": ["program"]}, "sha256": SHA256})
    found = await lacking(lab)
    assert found.keys() == {"model.files.not_executable"}
    assert "cannot be executed; 'chmod +x" in found["model.files.not_executable"]
    assert not (lab / "ran").exists()


async def test_wrong_bytes_are_named_where_they_are_not_too_many_to_read(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab / "net").write_bytes(BYTES)
    (lab / "large").write_bytes(BYTES * 2)
    (lab / "tree").mkdir()
    (lab / "tree" / "net").write_bytes(BYTES)
    tree = digests.of_tree(lab / "tree")
    monkeypatch.setattr(sources, "LOOKED_AT", len(BYTES))
    wants(
        lab,
        sha256={"location": "net", "sha256": OTHER},
        md5={"location": "net", "md5": OTHER[:32]},
        large={"location": "large", "sha256": OTHER},
        tree={"location": "tree", "md5": "directory", "sha256": tree},
        other_tree={"location": "tree", "md5": "directory", "sha256": OTHER},
        no_tree={"location": "net", "md5": "directory"},
        no_file={"location": "tree", "md5": MD5},
    )
    advice = "If these bytes are meant, write sha256: {} into the specification; else mend what lies there"
    assert await lacking(lab) == {
        "model.files.sha256": f"net has sha256 {SHA256}, and the specification says {OTHER}. {advice.format(SHA256)}",
        "model.files.md5": f"net has md5 {MD5}, and the specification says {OTHER[:32]}. {advice.format(SHA256)}",
        "model.files.other_tree": f"tree has sha256 {tree}, and the specification says {OTHER}. {advice.format(tree)}",
        "model.files.no_tree": "net is a file, and the specification says a directory: take md5: directory away",
        "model.files.no_file": "tree is a directory, which has no MD5: write md5: directory, and its sha256",
    }


async def test_what_a_daemon_keeps_already_needs_no_source(lab: Path) -> None:
    wants(lab, gone={"location": "gone", "sha256": SHA256})
    kept = lab / "state/models/.content/sha256" / SHA256
    kept.parent.mkdir(parents=True)
    kept.write_bytes(BYTES)
    assert await lacking(lab, state_directory="state") == {}
    assert (await lacking(lab)).keys() == {"model.files.gone"}


async def test_files_that_another_file_merges_into_the_model_are_named_at_the_model(lab: Path) -> None:
    path = lab / "aibenchd.yaml"
    wants(lab, made={"location": ["{HOSTDIR}/made"]})
    meta = {"files": {"merged": {"filename": "merged", "location": "merged"}}}
    path.write_text(json.dumps({**CONFIGURATION, "benchmarks": [{"specification": "net.json", "meta": meta}]}))
    (fault,) = await check.check(path)
    place = yamlfile.load(lab / "net.json").position(("model", "files"))
    assert (fault.file, (fault.line, fault.column), fault.key) == (f"{lab}/net.json", place, "model.files.merged")
    meta = {"files": {"made": {"location": ["other"], "filename": "made"}}}
    path.write_text(json.dumps({**CONFIGURATION, "benchmarks": [{"specification": "net.json", "meta": meta}]}))
    (fault, _) = await check.check(path)
    assert fault.file == f"{lab}/net.json"
    assert "a location with a placeholder is made at run time, and cannot be one of several; keep one" in fault.message


async def test_a_file_of_a_benchmark_that_no_repository_runs_is_not_missed(lab: Path) -> None:
    wants(lab, gone={"location": "gone"})
    (lab / "other").mkdir()
    (lab / "net.json").rename(lab / "other" / "net.json")
    other = (lab / "other" / "net.json").read_text().replace('"framework": "generic"', '"framework": "pytorch"')
    (lab / "other" / "net.json").write_text(other)
    (lab / "other" / "ours.json").write_text(json.dumps(SPECIFICATION))
    assert await faults(lab, benchmarks=[{"specification": "other"}]) == []


def test_the_command_names_file_line_and_key_of_what_is_not_there(lab: Path) -> None:
    wants(lab, gone={"location": "gone.pb", "sha256": SHA256}, made={"location": {"generator": ["make.py"]}, "sha256": SHA256})
    path = lab / "aibenchd.yaml"
    path.write_text(json.dumps({**CONFIGURATION, "devices": [{**CONFIGURATION["devices"][0], "backends": ["cpu"]}]}))
    done = subprocess.run([sys.executable, "-m", "aibenchd", "check", str(path)], capture_output=True, text=True, check=False)
    document = yamlfile.load(lab / "net.json")
    gone, made = ("{}:{}".format(*document.position(("model", "files", key))) for key in ("gone", "made"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"{lab}/net.json:{gone}: model.files.gone: gone.pb is not there: no file or directory at {lab}/gone.pb; put it there, or "
        "mend the location",
        f"{lab}/net.json:{made}: model.files.made: generator make.py is not there: no make.py beside the specification, nor in "
        f"models.generators_directory ({lab}/specifications/generators); put it into one of them, or mend its name",
    ]


async def test_secrets_must_be_readable_and_private(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode in (("private", 0o600), ("open", 0o644), ("hosts", 0o644)):
        (lab / name).write_text("x\n")
        (lab / name).chmod(mode)
    (lab / "credentials").mkdir()
    files = {"ssh_key_file": "./open", "known_hosts_file": "./hosts", "token_file": "./private"}
    repositories = [{**CONFIGURATION["repositories"][0], "credentials": files}]
    sinks = [
        {"name": name, "kind": "http", "url": "https://example.org", "token_file": file}
        for name, file in (("a", "./absent"), ("b", "./credentials"), ("c", "from-systemd"))
    ]
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    found = dict(await faults(lab, repositories=repositories, sinks=sinks))
    assert found.keys() == {"repositories[0].credentials.ssh_key_file", "sinks[0].token_file", "sinks[1].token_file"}
    assert "is open to all users of this host (0644); run 'chmod o=" in found["repositories[0].credentials.ssh_key_file"]
    assert "No such file" in found["sinks[0].token_file"]
    assert "Is a directory" in found["sinks[1].token_file"]


async def test_a_systemd_credential_is_looked_for_where_systemd_puts_it(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(lab))
    sinks = [{"name": "a", "kind": "http", "url": "https://example.org", "token_file": "from-systemd"}]
    ((key, message),) = await faults(lab, sinks=sinks)
    assert key == "sinks[0].token_file"
    assert "No such file" in message


async def test_a_systemd_credential_that_cannot_be_looked_at_is_a_warning(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (lab / "chat-token").write_text("a-token")
    (lab / "chat-token").chmod(0o600)
    sinks = [
        {"name": name, "kind": "http", "url": "https://example.org", "token_file": file}
        for name, file in (("a", "chat-token"), ("b", "./chat-token"), ("c", "from-systemd"))
    ]
    assert await faults(lab, sinks=sinks) == []
    warnings = {fault.key: fault.message for fault in await check.warnings(lab / "aibenchd.yaml")}
    assert warnings.keys() == {"sinks[0].token_file", "sinks[2].token_file"}
    assert "for a file beside the configuration, write ./chat-token" in warnings["sinks[0].token_file"]
    assert "under systemd the unit needs a line LoadCredential=from-systemd:PATH" in warnings["sinks[2].token_file"]


async def test_what_git_says_on_several_lines_is_one_line_that_can_be_read(lab: Path) -> None:
    (lab / "empty").mkdir()
    ((key, message),) = await faults(lab, repositories=[{**ENGINE, "url": "./empty"}])
    assert key == "repositories[0].url"
    assert "does not appear to be a git repository; fatal: Could not read from remote repository; Please make sure" in message


def test_lines_that_go_on_are_joined_without_a_break() -> None:
    assert check._one_line("none of 2:\n  a is  gone.\n\n  b is gone,\nas is c.") == "none of 2: a is gone; b is gone, as is c."


async def test_a_secret_that_is_refused_when_it_is_used_is_a_fault(lab: Path) -> None:
    for name, text in (("empty", ""), ("blank", "\n"), ("short", "guess"), ("hosts", "")):
        (lab / name).write_text(text)
        (lab / name).chmod(0o600)
    repositories = [{**ENGINE, "credentials": {"ssh_key_file": "./empty", "known_hosts_file": "./hosts"}}]
    sinks = [{"name": "a", "kind": "http", "url": "https://example.org", "token_file": "./blank"}]
    dashboard = {"listen": "127.0.0.1:0", "token_file": "./short"}
    found = dict(await faults(lab, repositories=repositories, sinks=sinks, dashboard=dashboard))
    assert found.keys() == {"repositories[0].credentials.ssh_key_file", "sinks[0].token_file", "dashboard.token_file"}
    assert found["repositories[0].credentials.ssh_key_file"] == f"'{lab}/empty' is empty; write the secret into it"
    assert found["sinks[0].token_file"] == f"'{lab}/blank' is empty; write the secret into it"
    assert "fewer than 16 characters can be guessed" in found["dashboard.token_file"]


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ((), ""),
        (("repositories",), "it names no repositories, so nothing will be measured; add repositories; or, for a program that is"),
        (("repositories", "benchmarks"), "it names no repositories and no benchmarks, so"),
    ],
)
async def test_a_configuration_that_measures_nothing_is_a_warning_that_says_what_to_do(
    lab: Path, without: tuple[str, ...], said: str
) -> None:
    assert await faults(lab, **{key: [] for key in without}) == []
    warnings = await check.warnings(lab / "aibenchd.yaml")
    assert [said in warning.message for warning in warnings] == ([True] if said else [])
    assert all("aibenchd bench -b FILE --program PROGRAM" in warning.message for warning in warnings)


async def test_users_and_groups_must_exist(lab: Path) -> None:
    status = {"group": "no-such-group", "operators": ["root", "nor-this"]}
    found = dict(await faults(lab, run={"user": "no-such-user"}, status=status, submissions={"groups": ["root", "nor-that"]}))
    assert found == {
        "run.user": "this host has no user 'no-such-user'; add it, or name another",
        "status.group": "this host has no group 'no-such-group'; add it, or name another",
        "status.operators[1]": "this host has no group 'nor-this'; add it, or name another",
        "submissions.groups[1]": "this host has no group 'nor-that'; add it, or name another",
    }


@pytest.mark.parametrize(
    ("run", "groups", "warned"),
    [
        ({}, [], False),
        ({}, ["root"], True),
        ({"user": "nobody"}, ["root"], False),
        ({"launcher": "/run/aibenchd-launcher.sock"}, ["root"], False),
    ],
)
async def test_that_what_people_send_runs_as_the_daemons_user_is_a_warning(
    lab: Path, run: dict[str, str], groups: list[str], warned: bool
) -> None:
    path = lab / "aibenchd.yaml"
    path.write_text(json.dumps(CONFIGURATION | {"run": run, "submissions": {"groups": groups}}))
    warnings = await check.warnings(path)
    assert [warning.key for warning in warnings] == (["submissions.groups"] if warned else [])
    for warning in warnings:
        assert "what members of root send runs on this host as the daemon's own user" in warning.message
        assert "set run.launcher" in warning.message


async def test_a_device_is_tried_on_its_own_cpus(lab: Path) -> None:
    devices = [*CONFIGURATION["devices"], {"name": "beyond", "kind": "local", "cpus": [8191]}]
    ((key, message),) = await faults(lab, devices=devices)
    assert key == "devices[1].cpus"
    assert re.fullmatch(r"beyond: CPUs 8191 cannot be used: this host \(or our cpuset\) has [0-9,-]+; mend cpus", message)


VENDOR = {"name": "host", "kind": "vendor", "run": ["env", "{program}", "{arguments}"]}
SILENT_BATTERY = "the device does not tell its battery's charge and voltage; give it another meter, or remove meter"
NO_METER = "cannot be found, or not be executed; write the whole path of a program that is there (meter.command)"


@pytest.mark.parametrize(
    ("device", "key", "said"),
    [
        (HOST | {"meter": {"kind": "rapl"}}, "meter.kind", "has no counters of energy (RAPL) that can be seen in"),
        (HOST | {"meter": {"kind": "rapl", "helper": "/nope.sock"}}, "meter.helper", "the helper /nope.sock does not answer"),
        (HOST | {"meter": {"kind": "program", "command": ["/no/such"]}}, "meter.command", f"meter's program /no/such {NO_METER}"),
        (HOST | {"meter": {"kind": "nvml", "gpu": "0"}}, "meter", "its energy cannot be metered: "),
        (HOST | {"meter": {"kind": "battery"}}, "meter.kind", SILENT_BATTERY),
        (VENDOR | {"meter": {"kind": "battery"}}, "meter.kind", SILENT_BATTERY),
        ({"name": "d", "kind": "simulated", "meter": {"kind": "battery"}}, "meter.kind", SILENT_BATTERY),
        (HOST | {"helper": "/nope.sock"}, "helper", "the helper /nope.sock does not answer"),
        (VENDOR | {"helper": "/nope.sock"}, "helper", "the helper /nope.sock does not answer"),
        (HOST | {"minimum_free": "9000GiB"}, "minimum_free", "fewer than minimum_free (9663676416000); free some"),
        (VENDOR | {"minimum_free": "9000GiB"}, "minimum_free", "fewer than minimum_free (9663676416000); free some"),
        (VENDOR | {"health": ["false"]}, "health", "host: health: false: exit code 1"),
        (VENDOR | {"fingerprint": ["echo", "no colon here"]}, "fingerprint", "expected rows 'name: value' or a JSON object"),
        (VENDOR | {"state": ["echo", "temperature: warm"]}, "state", "expected temperature to be a number, found 'warm'"),
        (VENDOR | {"state": ["false"]}, "state", "host: state: false: exit code 1"),
    ],
)
async def test_what_would_keep_a_device_from_running_a_block_is_a_fault_where_it_is_written(
    lab: Path, monkeypatch: pytest.MonkeyPatch, device: dict[str, Any], key: str, said: str
) -> None:
    monkeypatch.setattr(metering, "ZONES", lab / "powercap")
    ((found, message),) = await faults(lab, devices=[device], state_directory="state")
    assert found == f"devices[0].{key}"
    assert said in message


ELSEWHERE = {
    "ssh": {"name": "box", "kind": "ssh", "host": "127.0.0.1", "port": 1},
    "adb": {"name": "phone", "kind": "adb", "platform": "android/arm64", "serial": "none", "server_port": 1},
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("meter", [{"kind": "rapl"}, {"kind": "nvml", "gpu": "0"}])
async def test_a_meter_of_this_host_is_refused_where_programs_run_on_another(lab: Path, kind: str, meter: dict[str, Any]) -> None:
    ((key, message), *_) = await faults(lab, devices=[ELSEWHERE[kind] | {"meter": meter}])
    assert key == "devices[0].meter.kind"
    assert message.startswith(f"{meter['kind']} meters this host, and this device's programs run on another")
    with pytest.raises(errors.InvalidFileError, match=r"meter\.kind: "):
        settings.load(lab / "aibenchd.yaml")


@pytest.mark.parametrize("kind", ELSEWHERE)
async def test_a_device_that_is_away_hides_no_fault_of_its_meter(lab: Path, kind: str) -> None:
    (lab / "frameworks" / "generic" / "android").mkdir()
    device = ELSEWHERE[kind] | {"meter": {"kind": "program", "command": ["/no/such"]}}
    found = dict(await faults(lab, devices=[device]))
    assert len(found) == 2
    assert NO_METER in found["devices[0].meter.command"]


async def test_all_faults_of_a_device_are_told_at_once(lab: Path) -> None:
    broken = {
        "cpus": [8191],
        "directory": "/proc/x",
        "helper": "/nope.sock",
        "meter": {"kind": "program", "command": ["/no/such"]},
        "minimum_free": "9000GiB",
        "conditioning": {"min_battery": 50, "frequency": "max"},
    }
    found = await faults(lab, devices=[HOST | broken], state_directory="state")
    told = [key for key, _ in found]
    wanted = {"cpus", "directory", "helper", "meter.command", "minimum_free", "conditioning"}
    assert set(told) == {f"devices[0].{key}" for key in wanted}
    assert told.count("devices[0].helper") == 1  # though it is what would set the frequency too


async def test_all_that_a_tool_does_wrong_is_told_at_once(lab: Path) -> None:
    broken = {"health": ["false"], "fingerprint": ["echo", "no colon here"], "state": ["echo", "temperature: warm"]}
    found = await faults(lab, devices=[VENDOR | broken | {"conditioning": {"min_battery": 50}}])
    assert {key for key, _ in found} == {f"devices[0].{key}" for key in (*broken, "conditioning")}


async def test_each_tool_that_is_missing_is_told_where_it_is_named_first(lab: Path) -> None:
    broken = {"run": ["no-such-runner", "{program}", "{arguments}"], "health": ["/no/such/tool"], "state": ["/no/such/tool"]}
    found = dict(await faults(lab, devices=[VENDOR | broken]))
    assert found.keys() == {"devices[0].run", "devices[0].health"}
    assert found["devices[0].run"].startswith("host: no-such-runner cannot be found in")
    assert found["devices[0].health"].startswith("host: /no/such/tool is not there, or is no file")


async def test_what_can_be_metered_and_read_is_no_fault(lab: Path) -> None:
    told = ["echo", '{{"temperature": 40.5, "charge": 100, "voltage": 3.7, "model": "DSP"}}']
    devices = [
        VENDOR | {"name": "dsp", "state": told, "fingerprint": told, "meter": {"kind": "battery"}, "cpus": HOST["cpus"]},
        {"name": "d", "kind": "simulated", "meter": {"kind": "program", "command": ["yes", "4.2"]}},
    ]
    assert await faults(lab, devices=devices, state_directory="state") == []


async def test_a_key_file_that_is_not_there_is_told_once(lab: Path) -> None:
    box = {"name": "box", "kind": "ssh", "host": "127.0.0.1", "key_file": "./gone", "jump": [{"host": "gate.invalid"}]}
    gate = {"host": "gate.invalid", "known_hosts_file": "kh"}
    found = dict(await faults(lab, devices=[box | {"jump": []}, box | {"name": "far", "key_file": None, "jump": [gate]}]))
    assert found.keys() == {"devices[0].key_file", "devices[1].jump[0].known_hosts_file"}
    assert found["devices[0].key_file"] == f"{lab}/gone: cannot be read: No such file or directory"
    assert "for a file beside the configuration, write ./kh" in found["devices[1].jump[0].known_hosts_file"]


@pytest.mark.parametrize("kind", ["local", "vendor"])
async def test_a_directory_that_cannot_be_made_or_written_to_is_a_fault(lab: Path, kind: str) -> None:
    (lab / "file").write_text("")
    (lab / "there").mkdir()
    tool = {"run": ["env", "{program}", "{arguments}"]} if kind == "vendor" else {}
    for directory, said in (
        ("/proc/x", "/proc/x cannot be made: /proc takes no new directory: No such file or directory; name another"),
        (f"{lab}/file/x/y", f"{lab}/file/x/y cannot be made: {lab}/file takes no new directory: Not a directory; name another"),
        (f"{lab}/file", f"{lab}/file cannot be written to: Not a directory; name another"),
    ):
        devices = [{"name": "host", "kind": kind, "directory": directory, **tool}]
        assert await faults(lab, devices=devices) == [("devices[0].directory", f"host: directory: {said}")]
    for directory in ("there", "new/one"):
        assert await faults(lab, devices=[{"name": "host", "kind": kind, "directory": f"{lab}/{directory}", **tool}]) == []
    assert (list((lab / "there").iterdir()), (lab / "new").exists()) == ([], False)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"frequency": "1200000000"}, "d: cannot run at 1200000000 Hz; it has 1000000000, 1500000000, 2000000000"),
        ({"governor": "schedutil"}, "d: no governor 'schedutil'; a simulated device has performance, powersave"),
        ({"min_battery": 50}, "the device does not tell its battery; remove conditioning.min_battery"),
        ({"frequency": "mid", "governor": "powersave", "max_temperature": 60, "max_load": 2, "reboot": True}, ""),
    ],
)
async def test_conditioning_that_a_device_cannot_be_had_in_is_a_fault(lab: Path, wanted: dict[str, Any], said: str) -> None:
    ((key, message), *others) = await faults(
        lab,
        devices=[
            {"name": "d", "kind": "simulated", "conditioning": wanted},
            {**CONFIGURATION["devices"][0], "directory": "/proc/x"},
        ],
    )
    if said:
        assert key == "devices[0].conditioning"
        assert message.startswith(said)
    else:
        assert (key, others) == ("devices[1].directory", [])


@pytest.mark.skipif(Path("/sys/devices/system/cpu/cpu0/cpufreq").exists(), reason="the kernel lets the frequency be set here")
@pytest.mark.parametrize("wanted", [{"frequency": "max"}, {"governor": "performance"}])
async def test_a_frequency_that_this_host_lets_nobody_set_is_a_fault(lab: Path, wanted: dict[str, Any]) -> None:
    ((key, message),) = await faults(lab, devices=[{**CONFIGURATION["devices"][0], "conditioning": wanted}])
    assert key == "devices[0].conditioning"
    assert "cannot be set: /sys/devices/system/cpu/" in message
    assert "remove frequency and governor from its conditioning" in message


async def test_a_session_that_is_open_meanwhile_is_left_alone(lab: Path) -> None:
    keys = {**CONFIGURATION["devices"][0], "directory": str(lab / "device")}
    local = plugins.load("devices", "local")
    device: base.Device = local(local.Settings.model_validate(keys), lab / "state", base.RunSettings())  # type: ignore[attr-defined]
    async with device.session() as session:
        directory = await session.directory("kept")
        assert await faults(lab, devices=[keys]) == []
        assert Path(directory).is_dir()
        await session.health()


class Silent(base.Device):
    """Answers never, or with bad news."""

    Settings = base.DeviceSettings
    asked: int = 0
    most: int = 0

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        raise NotImplementedError

    async def reach(self) -> None:
        Silent.asked += 1
        Silent.most = max(Silent.most, Silent.asked)
        try:
            if self.settings.name == "silent":
                await anyio.sleep_forever()
            await anyio.sleep(0.001)
            raise errors.DeviceLostError(f"{self.settings.name}: unplugged")
        finally:
            Silent.asked -= 1


async def test_devices_are_tried_at_once_but_not_all(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, kind: Silent if group == "devices" else load(group, kind))
    monkeypatch.setattr(check, "DEVICE_DEADLINE", 0.2)
    devices = [
        {"name": name, "kind": "local", "cpus": [cpu]} for cpu, name in enumerate(["silent", *(f"d{n}" for n in range(200))])
    ]
    found = dict(await faults(lab, devices=devices))
    assert len(found) == 201
    assert found["devices[0]"].startswith("did not answer within")
    assert found["devices[200]"] == "d199: unplugged"
    assert 2 <= Silent.most <= check.LOOKS_AT_ONCE


async def test_the_shipped_configuration_can_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # nothing is asked of the network
    found = await check.check(Path(__file__).parents[1] / "config" / "aibenchd.yaml")
    assert [fault.key for fault in found] == ["repositories[0].url"]


@pytest.fixture(params=["git", "hg"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a repository."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # where pip puts hg
    if not shutil.which(request.param):
        pytest.skip("hg is not installed (pip install mercurial)")
    return str(request.param)


async def test_a_misspelt_branch_is_a_fault_that_names_the_nearest(lab: Path, kind: str) -> None:
    with contextlib.closing(remotes.HgRemote(lab / "hg")) as in_hg:
        there = in_hg if kind == "hg" else remotes.GitRemote(lab / "git")
        there.commit()
        there("bookmark" if kind == "hg" else "branch", "release/2.0")
        engine = {**CONFIGURATION["repositories"][0], "url": f"./{kind}", "kind": kind}
        what, usual = ("bookmark or branch", "default") if kind == "hg" else ("branch", "main")
        for given, advice in (("relaese/2.0", "did you mean 'release/2.0'?"), ("quux", f"known: {usual}, release/2.0")):
            expected = [("repositories[0].branch", f"the remote has no {what} {given!r}; {advice}")]
            assert await faults(lab, repositories=[{**engine, "branch": given}]) == expected
        both = [{**engine, "branch": usual}, {**engine, "name": "other", "branch": "release/2.0"}]
        assert await faults(lab, repositories=both) == []


async def test_a_remote_that_cannot_be_reached_is_told_in_the_tools_own_words(lab: Path, kind: str) -> None:
    urls = ["./absent", f"https://a-secret@127.0.0.1:1/engine{'?token=hidden' if kind == 'git' else ''}"]  # hg takes no such part
    engines = [{**CONFIGURATION["repositories"][0], "name": f"e{n}", "url": url, "kind": kind} for n, url in enumerate(urls)]
    found = dict(await faults(lab, repositories=engines))
    assert found.keys() == {"repositories[0].url", "repositories[1].url"}
    absent, refused = found["repositories[0].url"], found["repositories[1].url"]
    words = ("not found", "refused") if kind == "hg" else ("does not appear to be a git repository", "onnect")
    assert absent.startswith(f"cannot be reached: {lab}/absent: {kind} ")
    assert words[0] in absent
    assert words[1] in refused
    assert "secret" not in refused
    assert "hidden" not in refused


async def test_a_remote_that_does_not_answer_is_given_up(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "REMOTE_DEADLINE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/engine.git"
        ((key, message),) = await faults(lab, repositories=[{**CONFIGURATION["repositories"][0], "url": url}])
    assert key == "repositories[0].url"
    assert message.startswith("did not answer within")


async def test_a_remote_whose_secret_only_the_unit_can_see_is_left_to_the_daemon(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    private = {"url": "https://127.0.0.1:1/engine.git", "credentials": {"token_file": "from-systemd"}}
    assert await faults(lab, repositories=[{**CONFIGURATION["repositories"][0], **private}]) == []


def test_what_is_odd_in_a_specification_is_a_warning(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lab / "aibenchd.yaml"
    path.write_text(json.dumps(CONFIGURATION))
    text = json.dumps(SPECIFICATION).replace('"metric": "delay"', '"metric": "delay", "voltage": 4.2')
    (lab / "net.json").write_text(text)
    assert cli.main(["check", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{path}: good\n"
    assert printed.err.startswith(f"warning: {lab}/net.json:1:")
    assert "tests[0].voltage: belongs to the metric 'power'" in printed.err
