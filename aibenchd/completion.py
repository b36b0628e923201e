"""Completion scripts for bash, zsh and fish, of a program's commands. Standard library only: both programs make theirs by it.

A script knows the commands, their options and what each takes. What only a running daemon knows, such as the names of devices,
it asks for by a command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

FILES, DIRECTORIES = "files", "directories"


class Value:
    """What is written in a place: one of ``choices``, a path of the ``kind`` FILES or DIRECTORIES, what the program's command
    ``asked`` prints, one on a line; or, with none of these, anything. ``word`` is how the help shows it."""

    __slots__ = ("asked", "choices", "kind", "word")

    def __init__(self, word: str, choices: tuple[str, ...] = (), kind: str = "", asked: str = "") -> None:
        self.word, self.choices, self.kind, self.asked = word, choices, kind, asked


class Option:
    """``names`` with their dashes; ``value`` is None for one that takes none."""

    __slots__ = ("about", "names", "value")

    def __init__(self, names: tuple[str, ...], about: str, value: Value | None = None) -> None:
        self.names, self.about, self.value = names, about, value


class Command:
    """A program or a command of it: options, and commands or ``arguments``, of which the last may stand more than once."""

    __slots__ = ("about", "arguments", "commands", "name", "options", "repeats")

    def __init__(
        self,
        name: str,
        about: str,
        options: tuple[Option, ...] = (),
        commands: tuple[Command, ...] = (),
        arguments: tuple[Value, ...] = (),
        *,
        repeats: bool = False,
    ) -> None:
        self.name, self.about, self.options = name, about, options
        self.commands, self.arguments, self.repeats = commands, arguments, repeats

    def below(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
        """Itself and all commands in it, each with the words that lead to it."""
        yield path, self
        for command in self.commands:
            yield from command.below((*path, command.name))


def script(program: Command, shell: str) -> str:
    """The script for one of SHELLS."""
    return SHELLS[shell](program)


def of_parser(parser: argparse.ArgumentParser, name: str, about: str = "") -> Command:
    """The commands of a parser of argparse's. A metavar that ends in DIRECTORY is one; FILE, TAPE and a ``Path`` are files."""
    import argparse

    options, commands, arguments, repeats = [], [], [], False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            help_of = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [
                of_parser(inner, inner_name, help_of.get(inner_name, "")) for inner_name, inner in action.choices.items()
            ]
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            options.append(Option(tuple(action.option_strings), _one_line(action), None if action.nargs == 0 else _value(action)))
        else:
            arguments.append(_value(action))
            repeats = repeats or action.nargs in ("+", "*", argparse.REMAINDER)
    return Command(name, about, tuple(options), tuple(commands), tuple(arguments), repeats=repeats)


def _one_line(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default}
    return " ".join(text.split())


def _value(action: argparse.Action) -> Value:
    word = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices:
        return Value(word, tuple(map(str, action.choices)))
    if word.endswith("DIRECTORY"):
        return Value(word, kind=DIRECTORIES)
    path = getattr(action.type, "__name__", "") in ("Path", "PurePath") or word in ("FILE", "TAPE", "COMMAND LINE")
    return Value(word, kind=FILES if path else "")


def _function(program: Command) -> str:
    return "_" + re.sub(r"\W", "_", program.name)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _places(command: Command) -> Iterator[tuple[str, Value]]:
    """Patterns of the number of arguments before, with what comes then."""
    for index, value in enumerate(command.arguments):
        last = index == len(command.arguments) - 1
        yield ("*" if last and command.repeats else str(index)), value


def bash(program: Command) -> str:
    """For bash 4.2 or later."""
    lines = [
        f"# Completion of {program.name} for bash, made by '{program.name} completion bash'.",
        f"{_function(program)}() {{",
        _BASH_READ,
        "    for ((index = 1; index < last; index++)); do",
        '        word="${words[index]}"',
        '        case "$path $word" in',
        *(f"        {_bash_names(path, option)}) {_bash_skip(program, option)} ;;" for path, option in _with_values(program)),
        *(f"        {_bash_step(path)}) path={_quoted(' '.join(path))} place=0 ;;" for path, _ in program.below() if path),
        '        *" -"*) ;;',
        "        *) ((place++)) ;;",
        "        esac",
        "    done",
        '    case "$path $before" in',
        *(f"    {_bash_names(path, option)}) {_bash_value(option.value)}; return ;;" for path, option in _with_values(program)),
        "    esac",
        '    case "$path:$current" in',
        *(f"    {_quoted(' '.join(path))}:-*) {_bash_words(_names(command))}; return ;;" for path, command in program.below()),
        "    esac",
        '    case "$path:$place" in',
        *_bash_arguments(program),
        "    esac",
        "}",
        f"complete -F {_function(program)} {program.name}",
    ]
    return "\n".join(lines) + "\n"


# --name=value comes as three words, for = breaks them.
_BASH_READ = """\
    local current before word path='' index place=0
    local -a words=() asked=()
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        [[ $word == "=" ]] && { ((index == COMP_CWORD)) && words+=(""); continue; }
        words+=("$word")
    done
    local last=$((${#words[@]} - 1))
    current="${words[last]}" before="${words[last - 1]}"
    COMPREPLY=()"""


def _with_values(program: Command) -> Iterator[tuple[tuple[str, ...], Option]]:
    for path, command in program.below():
        yield from ((path, option) for option in command.options if option.value)


def _names(command: Command) -> list[str]:
    return [name for option in command.options for name in option.names]


def _handed_on(program: Command) -> list[str]:
    """The program's own options with values: what is asked of it is asked with them, such as a socket's path."""
    return [name for option in program.options if option.value for name in option.names]


def _bash_names(path: tuple[str, ...], option: Option) -> str:
    return "|".join(_quoted(f"{' '.join(path)} {name}") for name in option.names)


def _bash_skip(program: Command, option: Option) -> str:
    handed_on = option.names[0] in _handed_on(program)
    return ('asked+=("$word" "${words[index + 1]}"); ' if handed_on else "") + "((index++))"


def _bash_step(path: tuple[str, ...]) -> str:
    return _quoted(f"{' '.join(path[:-1])} {path[-1]}")


def _bash_value(value: Value | None) -> str:
    if value and value.choices:
        return _bash_words(value.choices)
    if value and value.kind:
        flag = "-d" if value.kind == DIRECTORIES else "-f"
        return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen {flag} -- "$current")'
    if value and value.asked:
        listed = f'"${{words[0]}}" "${{asked[@]}}" {value.asked} 2> /dev/null'
        # Not by compgen: it expands each word of its list, and these are texts that anybody wrote.
        taken = '[[ $word == "$current"* ]] && { printf -v word %q "$word"; COMPREPLY+=("$word"); }'
        return f"while IFS= read -r word; do {taken}; done < <({listed})"
    return ":"


def _bash_words(words: Sequence[str]) -> str:
    return f'mapfile -t COMPREPLY < <(compgen -W {_quoted(" ".join(words))} -- "$current")'


def _bash_arguments(program: Command) -> Iterator[str]:
    for path, command in program.below():
        if command.commands:
            yield f"    {_quoted(' '.join(path))}:0) {_bash_words([one.name for one in command.commands])} ;;"
        for place, value in _places(command):
            yield f"    {_quoted(' '.join(path))}:{place}) {_bash_value(value)} ;;"


def zsh(program: Command) -> str:
    """For compinit: a file of the name ``_<program>`` in fpath."""
    functions = [line for path, command in program.below() for line in _zsh_function(program, path, command)]
    head = [f"#compdef {program.name}", f"# Completion of {program.name} for zsh, made by '{program.name} completion zsh'.", ""]
    tail = [
        f'if [ "$funcstack[1]" = {_function(program)} ]; then',
        f'    {_function(program)} "$@"',
        "else",
        f"    compdef {_function(program)} {program.name}",
        "fi",
    ]
    return "\n".join((*head, *functions, *tail)) + "\n"


def _zsh_function(program: Command, path: tuple[str, ...], command: Command) -> Iterator[str]:
    yield f"{_zsh_name(program, path)}() {{"
    yield "    local context state state_descr line ret=1"
    yield "    typeset -A opt_args"
    if not path and _handed_on(program):  # seen by the functions that this one calls
        pattern = "|".join(_handed_on(program))
        yield f"    local -a asked=(); local place=${{words[(I)({pattern})]}}"
        yield '    (( place )) && asked=("$words[place]" "$words[place + 1]")'
    specs = [spec for option in command.options for spec in _zsh_option(program, option)]
    if command.commands:
        specs += [_quoted("1:command:->command"), _quoted("*::argument:->arguments")]
    specs += [_zsh_argument(program, place, value) for place, value in _places(command)]
    yield "    _arguments -C -s " + " \\\n        ".join(specs) + " && ret=0"
    if command.commands:
        listed = " ".join(_quoted(f"{one.name}:{one.about}") for one in command.commands)
        yield '    case "$state" in'
        yield f"    command) local -a commands=({listed}); _describe -t commands command commands && ret=0 ;;"
        yield '    arguments) case "$line[1]" in'
        for one in command.commands:
            yield f"        {one.name}) {_zsh_name(program, (*path, one.name))} && ret=0 ;;"
        yield "        esac ;;"
        yield "    esac"
    yield "    return ret"
    yield "}"
    yield ""


def _zsh_name(program: Command, path: tuple[str, ...]) -> str:
    return "__".join((_function(program), *(re.sub(r"\W", "_", name) for name in path)))


def _zsh_option(program: Command, option: Option) -> Iterator[str]:
    about = re.sub(r"([\[\]:\\])", r"\\\1", option.about)
    for name in option.names:
        equals = "=" if option.value and name.startswith("--") else "+" if option.value else ""
        value = f":{option.value.word}:{_zsh_action(program, option.value)}" if option.value else ""
        yield _quoted(f"*{name}{equals}[{about}]{value}")


def _zsh_argument(program: Command, place: str, value: Value) -> str:
    number = "*" if place == "*" else str(int(place) + 1)
    return _quoted(f"{number}:{value.word}:{_zsh_action(program, value)}")


def _zsh_action(program: Command, value: Value) -> str:
    if value.choices:
        return f"({' '.join(value.choices)})"
    if value.kind:
        return "_files -/" if value.kind == DIRECTORIES else "_files"
    if value.asked:
        return f'{{compadd -- ${{(f)"$({program.name} $asked {value.asked} 2> /dev/null)"}}}}'
    return " "


def fish(program: Command) -> str:
    """For a file ``<program>.fish`` among fish's completions."""
    lines = [
        f"# Completion of {program.name} for fish, made by '{program.name} completion fish'.",
        *_fish_asking(program),
        f"complete -c {program.name} -f",
    ]
    for path, command in program.below():
        lines += [f"complete -c {program.name} {text}" for text in _fish_command(program, path, command)]
    return "\n".join(lines) + "\n"


def _fish_asking(program: Command) -> Iterator[str]:
    """A function that asks the program as its command line does so far."""
    handed_on = _handed_on(program)
    if handed_on:
        yield f"function _{_function(program)}_ask"
        yield "    set -l words (commandline -opc)"
        yield "    set -l asked"
        yield "    for index in (seq (count $words))"
        yield f"        contains -- $words[$index] {' '.join(handed_on)}; and set asked $words[$index] $words[(math $index + 1)]"
        yield "    end"
        yield "    $words[1] $asked $argv 2> /dev/null"
        yield "end"


def _fish_command(program: Command, path: tuple[str, ...], command: Command) -> Iterator[str]:
    inside = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in path)
    where = f"-n {_quoted(inside)} " if inside else ""
    if command.commands:
        names = " ".join(one.name for one in command.commands)
        here = "; and ".join(filter(None, (inside, f"not __fish_seen_subcommand_from {names}")))
        for one in command.commands:
            yield f"-n {_quoted(here)} -a {one.name} -d {_quoted(one.about)}"
    for option in command.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        value = f" -r {_fish_value(program, option.value)}".rstrip() if option.value else ""
        yield f"{where}{names}{value} -d {_quoted(option.about)}"
    for argument in command.arguments:
        given = _fish_value(program, argument)
        if given and given != "-f":
            yield f"{where}{given}"


def _fish_value(program: Command, value: Value) -> str:
    if value.choices:
        return f"-f -a {_quoted(' '.join(value.choices))}"
    if value.kind:
        return "-F" if value.kind == FILES else "-f -a '(__fish_complete_directories)'"
    if value.asked:
        return f"-f -a '(_{_function(program)}_ask {value.asked})'"
    return "-f"


SHELLS: dict[str, Callable[[Command], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
