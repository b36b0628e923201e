"""What was watched, and how it was compared: the sections repositories, builds, experiment, verify and bisect. Blocking."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path, PurePath
from typing import Any
from urllib import parse

from aibenchd.migrate import answers
from aibenchd.migrate.old import Old, Tree, Value, known, name_of, origins, pure

ASK_SECONDS = 10.0
MASTER = "master"  # FAI-PEP's branch and commit where none is named
_REMOTE = re.compile(r"[^/]+:.*")  # a URL, or host:path as git has it; all else is a path
_COMMANDS = {"git": ("git", "-C", "{}", "remote", "get-url", "{}"), "hg": ("hg", "-R", "{}", "paths", "{}")}


def repositories(old: Old) -> Tree | None:
    """The one that ``--repo_dir`` is a clone of; a note in its place where none is named.

    Raises:
        ArgumentError: there is no such clone, or something is no number.
    """
    chosen = _repository(old)
    if "url" in chosen:
        return [chosen]
    written = json.dumps(pure({**chosen, "url": "URL"}), ensure_ascii=False)
    asked = ", ".join(dict.fromkeys(origins(chosen)))
    file = shlex.quote(old.text("--benchmark_file"))
    once = f"for a program that is there, without a daemon: aibenchd bench -b {file} --program PROGRAM"
    added = f"add repositories: [{written}], for without one the daemon measures nothing"
    old.note(asked, f"the repository is not known, because --repo_dir was not given; {added}; or {once}")
    return None


def _repository(old: Old) -> dict[str, Any]:
    directory = old.get("--repo_dir")
    url = _url(old, answers.existing(directory, "a directory")) if directory else None
    framework = old.text("--framework")
    step, given = old.number("--step"), old.get("--step")
    if given and step != int(step or 0):
        raise given.wrong("a whole number")
    return known(
        name=name_of(PurePath(old.text("--repo_dir")).name, framework),
        kind=old.value("--repo"),
        url=url,
        branch=old.value("--branch") or Value(MASTER, "", "as of FAI-PEP, where --branch was not given"),
        framework=old.value("--framework"),
        start_at=_start(old),
        poll_interval=old.duration("--interval") if old.number("--interval") else None,
        min_run_interval=old.duration("--interval") if old.number("--interval") else None,
        step=Value(int(step), "--step") if step else None,
        baseline=_baseline(old),
    )


def _url(old: Old, clone: Path) -> Value:
    """The address of the remote; of a clone that has none the clone itself."""
    remote = old.text("--remote_repository", "origin")
    if _REMOTE.fullmatch(remote):
        return _without_secret(old, remote, "--remote_repository")
    kind = old.text("--repo", "git")
    names = (remote, "default") if kind == "hg" else (remote,)
    address = next((found for name in names if (found := _asked(kind, str(clone), name))), "")
    if not address:
        reason = f"has no remote {remote} that {kind} tells"
        old.note("--repo_dir", f"{reason}; so the clone itself is watched, and moves when somebody pulls there")
        return Value(str(clone), "--repo_dir")
    if not _REMOTE.fullmatch(address):
        address = str((clone / address).resolve())
    return _without_secret(old, address, "--repo_dir, --remote_repository")


def _asked(kind: str, *words: str) -> str:
    left = iter(words)
    command = [next(left) if word == "{}" else word for word in _COMMANDS.get(kind, _COMMANDS["git"])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _without_secret(old: Old, address: str, origin: str) -> Value:
    """A password or token in an address belongs in a file."""
    parts = parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return Value(address, origin)
    advice = "put it into a file that only you can read, and add credentials: {token_file: ./repository-token}"
    old.note(origin, f"the remote's address holds a password or token, which is left out here; {advice}")
    return Value(parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), origin)


def _start(old: Old) -> Value | None:
    """The commit that FAI-PEP came to, else the one that it was to begin at; a branch means its newest commit."""
    file = old.get("--commit_file")
    reached = answers.line_in(file) if file else ""
    if file and reached:
        return Value(reached, "--commit_file", "the last that FAI-PEP finished")
    if file:
        old.note("--commit_file", f"{answers.absolute(file.words[0])} names no commit yet; the journal will know")
    commit = old.text("--commit", MASTER)
    branches = {MASTER, old.text("--branch", MASTER)}
    if commit in {*branches, *(f"{old.text('--remote_repository', 'origin')}/{name}" for name in branches)}:
        if old.flag("--commit"):
            old.note("--commit", f"{commit} is the branch: its newest commit is measured first, as without start_at")
        return None
    return Value(commit, "--commit")


def _baseline(old: Old) -> dict[str, Any] | None:
    if not old.flag("--ab_testing"):
        base = old.text("--base_commit")
        if base:
            advice = f"add baseline: {{rule: week-start, base_commit: {base}}} to the repository"
            old.note("--base_commit", f"goes with --ab_testing, which was not given; {advice}")
        return None
    return known(rule=Value("week-start", "--ab_testing"), base_commit=old.value("--base_commit"))


def builds(old: Old, script: PurePath) -> Tree | None:
    """Build scripts: those named, else those that FAI-PEP has beside its scripts, else our own.

    Raises:
        ArgumentError: the directory that is named is none.
    """
    same_host = Value(True, "--same_host") if old.flag("--same_host") else None
    return known(frameworks_directory=_frameworks(old, script), same_host=same_host) or None


def _frameworks(old: Old, script: PurePath) -> Value | None:
    named = old.get("--frameworks_dir")
    if named:
        return Value(str(answers.existing(named, "a directory")), "--frameworks_dir")
    beside = answers.absolute(str(script)).parent.parent / "specifications" / "frameworks"
    if script.parent.name and beside.is_dir():
        return Value(str(beside), "", f"as of {script.name}")
    own = answers.shipped("specifications/frameworks")
    return Value(str(own), "", "of aibenchd") if own else None


def decisions(old: Old) -> dict[str, Tree]:
    """The sections experiment, verify and bisect.

    Raises:
        ArgumentError: something is no number.
    """
    _of_run_types(old)
    compared = _compared(old)
    experiment = known(
        arms=compared or Value(1, "", "each commit as it is; 2: compared with the one before"),
        timeout=old.duration("--timeout"),
        disturb_caches=_caches(old),
    )
    return {"experiment": experiment, **(_what_follows(old) if compared else {})}


def _compared(old: Old) -> Value | None:
    """Two arms, where FAI-PEP compared."""
    by = next((name for name in ("--ab_testing", "--regression") if old.flag(name)), "")
    info = old.get("--info")
    if not by and info and "control" in answers.mapping(info):
        by = "--info"
    return Value(2, by) if by else None


def _what_follows(old: Old) -> dict[str, Tree]:
    if old.flag("--regression"):
        return {"verify": {"enabled": Value(True, "--regression")}, "bisect": {"enabled": Value(True, "--regression")}}
    nothing = Value(False, "", "--regression was not given; true: what regressed is measured again, and its commit searched for")
    verified = Value(True, "--run_type") if old.text("--run_type") in ("verify", "regress") else nothing
    return {"verify": {"enabled": verified}, "bisect": {"enabled": Value(False, "")}}


def _of_run_types(old: Old) -> None:
    if old.get("--run_type"):
        old.note("--run_type", "run types follow by themselves from what is decided: benchmark, verify, regress")
    if old.get("--regressed_types"):
        old.note("--regressed_types", "records of the run type regress name what regressed by themselves")
    if old.number("--interval") is None and old.script != "harness.py":
        old.note("--interval", "was not given, so FAI-PEP ended after one run; the daemon goes on with each new commit")


def _caches(old: Old) -> Value | None:
    given = old.text("--wipe_cache").lower()
    return Value(given not in ("false", "0", "no", "off"), "--wipe_cache") if given else None
