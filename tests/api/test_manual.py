"""The client's help: it has all of each command."""

import shlex

import pytest

from aibenchd.api import client, commandline, commands, manual, naming


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_help_of_each_command_suffices(name: str) -> None:
    command, shown = commands.COMMANDS[name], client.usage_of(name)
    assert shown.startswith(f"usage: {commandline.usage(name, command)}\n  {command.about}\n")
    for word in command.arguments.split():
        assert f"\n  {word} " in shown
    for option in (*command.options, *commandline.GENERAL):
        assert f"--{option}" in shown
    for code in manual.exit_codes(name):
        assert f"\n  {code}  " in shown


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_each_example_is_a_command_line_of_its_command(name: str) -> None:
    asked = commandline.Call(shlex.split(manual.EXAMPLES[name]), commands.COMMANDS)
    asked.check()
    assert asked.name == name


def test_there_is_a_place_for_every_kind_of_name() -> None:
    assert set(commandline.CHOICES["KIND"]) == set(naming.PLACES)
    assert {*manual.NAMED.values(), *manual.NUMBERED.values()} <= set(naming.PLACES)


@pytest.mark.parametrize(
    ("words", "expected"), [("names x", "expected devices, "), ("completion tcsh", "expected bash, zsh, fish, not")]
)
def test_what_is_none_of_the_choices_is_said(words: str, expected: str) -> None:
    with pytest.raises(commandline.Misuse) as caught:
        client.run(words.split())
    assert expected in str(caught.value)
