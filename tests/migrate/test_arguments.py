"""The table of FAI-PEP's arguments, and how command lines are read by it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import errors, plugins, settings
from aibenchd.migrate import arguments

ROOT = Path(__file__).parents[2]
# Of FAI-PEP's three scripts, by its published help: every argument there must have its place.
PUBLISHED = [
    "--android_dir",
    "--ios_dir",
    "--backend",
    "-b",
    "--benchmark_file",
    "--command_args",
    "--string_map",
    "--env",
    "--shared_libs",
    "--cooldown",
    "--timeout",
    "--wipe_cache",
    "--reboot",
    "-d",
    "--devices",
    "--device",
    "--excluded_devices",
    "--framework",
    "-p",
    "--platform",
    "--platform_sig",
    "--program",
    "--info",
    "--local_reporter",
    "--simple_local_reporter",
    "--screen_reporter",
    "--simple_screen_reporter",
    "--remote_reporter",
    "--remote_access_token",
    "--model_cache",
    "--root_model_dir",
    "--run_type",
    "--regressed_types",
    "--set_freq",
    "--user_identifier",
    "--user_string",
    "--monsoon_map",
    "--hash_platform_mapping",
    "--device_name_mapping",
    "--debug",
    "--ab_testing",
    "--regression",
    "--base_commit",
    "--branch",
    "--commit",
    "--commit_file",
    "--step",
    "--interval",
    "--remote_repository",
    "--repo",
    "--repo_dir",
    "--exec_dir",
    "--frameworks_dir",
    "--platforms",
    "--same_host",
    "--status_file",
    "--reset_options",
    # of run_remote.py, which sends what is built to a lab
    "--app_id",
    "--async_submit",
    "--benchmark_db",
    "--benchmark_db_entry",
    "--benchmark_table",
    "-c",
    "--custom_binary",
    "--cache_config",
    "--hashes",
    "--log_output_dir",
    "--devices_config",
    "--fetch_result",
    "--fetch_status",
    "--kill",
    "--file_storage",
    "--force_submit",
    "--job_queue",
    "--list_devices",
    "--list_job_queues",
    "--logger_level",
    "--pre_built_binary",
    "--force_profile",
    "--query_num_devices",
    "--result_db",
    "--server_addr",
    "--test",
    "--token",
    "--urlPrefix",
    "--adhoc",
    "--buck_target",
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_argument_has_its_place(name: str) -> None:
    argument = arguments.known(name)
    assert argument.keys or argument.remark


def has_key(model: Any, steps: list[str]) -> bool:
    """Whether a key path of the table is one of the configuration; devices and sinks have those of all kinds."""
    step, *rest = steps
    if not (isinstance(model, type) and issubclass(model, pydantic.BaseModel)) or step not in model.model_fields:
        return False
    return not rest or any(has_key(inner, rest) for inner in models_in(model.model_fields[step].annotation))


def models_in(annotation: Any) -> list[Any]:
    inner = [one for part in getattr(annotation, "__args__", ()) for one in models_in(part)]
    return [annotation, *inner]


@pytest.mark.parametrize("argument", arguments.ARGUMENTS, ids=lambda one: one.name)
def test_every_key_of_the_table_is_one(argument: arguments.Argument) -> None:
    for key in argument.keys:
        section, *rest = key.replace("[]", "").split(".")
        if section in ("devices", "sinks"):
            kinds = [plugins.load(section, kind).Settings for kind in plugins.names(section)]  # type: ignore[attr-defined]
            assert any(has_key(kind, rest) for kind in kinds), key
        else:
            assert has_key(settings.Settings, [section, *rest]), key


def test_the_table_of_the_readme_is_that_of_the_code() -> None:
    readme = (ROOT / "README.md").read_text()
    (written,) = re.findall(f"{arguments.BEGIN}\n(.*?){arguments.END}", readme, re.DOTALL)
    assert written.strip() == arguments.table().strip(), "run: python -m aibenchd.migrate.arguments"


def test_the_table_has_each_argument_once() -> None:
    firsts = re.findall(r"^\| (`.*?`) \|", arguments.table(), re.MULTILINE)
    named = [name for first in firsts for name in re.findall("`(.*?)`", first)]
    assert sorted(named) == sorted(name for one in arguments.ARGUMENTS for name in one.names)


def words_of(line: arguments.Line) -> dict[str, tuple[str, ...]]:
    return {name: one.words for name, one in line.given.items()}


BENCH = {"--benchmark_file": ("x.json",), "--devices": ("a,b",), "--reboot": ()}


@pytest.mark.parametrize(
    "written",
    [
        "harness.py -b x.json -d a,b --reboot",
        "harness.py --benchmark_file=x.json --devices=a,b --reboot",
        "harness.py -bx.json -d=a,b --reboot",
        "./benchmarking/harness.py --reboot --benchmark_file x.json -d a,b",
        "python harness.py -b x.json -d a,b --reboot",
        "/usr/bin/python3.6 -u /opt/FAI-PEP/benchmarking/harness.py -b x.json -d a,b --reboot",
        "python -- harness.py -b x.json -- -d a,b --reboot",
        "-- harness.py -b x.json -d a,b --reboot --",
    ],
)
def test_one_line_in_all_its_forms(written: str) -> None:
    for words in (shlex.split(written), [written]):  # as a shell split it, and as one text
        line = arguments.read(words)
        assert line.script.name == "harness.py"
        assert line.before == ()
        assert words_of(line) == BENCH


def test_values_that_begin_with_a_dash_are_taken_as_there() -> None:
    line = arguments.read(["harness.py", "--command_args", "--warmup 1 --iter 2", "--cooldown", "-1", "--backend=-x"])
    assert words_of(line) == {"--command_args": ("--warmup 1 --iter 2",), "--cooldown": ("-1",), "--backend": ("-x",)}


def test_an_argument_may_take_several_words() -> None:
    line = arguments.read(["harness.py", "--env", "A=1", "B=two", "-p", "android"])
    assert words_of(line) == {"--env": ("A=1", "B=two"), "--platform": ("android",)}


def test_of_one_given_twice_the_last_holds_and_it_is_known() -> None:
    line = arguments.read(["harness.py", "-p", "host", "--platform", "android"])
    assert words_of(line) == {"--platform": ("android",)}
    assert line.twice == ("--platform",)


def test_words_before_the_script_are_kept() -> None:
    assert arguments.read(["env", "PYTHONPATH=x", "python", "harness.py", "--reboot"]).before == ("env", "PYTHONPATH=x")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "expected a command line of harness.py, repo_driver.py, run_bench.py or run_remote.py, found nothing"),
        ("python bench.py -b x", "expected a command line of harness.py"),
        ("harness.py --benchmark_fle x", "'--benchmark_fle': none of FAI-PEP's arguments; did you mean --benchmark_file?"),
        ("harness.py -z x", "'-z': none of FAI-PEP's arguments"),
        ("harness.py x.json", "'x.json': expected an argument such as --benchmark_file before it"),
        ("harness.py -b", "--benchmark_file: expected a value after it, found none"),
        ("harness.py -b --reboot", "--benchmark_file: expected a value after it, found none"),
        ("harness.py --reboot=yes", "--reboot: takes no value, found 'yes'"),
        ("harness.py --reboot yes", "'yes': expected an argument such as --benchmark_file before it"),
    ],
)
def test_what_is_wrong_is_said(written: str, said: str) -> None:
    with pytest.raises(errors.ArgumentError) as caught:
        arguments.read(shlex.split(written))
    assert said in str(caught.value)


def test_a_text_that_no_shell_splits_is_said_to_be_one() -> None:
    with pytest.raises(errors.ArgumentError, match="cannot be split as a shell does: No closing quotation"):
        arguments.read(["harness.py -b 'x"])


WORDS = st.sampled_from(["harness.py", "python", "--", "-b", "-bx", "--env", "--reboot", "a b", "-", "-1", "", "=", "--x=y"])


@given(st.lists(WORDS))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        line = arguments.read(words)
    except errors.ArgumentError:
        return
    assert line.script.name == "harness.py"
    given = [word for one in line.given.values() for word in one.words]
    assert all(word in "".join(words) for word in given)
