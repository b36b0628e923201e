"""The sections of a configuration that does what a command line of FAI-PEP's did. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib import parse

from aibenchd import errors, faults, plugins
from aibenchd.migrate import answers, arguments, devices, repositories
from aibenchd.migrate.old import Old, Tree, Value, known

TOKEN_FILE = "./remote-access-token"  # noqa: S105  its name, beside the configuration
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_LAB = ("--benchmark_table", "--cache_config", "--file_storage", "--lab", "--remote", "--result_db", "--server_addr")
_ELSEWHERE = (*_OF_LAB, *(one.name for one in arguments.ARGUMENTS if one.script == "run_remote.py"))  # done by aibenchctl
_SAID = {
    **{name: arguments.known(name).remark for name in _ELSEWHERE},
    "--config_dir": "its saved answers were read",
    "--debug": "logs are kept, see retention.logs; `aibenchd serve --log-level debug` says more; work directories are emptied",
    "--logger_level": "`aibenchd serve --log-level {value}`",
    "--specifications_dir": "locations of models are relative to the specification that names them",
    "--reset_options": "answers are not asked for: this file holds them",
    **dict.fromkeys(
        ("--program", "--custom_binary", "--pre_built_binary"),
        "{value}: `aibenchctl submit FILE --treatment {value}` has a daemon measure it, and "
        "`aibenchd bench -b FILE --program {value}` measures it without one; of each revision a daemon builds its own",
    ),
}


def of(old: Old, script: PurePath) -> dict[str, Tree]:
    """All sections, in the order of the file.

    Raises:
        ArgumentError: an argument is not what it should be.
        InvalidFileError: nor is a file that one names.
    """
    _check_framework(old)
    found = devices.devices(old)
    made = known(
        state_directory=_state_directory(old),
        repositories=repositories.repositories(old),
        builds=repositories.builds(old, script),
        devices=found.devices or None,
        benchmarks=[_benchmark(old, found.selection)],
        **repositories.decisions(old),
        models=_models(old),
        sinks=_sinks(old) or None,
        status_file=_status_file(old),
        user_identifier=old.value("--user_identifier"),
        user_string=old.value("--user_string"),
    )
    for name, text in _SAID.items():
        if old.flag(name):
            old.note(name, text.format(value=old.text(name)))
    return made


def _state_directory(old: Old) -> Value:
    given = old.get("--exec_dir")
    if given is None:
        return Value("state", "", "journal, clones and builds; without it as systemd says")
    return Value(str(answers.absolute(given.words[0]) / "aibenchd"), "--exec_dir", "journal, clones and builds")


def _benchmark(old: Old, selection: Mapping[str, Tree]) -> Tree:
    specification = old.get("--benchmark_file")
    if specification is None:
        raise errors.ArgumentError("--benchmark_file: expected it")
    strings = old.get("--string_map")
    backends, command_args = _backend(old)
    return known(
        specification=Value(str(answers.existing(specification)), "--benchmark_file"),
        devices=dict(selection) or None,
        backends=backends,
        string_map={name: Value(text, "--string_map") for name, text in answers.texts(strings).items()} if strings else None,
        meta=_meta(old) or None,
        env=_env(old),
        command_args=command_args,
    )


def _backend(old: Old) -> tuple[Value | None, Value | None]:
    """FAI-PEP told programs alone. Here what a framework can be asked for has to be proven to have run, too."""
    asked, more = old.text("--backend"), old.text("--command_args")
    if not asked:
        return None, old.value("--command_args")
    known_here = tuple(plugins.load("frameworks", old.text("--framework")).backends)  # type: ignore[attr-defined]
    proven = asked in known_here
    if not proven:
        reason = f"{old.text('--framework')} can be asked for {', '.join(known_here) or 'none that it could prove'}"
        old.note("--backend", f"{asked} is handed to programs, as FAI-PEP did, and what executes is not verified: {reason}")
    words = f"--backend {'{backend}' if proven else asked}"
    both = Value(f"{more} {words}", "--command_args, --backend") if more else Value(words, "--backend")
    return (Value([asked], "--backend") if proven else None), both


def _check_framework(old: Old) -> None:
    given = old.get("--framework")
    installed = plugins.names("frameworks")
    if given and given.words[0] not in installed:
        raise given.wrong(f"a framework ({faults.suggestion(given.words[0], installed)})")


def _meta(old: Old) -> dict[str, Any]:
    """What is merged into the models."""
    info = old.get("--info")
    told = answers.mapping(info) if info else {}
    own = told.get("meta", {})
    if info and not isinstance(own, dict):
        raise errors.ArgumentError(f"{info}: meta: expected an object, not {faults.found(own)}")
    if info and not isinstance(own.get("libraries", []), list):
        raise errors.ArgumentError(f"{info}: meta.libraries: expected a list, not {faults.found(own['libraries'])}")
    _say_info(old, told)
    found: dict[str, Tree] = {name: Value(value, "--info") for name, value in own.items()}
    libraries = [Value({"location": str(answers.absolute(text))}, "--shared_libs") for text in old.listed("--shared_libs")]
    if libraries:
        found["libraries"] = [*libraries, *(Value(one, "--info") for one in own.get("libraries", []))]
    if old.flag("--debug"):
        found["log_output"] = Value(True, "--debug")
    return found


def _say_info(old: Old, told: Mapping[str, Any]) -> None:
    arms = [told.get(arm) for arm in ("treatment", "control")]
    treatment, control = map(_commit, arms)
    if treatment:
        old.note("--info", f"to measure its commits once: `aibenchctl ab {treatment} {control}".rstrip() + "`")
    if any(isinstance(arm, dict) and {"program", "programs"} & arm.keys() for arm in arms):
        old.note("--info", _SAID["--program"].format(value="its programs"))
    others = sorted(told.keys() - {"meta", "treatment", "control"})
    if others:
        old.note("--info", f"not carried over, because it follows from what is measured: {', '.join(others)}")


def _commit(arm: Any) -> str:
    commit = arm.get("commit", "") if isinstance(arm, dict) else ""
    return commit if isinstance(commit, str) and commit != "-1" else ""


def _env(old: Old) -> dict[str, Value] | None:
    given = old.get("--env")
    if given is None:
        return None
    pairs = [word.partition("=") for word in given.words]
    if not all(name and equals for name, equals, _ in pairs):
        raise given.wrong("NAME=VALUE, as often as needed")
    return {name: Value(value, "--env") for name, _, value in pairs}


def _models(old: Old) -> Tree | None:
    directory, root = old.get("--model_cache"), old.get("--root_model_dir")
    return known(directory=_path(directory), root=_path(root)) or None


def _path(given: arguments.Given | None) -> Value | None:
    return Value(str(answers.absolute(given.words[0])), given.argument.name) if given else None


def _sinks(old: Old) -> list[Tree]:
    made: list[Tree] = []
    if old.flag("--screen_reporter"):
        made.append({"name": "screen", "kind": Value("screen", "--screen_reporter"), "records": "verdicts"})
    if old.flag("--simple_screen_reporter"):
        made.append({"name": "simple-screen", "kind": Value("simple-screen", "--simple_screen_reporter")})
    for kind, name in (("local", "--local_reporter"), ("simple-local", "--simple_local_reporter")):
        directory = _path(old.get(name))
        made += [{"name": kind, "kind": kind, "directory": directory}] if directory else []
    remote = old.get("--remote_reporter")
    made += [_remote(old, remote)] if remote else []
    if not remote and old.get("--remote_access_token"):
        old.note("--remote_access_token", "goes with --remote_reporter, which was not given: nothing is sent anywhere")
    return made


def _remote(old: Old, remote: arguments.Given) -> Tree:
    """As FAI-PEP read it: ``<url>|<category>``, https where the address does not say."""
    address, bar, category = (part.strip() for part in remote.words[0].partition("|"))
    if not (address and bar and category):
        raise remote.wrong("<url>|<category>, such as https://results.example.org/store|lab")
    url = address if address.startswith("http") else f"https://{address}"
    return known(
        name="remote",
        kind="http",
        url=Value(f"{url}|{category}", remote.argument.name),
        format="faipep",
        token_file=_token_file(old, url),
        compress=Value(False, "", "FAI-PEP did not"),
    )


def _token_file(old: Old, url: str) -> Value | None:
    if not old.get("--remote_access_token"):
        return None
    parts = parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        old.note("--remote_access_token", "is not sent: the address is not https, and it would travel in the clear")
        return None
    made = f"(umask 077; cat > {TOKEN_FILE.removeprefix('./')})"
    old.note("--remote_access_token", f"is not written here; beside this file run {made}, paste it, and end with Ctrl-D")
    return Value(TOKEN_FILE, "--remote_access_token")


def _status_file(old: Old) -> Value | None:
    given = old.get("--status_file")
    if given is None:
        return None
    if answers.line_in(given) == "0":
        old.note("--status_file", "says 0 now, so the daemon will wait; write 1 into it")
    return Value(str(answers.absolute(given.words[0])), "--status_file", "`aibenchctl pause` and `resume` do the same")
