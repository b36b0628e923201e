"""Completion scripts in the shells that read them."""

from __future__ import annotations

import functools
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest
import statusd

from aibenchd import cli, completion

SHELLS = ("bash", "zsh", "fish")
DEADLINE = 30.0  # seconds, of a shell on a machine that is busy
MODULES = {"aibenchd": "aibenchd", "aibenchctl": "aibenchd.api.client"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both programs, and their scripts for each shell."""
    directory = tmp_path_factory.mktemp("installed")
    for name, module in MODULES.items():
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
        for shell in SHELLS:
            done = subprocess.run([program, "completion", shell], check=True, capture_output=True, text=True)
            (directory / f"{name}.{shell}").write_text(done.stdout)
    return directory


@pytest.fixture
def home(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a person works: the programs are on PATH, and there are files to complete. The scripts' directory."""
    (tmp_path / "lab file.yaml").write_text("")
    (tmp_path / "some directory").mkdir()
    monkeypatch.setenv("PATH", f"{installed}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRIPTS", str(installed))
    monkeypatch.chdir(tmp_path)
    return installed


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell} (Debian: {shell})")


def bash(home: Path, *words: str) -> list[str]:
    """What bash's function offers for the last word; as readline hands words over, = is one of its own."""
    split = [part for word in words for part in re.split("(=)", word) if part or word == ""]
    split += [""] if words[-1].endswith("=") else []
    program = f"""
        source '{home}/{words[0]}.bash'
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _{words[0]} 2> /dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", program, "bash", *split], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def fish(home: Path, *words: str) -> list[str]:
    """What fish offers, without its descriptions."""
    need("fish")
    line = " ".join(words)
    setup = f"source {home}/aibenchd.fish; source {home}/aibenchctl.fish;"
    done = subprocess.run(["fish", "-N", "-c", f'{setup} complete -C "{line}"'], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [row.partition("\t")[0] for row in done.stdout.splitlines()]


COMMANDS = ["serve", "check", "discover", "decide", "report", "spec", "migrate", "demo", "completion"]
CASES: list[tuple[list[str], list[str]]] = [
    (["aibenchd", ""], COMMANDS),
    (["aibenchd", "de"], ["decide", "demo"]),
    (["aibenchd", "--v"], ["--version"]),
    (["aibenchd", "serve", "--log-level", ""], ["debug", "info", "warning", "error"]),
    (["aibenchd", "serve", "--log-level", "w"], ["warning"]),
    (["aibenchd", "serve", "--l"], ["--log-level"]),
    (["aibenchd", "spec", ""], ["pin", "show"]),
    (["aibenchd", "spec", "pin", "--r"], ["--renew"]),
    (["aibenchd", "spec", "show", "--fr"], ["--framework"]),
    (["aibenchd", "decide", "--order", "p"], ["pairs"]),
    (["aibenchd", "completion", "z"], ["zsh"]),
    (["aibenchd", "report", "--s"], ["--since", "--state-directory"]),
    (["aibenchd", "report", "lab"], ["lab file.yaml"]),
    (["aibenchd", "report", "--output", "lab"], ["lab file.yaml"]),
    (["aibenchd", "check", "lab"], ["lab file.yaml"]),
    (["aibenchctl", "exp"], ["experiments"]),
    (["aibenchctl", "drain", "-"], ["-H", "--host", "-s", "--socket", "--json", "-h", "--help", "--version"]),
    (["aibenchctl", "log", ""], ["build", "trial"]),
    (["aibenchctl", "names", "re"], ["repositories", "requests"]),
    (["aibenchctl", "experiments", "--ver"], ["--verdict", "--version"]),
]


@pytest.mark.parametrize(("words", "expected"), CASES, ids=lambda words: " ".join(words))
def test_bash_offers_what_fits(home: Path, words: list[str], expected: list[str]) -> None:
    found = bash(home, *words)
    assert found if words[-1] == "" else all(one.startswith(words[-1]) for one in found)
    assert set(expected) <= set(found)


@pytest.mark.parametrize(("words", "expected"), CASES, ids=lambda words: " ".join(words))
def test_fish_offers_what_fits(home: Path, words: list[str], expected: list[str]) -> None:
    found = fish(home, *words)
    assert set(expected) <= set(found)
    if words[-1] != "lab":
        assert "lab file.yaml" not in found


def test_bash_reads_a_value_after_an_equals_sign(home: Path) -> None:
    assert bash(home, "aibenchd", "serve", "--log-level=w") == ["warning"]
    assert bash(home, "aibenchd", "serve", "--log-level=") == ["debug", "info", "warning", "error"]


def test_bash_counts_arguments_and_not_the_values_of_options(home: Path) -> None:
    assert bash(home, "aibenchd", "serve", "--log-level", "info", "lab") == ["lab file.yaml"]
    assert bash(home, "aibenchd", "serve", "x.yaml", "lab") == []
    assert bash(home, "aibenchd", "decide", "a.jsonl", "b.jsonl", "lab") == ["lab file.yaml"]
    assert bash(home, "aibenchd", "demo", "") == ["some directory"]


def test_bash_runs_no_name_and_quotes_what_it_inserts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of models and tests are texts of specifications, and those of a daemon on another host are that one's."""
    (tmp_path / "bin").mkdir()
    told = tmp_path / "bin" / "aibenchctl"
    told.write_text("#!/bin/sh\nprintf '%s\\n' 'net 1' 'net$(touch ran)' 'net`touch ran`' other\n")
    told.chmod(0o755)
    monkeypatch.setenv("PATH", f"{told.parent}:{os.environ['PATH']}")
    assert bash(home, "aibenchctl", "drain", "ne") == [r"net\ 1", r"net\$\(touch\ ran\)", r"net\`touch\ ran\`"]
    assert not (tmp_path / "ran").exists()


SETUP = {
    "bash": "PS1='> '; bind 'set enable-bracketed-paste off'; source $SCRIPTS/aibenchd.bash; source $SCRIPTS/aibenchctl.bash\n",
    "zsh": "PS1='> '; unset zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; "
    "source $SCRIPTS/aibenchd.zsh; source $SCRIPTS/aibenchctl.zsh\n",
}
START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


def typed(shell: str, keys: str) -> Iterator[str]:
    """What a terminal shows, as it comes, after these keys in an interactive shell."""
    need(shell)
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "dumb", "LC_ALL": "C.UTF-8"}
        os.execvp(START[shell][0], START[shell])
    shown, end = "", time.monotonic() + DEADLINE
    try:
        os.write(terminal, f"{SETUP[shell]}echo re''ady\n".encode())
        waiting = keys
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
            if waiting and "ready\r\n" in shown:
                shown = ""
                os.write(terminal, waiting.encode())
                waiting = ""
            yield "" if waiting else shown
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("aibenchd migr\t", "aibenchd migrate "),
        ("aibenchd serve --log-level war\t", "--log-level warning "),
        ("aibenchd serve --log-level=war\t", "--log-level=warning"),
        ("aibenchd spec pin --ren\t", "--renew "),
        ("aibenchd check lab\t", "lab\\ file.yaml "),
        ("aibenchctl expe\t", "aibenchctl experiments "),
        ("aibenchctl log tri\t", "log trial "),
    ],
)
def test_the_tabulator_completes(home: Path, shell: str, keys: str, expected: str) -> None:
    assert completed(shell, keys, expected) == ""


def completed(shell: str, keys: str, expected: str) -> str:
    """Empty once the terminal shows what is expected; else what it shows."""
    shown = ""
    for shown in typed(shell, keys):
        if expected in shown:
            return ""
    return f"{shell} shows {shown!r}"


async def test_names_come_from_the_daemon(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(tx: object) -> None:
        pair = statusd.pair(tx, "b" * 40, "a" * 40)
        statusd.experiment(tx, pair, statusd.build(tx, "b" * 40, log="build.log"))

    async with statusd.serving(tmp_path / "state") as daemon:
        await daemon.house.store.write(rows)
        for shell in (bash, fish):
            offered = functools.partial(anyio.to_thread.run_sync, shell, home, "aibenchctl")
            monkeypatch.setenv("AIBENCHD_SOCKET", str(daemon.path))
            assert await offered("drain", "lab") == ["lab-host"]
            assert await offered("show", "") == ["1"]
            assert await offered("experiments", "--device", "lab") == ["lab-host"]
            monkeypatch.setenv("AIBENCHD_SOCKET", "/nowhere")
            assert await offered("drain", "lab") == []
            assert await offered("-s", str(daemon.path), "drain", "lab") == ["lab-host"]
        keys = f"aibenchctl -s {daemon.path} drain lab\t"
        assert await anyio.to_thread.run_sync(completed, "zsh", keys, "drain lab-host ") == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", MODULES)
def test_every_shell_can_read_its_script(home: Path, name: str, shell: str) -> None:
    need(shell)
    done = subprocess.run([shell, "-n", home / f"{name}.{shell}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


TREE = completion.of_parser(cli._parser(), "aibenchd")


@pytest.mark.parametrize(
    ("path", "command"), [pair for pair in TREE.below() if pair[0]], ids=[" ".join(path) for path, _ in TREE.below() if path]
)
def test_the_help_of_each_command_suffices(path: tuple[str, ...], command: completion.Command) -> None:
    done = subprocess.run([sys.executable, "-m", "aibenchd", *path, "--help"], capture_output=True, text=True, check=True)
    shown = " ".join(done.stdout.split())
    assert all(part in done.stdout for part in ("\nexample:\n  aibenchd ", "\nexit codes:\n  0 "))
    assert command.about
    for option in command.options:
        assert option.about, option.names
        assert option.names[0] in shown
    for argument in command.arguments:
        assert re.search(rf"^  {argument.word}\b.*\n?\s+\S", done.stdout, re.MULTILINE) or argument.choices
