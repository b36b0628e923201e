"""From a command line of FAI-PEP's to a configuration: what goes where, and what is said of the rest."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, settings, yamlfile
from aibenchd.migrate import arguments, command, writing
from aibenchd.migrate.old import Note, Value, pure

ROOT = Path(__file__).parents[2]
SPECIFICATION = ROOT / "tests" / "data" / "faipep" / "models" / "caffe2" / "squeezenet" / "squeezenet.json"
# Made once: to check the schema itself takes half a second.
EDITOR = jsonschema.Draft202012Validator(json.loads((ROOT / "config" / "aibenchd.schema.json").read_text()))
TOKEN = "EAAB-0123456789-secret"
BASE = f"-b {SPECIFICATION} --framework caffe2 -p host"


def git(directory: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(directory), *words], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without saved answers, and a clone of FAI-PEP's to work in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "engine").mkdir()
    git(tmp_path / "engine", "init", "-q")
    git(tmp_path / "engine", "remote", "add", "origin", "https://example.org/engine.git")
    return tmp_path / "home"


def migrated(written: str, script: str = "repo_driver.py") -> tuple[Any, list[str], str]:
    """What the file holds, the notes and the file; it is what editors take for valid too."""
    text, notes = command.migrated([script, *shlex.split(written)])
    path = Path("migrated.yaml")
    path.write_text(text)
    held = yamlfile.load(path).value
    EDITOR.validate(held)
    return held, [str(note) for note in notes], text


def at(value: Any, key: str) -> Any:
    """What is at a key such as ``devices[0].name``; None where nothing is."""
    for step in re.findall(r"\w+", key):
        value = value[int(step)] if step.isdecimal() else value.get(step)
        if value is None:
            return None
    return value


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", {"experiment": {"arms": 1}, "benchmarks[0].specification": str(SPECIFICATION), "version": 1}),
        ("", {"devices": [{"name": "host", "kind": "local", "platform": "host"}], "verify": None, "bisect": None}),
        ("--timeout 300 --wipe_cache true", {"experiment": {"arms": 1, "timeout": "5m", "disturb_caches": True}}),
        ("--wipe_cache false", {"experiment.disturb_caches": False}),
        ("--ab_testing", {"experiment.arms": 2, "verify.enabled": False, "bisect.enabled": False}),
        ("--ab_testing --repo_dir engine", {"repositories[0].baseline": {"rule": "week-start"}}),
        ("--ab_testing --base_commit ab --repo_dir engine", {"repositories[0].baseline.base_commit": "ab"}),
        ("--ab_testing --regression", {"experiment.arms": 2, "verify.enabled": True, "bisect.enabled": True}),
        ("--regression --repo_dir engine", {"experiment.arms": 2, "repositories[0].baseline": None}),
        ("--ab_testing --run_type verify", {"verify.enabled": True}),
        ("--repo_dir engine", {"repositories": [{
            "name": "engine", "url": "https://example.org/engine.git", "branch": "master", "framework": "caffe2",
        }]}),
        ("--repo_dir engine --branch main --commit main", {"repositories[0].branch": "main", "repositories[0].start_at": None}),
        ("--repo_dir engine --commit 0123456", {"repositories[0].start_at": "0123456"}),
        ("--repo_dir engine --commit 123e4", {"repositories[0].start_at": "123e4"}),
        ("--repo_dir engine --interval 90 --step 3", {
            "repositories[0].poll_interval": "1m30s", "repositories[0].min_run_interval": "1m30s", "repositories[0].step": 3,
        }),
        ("--repo_dir engine --repo hg", {"repositories[0].kind": "hg"}),
        ("--repo_dir engine --remote_repository git@host:x.git", {"repositories[0].url": "git@host:x.git"}),
        ("--exec_dir /var/exec --same_host", {"state_directory": "/var/exec/aibenchd", "builds.same_host": True}),
        ("--platform_sig 'Intel Core i7'", {"devices[0].name": "Intel-Core-i7"}),
        ("--cooldown 2.5", {"devices[0].cooldown": "2s500ms"}),
        ("-p android -d X --cooldown 2.5 --reboot --set_freq mid", {
            "devices[0].cooldown": "2s500ms", "devices[0].conditioning": {"frequency": "mid", "reboot": True},
        }),
        ("-p android -d X --set_freq 1200000000", {"devices[0].conditioning.frequency": "1200000000"}),
        ("--backend mkl", {"benchmarks[0].backends": ["mkl"], "benchmarks[0].command_args": "--backend {backend}"}),
        ("--backend mkl --command_args='--a 1'", {"benchmarks[0].command_args": "--a 1 --backend {backend}"}),
        ("--backend dnnlowp", {"benchmarks[0].backends": None, "benchmarks[0].command_args": "--backend dnnlowp"}),
        ("""--string_map '{"a": "yes", "b": 2, "c": "{x}", "d": "0x10"}'""", {
            "benchmarks[0].string_map": {"a": "yes", "b": "2", "c": "{x}", "d": "0x10"},
        }),
        ("--env A=1 B=x=y C=", {"benchmarks[0].env": {"A": "1", "B": "x=y", "C": ""}}),
        ("--shared_libs /a/x.so,/a/y.so", {"benchmarks[0].meta.libraries": [{"location": "/a/x.so"}, {"location": "/a/y.so"}]}),
        ("""--info '{"meta": {"group": "g", "libraries": [{"location": "z"}]}}' --shared_libs /x""", {
            "benchmarks[0].meta": {"group": "g", "libraries": [{"location": "/x"}, {"location": "z"}]},
        }),
        ("--debug", {"benchmarks[0].meta.log_output": True}),
        ("--model_cache /m --root_model_dir /r", {"models": {"directory": "/m", "root": "/r"}}),
        ("--user_identifier 17 --user_string joe", {"user_identifier": "17", "user_string": "joe"}),
        ("--screen_reporter --simple_screen_reporter --local_reporter /a --simple_local_reporter /b", {
            "sinks[0].kind": "screen", "sinks[1].kind": "simple-screen",
            "sinks[2]": {"name": "local", "kind": "local", "directory": "/a"}, "sinks[3].kind": "simple-local",
        }),
        ("--remote_reporter 'https://x.org/y|lab'", {"sinks[0]": {
            "name": "remote", "kind": "http", "url": "https://x.org/y|lab", "format": "faipep", "compress": False,
        }}),
        ("--remote_reporter 'x.org/y | lab'", {"sinks[0].url": "https://x.org/y|lab"}),
        (f"--remote_reporter 'x.org/y|lab' --remote_access_token {TOKEN}", {"sinks[0].token_file": "./remote-access-token"}),
        ("-p android -d R5CT,10.0.0.7:5555 --android_dir /data/local/tmp/", {"devices": [
            {"name": "R5CT", "kind": "adb", "serial": "R5CT", "directory": "/data/local/tmp/aibenchd"},
            {"name": "10.0.0.7-5555", "kind": "adb", "address": "10.0.0.7:5555", "directory": "/data/local/tmp/aibenchd"},
        ], "benchmarks[0].devices": None}),
        ("-p android --device R5CT", {"devices[0].serial": "R5CT"}),
        ("""-p android --device '{"hash": "R5CT", "kind": "Pixel 6-12-31"}'""", {"devices[0].serial": "R5CT"}),
        ("--platforms android,host -d R5CT", {"devices[0].kind": "local", "devices[1].serial": "R5CT"}),
        ("-p android -d 'R5CT,Pixel 6-12-31'", {"benchmarks[0].devices": {"names": ["R5CT"], "models": ["Pixel 6-12-31"]}}),
    ],
)  # fmt: skip
def test_what_becomes_of_it(written: str, expected: dict[str, Any]) -> None:
    held, _, _ = migrated(f"{BASE} {written}")
    assert {key: at(held, key) for key in expected} == expected


INFO = json.dumps({"treatment": {"commit": "ab", "program": "/x"}, "control": {"commit": "cd"}, "q": 1})
PHONES = {"R5CT": "Pixel 6-12-31", "R5XX": "Pixel 6-12-31", "9AZ": "SM-G950U-7.0-24"}


def test_phones_of_a_mapping() -> None:
    Path("phones.json").write_text(json.dumps(PHONES))
    Path("names.json").write_text(json.dumps({"Pixel 6-12-31": "Pixel 6", "SM-G950U-7.0-24": "Galaxy S8"}))
    line = f"{BASE} -p android --hash_platform_mapping phones.json --device_name_mapping names.json"
    held, _, _ = migrated(line)
    assert [(one["name"], one["serial"]) for one in held["devices"]] == [("R5CT", "R5CT"), ("R5XX", "R5XX"), ("Galaxy-S8", "9AZ")]
    held, _, _ = migrated(f"{line} -d 'Pixel 6-12-31' --excluded_devices R5XX")
    assert [one["serial"] for one in held["devices"]] == ["R5CT", "R5XX"]
    assert held["benchmarks"][0]["devices"] == {"exclude": ["R5XX"]}
    held, _, _ = migrated(f"{line} --excluded_devices 'Pixel 6-12-31'")
    assert held["benchmarks"][0]["devices"] == {"exclude": ["R5CT", "R5XX"]}


@pytest.mark.parametrize(
    ("written", "notes"),
    [
        ("", ["--framework: the repository is not known, because --repo_dir was not given; add repositories: [{"]),
        ("", ["--interval: was not given, so FAI-PEP ended after one run"]),
        ("-p android", ["--platform: android: FAI-PEP took every phone that adb showed; run `aibenchd discover`"]),
        ("-p android -d 'Pixel 6-12-31'", ["--devices: Pixel 6-12-31: no serial number is known here"]),
        ("-p ios --ios_dir /tmp", ["--platform: ios is not carried over", "--ios_dir: there are no iOS devices yet"]),
        ("-p android/a,android/b -d X", ["--platform: phones are built for android/a here; not carried over: android/b"]),
        ("-p host,linux", ["--platform: this host is one device, here of the platform host; not carried over: linux"]),
        ("-p mac", ["--platform: mac: aibenchd runs on Linux"]),
        ("-p ios --reboot", ["--reboot: would go into devices[].conditioning.reboot; nothing here takes it"]),
        ("-p ios --cooldown 3", ["--cooldown: 3 would go into devices[].cooldown; nothing here takes it"]),
        ("--reboot", ["--reboot: this host is not rebooted, which FAI-PEP did not do either"]),
        ("--set_freq max", ["--set_freq: FAI-PEP set it on phones alone; on this host conditioning: {frequency: max} does"]),
        ("-d X", ["--devices: is about phones, and none is measured on"]),
        ("-p android -d X --excluded_devices Y", ["--excluded_devices: Y: has no entry here"]),
        ("""-p android -d X --monsoon_map '{"X": 15518}'""", ["Monsoon 15518, and give X a meter: {kind: program, command: ["]),
        ("--program /x/bench", ["aibenchctl submit FILE --treatment /x/bench", "`aibenchd bench -b FILE --program /x/bench`"]),
        (f"--info '{INFO}'", [
            "--info: to measure its commits once: `aibenchctl ab ab cd`", "--info: its programs: `aibenchctl submit",
            "what is measured: q",
        ]),
        ("--regressed_types '[]'", ["--regressed_types: records of the run type regress"]),
        ("--status_file paused", ["--status_file: says 0 now"]),
        ("--commit_file none --repo_dir engine", ["--commit_file: ", "names no commit yet"]),
        ("--repo_dir engine --remote_repository upstream", ["--repo_dir: has no remote upstream that git tells"]),
        ("--base_commit ab", ["--base_commit: goes with --ab_testing, which was not given"]),
        (f"--remote_access_token {TOKEN}", ["--remote_access_token: goes with --remote_reporter"]),
        (f"--remote_reporter 'http://x.org/y|z' --remote_access_token {TOKEN}", ["--remote_access_token: is not sent"]),
        (f"--remote_reporter 'x.org/y|z' --remote_access_token {TOKEN}", ["run (umask 077; cat > remote-access-token)"]),
        ("--backend dnnlowp", ["--backend: dnnlowp is handed to programs, as FAI-PEP did, and what executes is not verified"]),
        ("--branch a --branch b --repo_dir engine", ["--branch: was given more than once"]),
        ("--lab --server_addr http://x", ["--lab: the daemon does it", "--server_addr: `aibenchctl -H ssh://"]),
        ("--logger_level warning", ["`aibenchd serve --log-level warning`"]),
        ("--hash_platform_mapping phones.json -p android -d R5CT", ["phones.json would go into devices[].serial"]),
        ("--platforms host", ["--platform: host would go into devices[].platform; nothing here takes it"]),
    ],
)  # fmt: skip
def test_what_has_no_key_is_said(written: str, notes: list[str]) -> None:
    Path("paused").write_text("0\n")
    Path("phones.json").write_text(json.dumps(PHONES))
    _, said, text = migrated(f"{BASE} {written}")
    unfolded = re.sub(r"\n# +(?!- )", " ", text)
    for wanted in notes:
        assert any(wanted in note for note in said), said
        assert wanted in unfolded


def test_without_a_repository_it_is_said_what_comes_next() -> None:
    _, notes, _ = migrated(BASE, script="run_bench.py")
    (note,) = (one for one in notes if "the repository is not known" in one)
    assert "for without one the daemon measures nothing" in note
    assert note.endswith(
        f"; or for a program that is there, without a daemon: aibenchd bench -b {SPECIFICATION} --program PROGRAM"
    )
    assert not any("the repository is not known" in one for one in migrated(f"{BASE} --repo_dir engine")[1])


def test_no_secret_is_in_the_file_or_in_what_is_said() -> None:
    git(Path("engine"), "remote", "set-url", "origin", f"https://joe:{TOKEN}@example.org/engine.git")
    held, notes, text = migrated(f"{BASE} --repo_dir engine --remote_reporter 'x.org/y|z' --remote_access_token={TOKEN}")
    assert held["repositories"][0]["url"] == "https://example.org/engine.git"
    assert TOKEN not in text + "".join(notes)
    assert any("credentials: {token_file: ./repository-token}" in note for note in notes)


def test_the_clone_is_watched_where_its_remote_is_a_path() -> None:
    git(Path("engine"), "remote", "set-url", "origin", "../up/engine.git")
    held, _, _ = migrated(f"{BASE} --repo_dir engine")
    assert held["repositories"][0]["url"] == str(Path.cwd() / "up" / "engine.git")


def test_mercurial_names_its_remote_otherwise() -> None:
    pytest.importorskip("mercurial")
    subprocess.run([Path(sys.executable).with_name("hg"), "init", "hgrepo"], check=True)
    Path("hgrepo/.hg/hgrc").write_text("[paths]\ndefault = https://example.org/hg\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        held, _, _ = migrated(f"{BASE} --repo hg --repo_dir hgrepo")
    assert (held["repositories"][0]["kind"], held["repositories"][0]["url"]) == ("hg", "https://example.org/hg")


def test_build_scripts_are_those_beside_the_script(tmp_path: Path) -> None:
    text, _ = command.migrated(["x/benchmarking/harness.py", *shlex.split(BASE)])
    assert str(ROOT / "specifications" / "frameworks") in text
    (tmp_path / "x" / "specifications" / "frameworks").mkdir(parents=True)
    text, _ = command.migrated(["x/benchmarking/harness.py", *shlex.split(BASE)])
    assert f"frameworks_directory: {tmp_path}/x/specifications/frameworks  # as of harness.py" in text
    (tmp_path / "own").mkdir()
    text, _ = command.migrated(["x/benchmarking/harness.py", *shlex.split(BASE), "--frameworks_dir", "own"])
    assert f"frameworks_directory: {tmp_path}/own" in text


def test_the_commit_that_it_came_to_goes_before_the_one_named() -> None:
    Path("done").write_text("feed\n")
    held, _, _ = migrated(f"{BASE} --repo_dir engine --commit beef --commit_file done")
    assert held["repositories"][0]["start_at"] == "feed"


DEEP = '{"a":' * 100_000  # past what a reader of JSON goes into


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("-b nothere.json --framework caffe2", "--benchmark_file: expected a file: "),
        ("--framework caffe2", "--benchmark_file: expected it, on the command line or among the answers of run_bench.py"),
        (f"-b {SPECIFICATION}", "--framework: expected it, on the command line"),
        (f"-b {SPECIFICATION} --framework cafe2", "--framework: expected a framework (did you mean 'caffe2'?), not 'cafe2'"),
        (f"{BASE} --repo_dir nothere", "--repo_dir: expected a directory: "),
        (f"{BASE} --frameworks_dir nothere", "--frameworks_dir: expected a directory: "),
        (f"{BASE} -p beos", "--platform: expected platforms that begin with android, host, linux, mac or ios"),
        (f"{BASE} --cooldown soon", "--cooldown: expected a number from 0, in seconds where it is a time, not 'soon'"),
        (f"{BASE} --timeout -3", "--timeout: expected a number from 0"),
        pytest.param(f"{BASE} --info {'[' * 1_000}", "--info: expected a file: ", id="long"),
        pytest.param(f"{BASE} --info '{DEEP}'", "--info: expected a JSON object: ", id="deep"),
        (f"{BASE} --shared_libs a --info '{{\"meta\": {{\"libraries\": 5}}}}'", "--info: meta.libraries: expected a list, not"),
        (f"{BASE} --step 0.5 --repo_dir engine", "--step: expected a whole number, not '0.5'"),
        (f"{BASE} --timeout 0", "--timeout: experiment.timeout: expected a duration of at least 1ms"),
        (f"{BASE} --timeout nan", "--timeout: expected a number from 0"),
        (f"{BASE} --repo_dir engine --repo svn", "--repo: repositories[0].kind: 'svn' is none of the installed kinds"),
        (f"{BASE} -p android -d X --set_freq 1.2GHz", "--set_freq: devices[0].conditioning.frequency: expected max"),
        (f"{BASE} --string_map nothere.json", "--string_map: expected a file: "),
        (f"{BASE} --string_map '{{a}}'", "--string_map: expected a JSON object: "),
        (f"""{BASE} --string_map '{{"a": []}}'""", "--string_map: a: expected a text, not "),
        (f"{BASE} --env A", "--env: expected NAME=VALUE, as often as needed, not 'A'"),
        (f"{BASE} --env API_TOKEN=x", "--env: benchmarks[0].env.API_TOKEN: secrets are not kept in this file"),
        (f"""{BASE} --info '{{"meta": 1}}'""", "--info: meta: expected an object, not the number 1"),
        (f"{BASE} --remote_reporter x.org", "--remote_reporter: expected <url>|<category>"),
        (f"{BASE} --remote_reporter 'https://a:b@x.org/y|z'", "--remote_reporter: sinks[0].url: holds a password or token"),
        (f"{BASE} -p android --android_dir tmp -d X", "--android_dir: expected an absolute path on the phone"),
        (f"""{BASE} -p android --device '{{"kind": "x"}}'""", "--device: expected a serial number, or an object such as"),
        (f"{BASE} --status_file engine", "cannot be read: Is a directory"),
        (f"{BASE} --repo_dir engine --commit_file binary", "--commit_file: "),
        (f"{BASE} --repo_dir engine --commit_file binary", "expected a line of text, found other bytes"),
        (f"{BASE} -p android --hash_platform_mapping list.json", "list.json"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(written: str, said: str) -> None:
    Path("binary").write_bytes(b"\xff\xfe")
    Path("list.json").write_text("[1]")
    with pytest.raises((errors.ArgumentError, errors.InvalidFileError)) as caught:
        migrated(written)
    assert said in str(caught.value)


def answer(directory: Path, **answers: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.txt").write_text(json.dumps({f"--{name}": value for name, value in answers.items()}, indent=2))


def test_saved_answers_are_read_and_the_command_line_goes_before_them(home: Path) -> None:
    directory = home / ".aibench" / "git"
    answer(
        directory,
        framework="caffe2", platform="android", timeout=300, screen_reporter=None, remote_reporter="", commit="master",
        repo_dir=str(Path("engine").absolute()), remote_repository="origin",
        commit_file=str(directory / "processed_commit"), status_file=str(directory / "status"),
        benchmark_table="benchmark_benchmarkinfo", server_addr="http://127.0.0.1:8000",
    )  # fmt: skip
    (directory / "processed_commit").write_text("feedbeef")
    held, notes, _ = migrated(f"-b {SPECIFICATION} --platforms host", "run_bench.py")
    assert held["repositories"][0]["start_at"] == "feedbeef"
    assert held["devices"] == [{"name": "host", "kind": "local", "platform": "host"}]
    assert held["experiment"]["timeout"] == "5m"
    assert [one["kind"] for one in held["sinks"]] == ["screen"]
    assert held["status_file"] == str(directory / "status")
    assert any(note.startswith("--benchmark_table: of FAI-PEP's lab server") for note in notes)
    held, _, _ = migrated(f"-b {SPECIFICATION} --timeout 7 --platform host", "run_bench.py")
    assert held["experiment"]["timeout"] == "7s"
    held, _, _ = migrated(f"-b {SPECIFICATION} --framework caffe2", "repo_driver.py")  # which does not read them
    assert "devices" not in held
    (directory / "config_overrides.txt").write_text('{"--timeout": 8}')
    held, _, _ = migrated(f"-b {SPECIFICATION}", "run_bench.py")
    assert held["experiment"]["timeout"] == "8s"


def test_where_nothing_was_saved_it_is_said(home: Path) -> None:
    _, notes, _ = migrated(f"{BASE}", "run_bench.py")
    assert f"--config_dir: there are no saved answers in {home}/.aibench/git: only the command line was read" in notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"--framwork": "caffe2"}', "'--framwork': none of FAI-PEP's arguments; did you mean --framework?"),
        ("[1]", "expected an object, argument: value"),
        ('{"--framework": ', "is not YAML"),
    ],
)
def test_answers_that_are_wrong_are_said_with_their_file(text: str, said: str) -> None:
    Path("answers").mkdir()
    Path("answers/config.txt").write_text(text)
    with pytest.raises(errors.InvalidFileError) as caught:
        migrated(f"{BASE} --config_dir answers", "run_bench.py")
    assert said in str(caught.value)
    assert str(Path("answers/config.txt").absolute()) in str(caught.value)


def test_a_directory_without_answers_is_said() -> None:
    with pytest.raises(errors.ArgumentError, match=r"--config_dir: expected config\.txt with the saved answers in"):
        migrated(f"{BASE} --config_dir nothere", "run_bench.py")


def value_for(argument: arguments.Argument) -> list[str]:
    """A value that means something; each is worth a line of its own in what is printed."""
    special = {
        "--repo": ["git"], "--repo_dir": ["engine"], "--frameworks_dir": ["engine"], "--env": ["A=zz"], "--set_freq": ["max"],
        "--framework": ["pytorch"], "--platform": ["linux"], "--platforms": ["linux"],
        "--benchmark_file": [str(ROOT / "README.md")], "--remote_reporter": ["zz.org/a|b"], "--config_dir": ["answers"],
        "--run_type": ["verify"], "--regressed_types": ['["zz"]'],
        "--string_map": ['{"zz": "1"}'], "--info": ['{"zz": "1"}'], "--monsoon_map": ['{"zz": "1"}'],
        "--hash_platform_mapping": ["map.json"], "--device_name_mapping": ["map.json"],
        "--cooldown": ["17"], "--timeout": ["17"], "--interval": ["17"], "--step": ["17"],
    }  # fmt: skip
    return [] if argument.takes is arguments.Takes.NOTHING else special.get(argument.name, ["zz"])


@pytest.mark.parametrize("script", arguments.SCRIPTS)
@pytest.mark.parametrize("argument", arguments.ARGUMENTS, ids=lambda one: one.name)
def test_nothing_that_is_given_is_lost(argument: arguments.Argument, script: str) -> None:
    """Each argument, with any script, stands beside a value or in a note; the file's own words are not counted."""
    Path("map.json").write_text('{"zz": "1"}')
    Path("answers").mkdir()
    Path("answers/config.txt").write_text("{}")
    _, notes, text = migrated(f"{BASE} {shlex.join([argument.name, *value_for(argument)])}", script)
    beside = {name for line in text.splitlines() for name in re.findall(r"--\w+", line.partition("  # ")[2])}
    noted = {name for note in notes for name in re.findall(r"--\w+", note)}
    assert argument.name in beside | noted


# Other characters can be in no configuration.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = TEXTS | st.integers(-(2**60), 2**60) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.none()
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(TEXTS, TREES.map(lambda tree: Value(tree, "--a")), max_size=4), st.text())
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Value], words: str) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    text = writing.text({"devices": tree}, [Note("--a", words)], "harness.py", "s.json")
    path.write_text(text)
    assert yamlfile.load(path).value == {"version": 1, "devices": pure(tree)}, text


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "aibenchd", *words], capture_output=True, text=True, check=False)


def test_the_command_prints_the_file_and_says_the_rest() -> None:
    done = run("migrate", "--", "python", "harness.py", *shlex.split(BASE), "--screen_reporter")
    assert done.returncode == 0
    assert done.stdout.startswith(f"# yaml-language-server: $schema={ROOT}/config/aibenchd.schema.json\n")
    assert done.stdout.endswith("\n")
    assert all(line.startswith("note: --") for line in done.stderr.splitlines())
    Path("lab.yaml").write_text(done.stdout)
    assert settings.load(Path("lab.yaml")).experiment.arms == 1
    again = run("migrate", "--", "python", "harness.py", *shlex.split(BASE), "--screen_reporter")
    assert again.stdout == done.stdout


def test_the_schema_that_it_names_is_there() -> None:
    _, _, text = migrated(BASE)
    assert Path(text.splitlines()[0].partition("$schema=")[2]).is_file()


def test_a_wrong_command_line_is_a_users_error() -> None:
    done = run("migrate", "--", "harness.py", "--nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("'--nonsense': none of FAI-PEP's arguments")


def test_what_it_prints_reads_as_written_by_hand() -> None:
    Path("done").write_text("feed")
    line = f"{BASE} --repo_dir engine --ab_testing --regression --interval 60 --commit_file done --cooldown 5 --env A=1"
    _, _, text = migrated(line)
    assert (
        text.partition("\nrepositories:")[2]
        == f"""
  - name: engine
    url: https://example.org/engine.git  # --repo_dir, --remote_repository
    branch: master                      # as of FAI-PEP, where --branch was not given
    framework: caffe2                   # --framework
    start_at: feed                      # --commit_file; the last that FAI-PEP finished
    poll_interval: 1m                   # --interval
    min_run_interval: 1m                # --interval
    baseline:
      rule: week-start                  # --ab_testing

builds:
  frameworks_directory: {ROOT}/specifications/frameworks  # of aibenchd

devices:
  - name: host
    kind: local
    platform: host                      # --platform
    cooldown: 5s                        # --cooldown

benchmarks:
  - specification: {SPECIFICATION}  # --benchmark_file
    env:
      A: "1"                            # --env

experiment:
  arms: 2                               # --ab_testing

verify:
  enabled: true                         # --regression

bisect:
  enabled: true                         # --regression
"""
    )


def test_what_run_remote_did_is_said_to_be_the_clients() -> None:
    test = {"metric": "delay", "commands": ["x"]}
    Path("x.json").write_text(json.dumps({"model": {"name": "n", "format": "generic"}, "tests": [test]}))
    words = "-b x.json --devices R5CT -p android --framework generic --async_submit --fetch_result --kill --job_queue q --token t"
    _, notes = command.migrated([f"run_remote.py {words}"])
    said = {str(note).partition(": ")[0]: str(note) for note in notes}
    assert "'aibenchctl submit FILE --treatment PROGRAM --device NAME'" in said["run_remote.py"]
    assert "aibenchctl request ID" in said["--fetch_result"]
    assert "aibenchctl cancel ID" in said["--kill"]
    assert "nothing here takes it" not in said["--job_queue"] + said["--token"]
