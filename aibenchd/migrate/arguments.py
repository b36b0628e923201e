"""Every argument of FAI-PEP's scripts, and what has its place here. The README's table is made of this one. Pure."""

from __future__ import annotations

import enum
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from aibenchd import errors, faults

SCRIPTS = ("harness.py", "repo_driver.py", "run_bench.py", "run_remote.py")
BEGIN, END = "<!-- arguments -->", "<!-- /arguments -->"


class Takes(enum.Enum):
    """How many words follow an argument."""

    NOTHING = enum.auto()
    ONE = enum.auto()
    MANY = enum.auto()


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument.

    Attributes:
        name, short: as it is written; ``short`` is empty where there is none.
        script: the one that declares it; each hands on to the others what it does not know.
        keys: of our configuration, ``devices[].cooldown``; empty where it has none.
        remark: what else there is to say, in Markdown; what to do where there is no key.
    """

    name: str
    script: str
    keys: tuple[str, ...] = ()
    remark: str = ""
    short: str = ""
    takes: Takes = Takes.ONE

    @property
    def names(self) -> tuple[str, ...]:
        return (self.short, self.name) if self.short else (self.name,)


def _of(script: str, *arguments: Argument) -> Iterator[Argument]:
    """The table is written without the script's name in each row."""
    for one in arguments:
        yield Argument(one.name, script, one.keys, one.remark, one.short, one.takes)


def _row(name: str, *keys: str, remark: str = "", short: str = "", takes: Takes = Takes.ONE) -> Argument:
    return Argument(name, "", keys, remark, short, takes)


_LAB = "of FAI-PEP's lab server, which nothing here needs"
_JOBS = "of FAI-PEP's queues of jobs: what is sent waits in the journal for its device"
_SENT = "what was sent is kept by digest, and not sent again: `aibenchctl submit`"

ARGUMENTS: tuple[Argument, ...] = (
    *_of(
        "harness.py",
        _row("--android_dir", "devices[].directory", remark="with `aibenchd` below it: nothing else may lie there"),
        _row("--backend", "benchmarks[].backends", "benchmarks[].command_args", remark="programs are told, and have to prove it"),
        _row("--benchmark_file", "benchmarks[].specification", short="-b"),
        _row("--command_args", "benchmarks[].command_args"),
        _row("--cooldown", "devices[].cooldown"),
        _row("--debug", "benchmarks[].meta", remark="its `log_output`; logs are kept all the same", takes=Takes.NOTHING),
        _row("--device", "devices[].serial", "devices[].address"),
        _row("--devices", "devices[].serial", "devices[].address", "benchmarks[].devices", short="-d"),
        _row("--device_name_mapping", "devices[].name"),
        _row("--env", "benchmarks[].env", takes=Takes.MANY),
        _row("--excluded_devices", "benchmarks[].devices.exclude"),
        _row("--framework", "repositories[].framework"),
        _row("--hash_platform_mapping", "devices[].serial", remark="an entry for each phone that it lists"),
        _row(
            "--info",
            "benchmarks[].meta",
            remark="what is in its `meta`; its programs: `aibenchctl submit`; its commits: `aibenchctl ab`",
        ),
        _row("--ios_dir", remark="there are no iOS devices yet"),
        _row("--local_reporter", "sinks[].directory", remark="kind `local`"),
        _row("--model_cache", "models.directory"),
        _row("--monsoon_map", "devices[].meter", remark="a program of yours that prints watts"),
        _row("--platform", "devices[].platform", short="-p"),
        _row("--platform_sig", "devices[].name"),
        _row(
            "--program",
            remark="`aibenchctl submit FILE --treatment PROGRAM`; `aibenchd bench --program`; or have a `build.sh` copy it",
        ),
        _row("--reboot", "devices[].conditioning.reboot", takes=Takes.NOTHING),
        _row("--regressed_types", remark="`regressed_types` of records of run type `regress` says it"),
        _row("--remote_access_token", "sinks[].token_file", remark="the token itself goes into that file"),
        _row("--remote_reporter", "sinks[].url", remark="kind `http`, `format: faipep`"),
        _row("--root_model_dir", "models.root"),
        _row("--run_type", "verify.enabled", remark="run types follow from verdicts: `verify`, then `regress`"),
        _row("--screen_reporter", "sinks[].kind", remark="`screen`", takes=Takes.NOTHING),
        _row("--set_freq", "devices[].conditioning.frequency", remark="put back afterwards"),
        _row("--shared_libs", "benchmarks[].meta", remark="its `libraries`"),
        _row("--simple_local_reporter", "sinks[].directory", remark="kind `simple-local`"),
        _row("--simple_screen_reporter", "sinks[].kind", remark="`simple-screen`", takes=Takes.NOTHING),
        _row("--specifications_dir", remark="locations are relative to the specification"),
        _row("--string_map", "benchmarks[].string_map"),
        _row("--timeout", "experiment.timeout"),
        _row("--user_identifier", "user_identifier"),
        _row("--user_string", "user_string"),
        _row("--wipe_cache", "experiment.disturb_caches", remark="by the device, not by the program"),
    ),
    *_of(
        "repo_driver.py",
        _row("--ab_testing", "experiment.arms", "repositories[].baseline.rule", remark="2, `week-start`", takes=Takes.NOTHING),
        _row("--base_commit", "repositories[].baseline.base_commit"),
        _row("--branch", "repositories[].branch"),
        _row("--commit", "repositories[].start_at"),
        _row("--commit_file", "repositories[].start_at", remark="what is in it; from then on the journal knows"),
        _row("--exec_dir", "state_directory", remark="builds are kept below it"),
        _row("--frameworks_dir", "builds.frameworks_directory"),
        _row("--interval", "repositories[].poll_interval", "repositories[].min_run_interval"),
        _row("--platforms", "devices[].platform"),
        _row("--regression", "verify.enabled", "bisect.enabled", takes=Takes.NOTHING),
        _row("--remote_repository", "repositories[].url", remark="that remote's address, as the clone in `--repo_dir` has it"),
        _row("--repo", "repositories[].kind"),
        _row("--repo_dir", "repositories[].url", remark="the daemon has a clone of its own"),
        _row("--same_host", "builds.same_host", takes=Takes.NOTHING),
        _row("--status_file", "status_file", remark="or `aibenchctl pause` and `resume`; SIGTERM ends the daemon"),
        _row("--step", "repositories[].step"),
    ),
    *_of(
        "run_bench.py",
        _row("--config_dir", remark="its `config.txt` with the saved answers is read (`~/.aibench/git`)"),
        _row("--custom_binary", remark="as `--program`", short="-c"),
        _row("--pre_built_binary", remark="as `--program`"),
        _row("--logger_level", remark="`aibenchd serve --log-level`"),
        _row("--reset_options", remark="answers are not asked for: the configuration holds them", takes=Takes.NOTHING),
        _row("--lab", remark="the daemon does it: it measures what people send", takes=Takes.NOTHING),
        _row("--remote", remark="`aibenchctl -H ssh://HOST submit`, as of run_remote.py", takes=Takes.NOTHING),
        *(_row(name, remark=_LAB) for name in ("--benchmark_table", "--result_db")),
        *(
            _row(name, "submissions.cache_size", "submissions.keep", remark=_SENT)
            for name in ("--cache_config", "--file_storage")
        ),
        _row("--server_addr", remark="`aibenchctl -H ssh://[USER@]HOST[:PORT]`, or AIBENCHD_HOST"),
    ),
    *_of(
        "run_remote.py",
        _row("--async_submit", remark="`aibenchctl submit` returns at once, but with `--wait`", takes=Takes.NOTHING),
        *(_row(name, remark="`aibenchctl request ID`", takes=Takes.NOTHING) for name in ("--fetch_result", "--fetch_status")),
        _row("--kill", remark="`aibenchctl cancel ID`", takes=Takes.NOTHING),
        _row("--hashes", remark="`aibenchctl submit --device NAME`: each device has a name of its own"),
        _row("--devices_config", "devices[].name", remark="`aibenchctl devices` lists them"),
        *(_row(name, remark="`aibenchctl devices`", takes=Takes.NOTHING) for name in ("--list_devices", "--list_job_queues")),
        _row("--query_num_devices", remark="`aibenchctl devices`"),
        _row("--force_submit", remark="a device that is away is waited for", takes=Takes.NOTHING),
        *(_row(name, remark=_JOBS) for name in ("--benchmark_db", "--benchmark_db_entry", "--job_queue")),
        *(
            _row(name, remark="your own `ssh`, and the groups that the daemon's host has you in")
            for name in ("--app_id", "--token")
        ),
        _row("--log_output_dir", remark="`aibenchctl log trial ID`"),
        _row("--force_profile", remark="what is confirmed to regress is profiled: `verify.profile`", takes=Takes.NOTHING),
        _row("--test", remark="what is submitted moves no baseline, and is no commit's history", takes=Takes.NOTHING),
        _row("--urlPrefix", "dashboard.listen", remark="a page for each request"),
        _row("--adhoc", remark="write a model file; nothing is filled in here"),
        _row("--buck_target", remark="build as you do, and submit what comes of it"),
    ),
)
BY_NAME: Mapping[str, Argument] = {name: one for one in ARGUMENTS for name in one.names}


def table() -> str:
    """The README's, in Markdown: for each script its arguments, and what is here in their place."""
    return "\n".join(text for script in SCRIPTS for text in _rows(script))


def _rows(script: str) -> Iterator[str]:
    """Neighbours of which the same is said share a row."""
    yield from (f"| {script} | here |", "| --- | --- |")
    own = (one for one in ARGUMENTS if one.script == script)
    for (keys, remark), alike in itertools.groupby(own, lambda one: (one.keys, one.remark)):
        names = ", ".join(f"`{name}`" for one in alike for name in one.names)
        yield f"| {names} | {'; '.join(filter(None, (', '.join(f'`{key}`' for key in keys), remark)))} |"
    yield ""


@dataclass(frozen=True, slots=True)
class Given:
    """An argument with its words. ``source`` is where they were found, empty for the command line."""

    argument: Argument
    words: tuple[str, ...]
    source: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.argument.name}" if self.source else self.argument.name

    def wrong(self, expected: str) -> errors.ArgumentError:
        """What to raise: it is not what it should be."""
        return errors.ArgumentError(f"{self}: expected {expected}, not {faults.quoted(' '.join(self.words))}")


@dataclass(frozen=True, slots=True)
class Line:
    """A command line.

    Attributes:
        script: one of :data:`SCRIPTS`, with the path that it was called by.
        before: words before it that are no interpreter's.
        given: by the arguments' names; of one that is given twice the last, as there.
        twice: names of those.
    """

    script: PurePath
    before: tuple[str, ...] = ()
    given: Mapping[str, Given] = field(default_factory=dict)
    twice: tuple[str, ...] = ()


def read(words: Sequence[str]) -> Line:
    """A command line, as words or as one text that a shell would split.

    Raises:
        ArgumentError: it calls none of the scripts, has an argument that they do not know, or one without its value.
    """
    split = _split(words[0]) if len(words) == 1 else list(words)
    place = next((index for index, word in enumerate(split) if PurePath(word).name in SCRIPTS), None)
    if place is None:
        found = faults.quoted(" ".join(split)) if split else "nothing"
        raise errors.ArgumentError(f"expected a command line of {', '.join(SCRIPTS[:-1])} or {SCRIPTS[-1]}, found {found}")
    before = tuple(word for word in split[:place] if not _INTERPRETER.fullmatch(word))
    found_ones = list(_arguments([word for word in split[place + 1 :] if word != "--"]))
    names = [one.argument.name for one in found_ones]
    twice = tuple(dict.fromkeys(name for index, name in enumerate(names) if name in names[:index]))
    return Line(PurePath(split[place]), before, {one.argument.name: one for one in found_ones}, twice)


_INTERPRETER = re.compile(r"--|(.*/)?python[0-9.]*|-[uBEIsO]+")
_NUMBER = re.compile(r"-[0-9.]+")


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise errors.ArgumentError(f"{faults.quoted(text)} cannot be split as a shell does: {error}") from None


def _arguments(words: Sequence[str]) -> Iterator[Given]:
    index = 0
    while index < len(words):
        name, equals, value = words[index].partition("=")
        if not name.startswith("--") and name[:2] in BY_NAME:  # -bFILE
            name, equals, value = words[index][:2], words[index][2:], words[index][2:].removeprefix("=")
        argument = known(name)
        following = [value] if equals else []
        index += 1
        while index < len(words) and _wants(argument, len(following)) and not _is_option(words[index]):
            following.append(words[index])
            index += 1
        yield _complete(argument, following)


def _wants(argument: Argument, have: int) -> bool:
    return argument.takes is Takes.MANY or (argument.takes is Takes.ONE and not have)


def _is_option(word: str) -> bool:
    """As argparse sees it: what begins with a dash, has no space in it and is no number."""
    return word.startswith("-") and len(word) > 1 and " " not in word and not _NUMBER.fullmatch(word)


def _complete(argument: Argument, words: Sequence[str]) -> Given:
    if argument.takes is Takes.NOTHING and words:
        raise errors.ArgumentError(f"{argument.name}: takes no value, found {faults.quoted(words[0])}; remove it")
    if argument.takes is Takes.ONE and not words:
        raise errors.ArgumentError(f"{argument.name}: expected a value after it, found none")
    return Given(argument, tuple(words))


def known(name: str) -> Argument:
    """The argument of this name, short or long.

    Raises:
        ArgumentError: no script has it.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    if not name.startswith("-"):
        raise errors.ArgumentError(f"{faults.quoted(name)}: expected an argument such as --benchmark_file before it")
    near = faults.nearest(name, BY_NAME)
    advice = f"did you mean {near}?" if near else "the README lists those that FAI-PEP has"
    raise errors.ArgumentError(f"{faults.quoted(name)}: none of FAI-PEP's arguments; {advice}")


if __name__ == "__main__":
    print(table())  # noqa: T201
