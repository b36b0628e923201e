"""What pydantic found wrong with a file that a person wrote: in plain words, and at its place in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, get_args

import pydantic
import pydantic.fields
import pydantic_core

from aibenchd import errors, yamlfile

Specialise: TypeAlias = Callable[[type[pydantic.BaseModel], Any], type[pydantic.BaseModel]]
Elsewhere: TypeAlias = Callable[[tuple[str | int, ...]], str]

SHOWN = 40  # characters of a value that a message repeats
LISTED = 30  # known names that a message lists
SEARCHED = 100  # known names among which the nearest is looked for; it takes 25 µs each

ABSENT_KEY = ("missing", "unknown_kind")  # types of pydantic's errors whose key may not be there

_ABSENT = object()
_TEXT, _LIST, _KEYS, _WHOLE, _NUMBER, _FLAG = "text", "a list", "keys with values", "a whole number", "a number", "true or false"
_EXPECTED = {
    "string_type": _TEXT,
    "path_type": "a path",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": _KEYS,
    "model_type": _KEYS,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": _NUMBER,
    "bool_type": _FLAG,
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_too_short": "text of {min_length} or more characters",
    "string_too_long": "text of {max_length} or fewer characters",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
    "string_pattern_mismatch": "{words}",
}
_OF_LENGTH = ("too_short", "too_long")
_READS_AS = {_WHOLE: r"-?[0-9]+", _NUMBER: r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", _FLAG: "true|false"}
PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a name of letters, digits, '.', '_' and '-' that begins with a letter or a digit",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "a variable's name of letters, digits and '_' that does not begin with a digit",
    r"^([^-]|$)": "text that does not begin with '-'",
    r"^[^/\s]+/[^/\s]+$": "owner/name, such as pytorch/pytorch",
    r"^([0-9]+|[^/\s]+(/[^/\s]+)+)$": "group/project, such as lab/nets/engine, or a project's number in quotes",
    r"^0[0-7]{3}$": 'four octal digits in quotes, such as "0660"',
    r"^$|^.+:[0-9]{1,5}$": "host:port, such as 127.0.0.1:9464",
    r"^$|^(max|min|mid|[1-9][0-9]*)$": "max, min, mid or a number of Hz",
    r"^$|^(GPU|MIG)-[0-9A-Za-z/-]+$": "a UUID as nvidia-smi -L shows it, such as GPU-9b1f7c0a-58f2-4b0e-8f57-3c1f0c7d2e11",
    r"^[a-z_]*$": "a governor's name of small letters and '_', such as performance",
}


def of(
    error: pydantic.ValidationError,
    document: yamlfile.Document,
    root: type[pydantic.BaseModel],
    specialise: Specialise = lambda base, _value: base,
    elsewhere: Elsewhere = lambda _key_path: "",
) -> list[errors.Fault]:
    """All that ``error`` says of a document.

    Args:
        root: the model that the document was validated by.
        specialise: the model that stands in for another at a value, where a value's own key picks it.
        elsewhere: where a key belongs that is not known at its place; empty where nobody knows.
    """
    problems = [(_key_path(one, document.value), one) for one in error.errors(include_url=False, include_input=False)]
    meant = {_meant(key_path, document, root, specialise) for key_path, one in problems if one["type"] == "extra_forbidden"}
    told_once = (pair for pair in problems if not (pair[1]["type"] == "missing" and pair[0] in meant))
    return [_fault(key_path, problem, document, root, specialise, elsewhere) for key_path, problem in told_once]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Which of ``known`` a person may have meant, who wrote ``word``."""
    names = sorted(known)
    return next(iter(difflib.get_close_matches(word[:SHOWN], names, 1)), None) if len(names) <= SEARCHED else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """What a person may have meant: the nearest of ``known``, or all of them."""
    names = sorted(set(known))
    near = nearest(word, names)
    if near is not None:
        return f"did you mean {quoted(near)}?"
    listed = ", ".join(name[:SHOWN] for name in names[:LISTED]) + (", …" if len(names) > LISTED else "")
    return f"known: {listed}" if names else "there are none"


def quoted(text: str) -> str:
    """A text that a person wrote, as a message repeats it: on one line, and not at any length."""
    return f"{text[:SHOWN]!r}{'…' if len(text) > SHOWN else ''}"


def found(value: Any) -> str:
    """A value as a message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return _LIST if isinstance(value, list) else _KEYS


def _fault(
    key_path: tuple[str | int, ...],
    problem: pydantic_core.ErrorDetails,
    document: yamlfile.Document,
    root: type[pydantic.BaseModel],
    specialise: Specialise,
    elsewhere: Elsewhere,
) -> errors.Fault:
    if problem["type"] == "extra_forbidden" and (where := elsewhere(key_path)):
        return document.fault(key_path, f"is no key here; {where}")
    around = _AROUND.get(problem["type"])
    if around is not None:
        fields = _fields(root, key_path[:-1], document.value, specialise)
        return document.fault(key_path, around(key_path, fields, _at(document.value, key_path[:-1])))
    # Of a mapping's key, that key is what was found; else what is at the place.
    value = key_path[-1] if problem["loc"][-1:] == ("[key]",) else _at(document.value, key_path)
    return document.fault(key_path, message(problem, value))


def _key_path(problem: pydantic_core.ErrorDetails, value: Any) -> tuple[str | int, ...]:
    """A location without the steps that pydantic puts in beside keys, such as ``[key]`` and the branches of a union."""
    steps: tuple[str | int, ...] = ()
    for located in problem["loc"]:
        # What may be a list or go by names was judged by names: those of a list are its places.
        step = int(located) if isinstance(value, list) and isinstance(located, str) and located.isdecimal() else located
        inner = _child(value, step)
        if inner is not _ABSENT:
            steps, value = (*steps, step), inner
    return (*steps, *problem["loc"][-1:]) if problem["type"] in ABSENT_KEY and value is not inner else steps


def _child(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(step, _ABSENT)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return _ABSENT


def _at(value: Any, key_path: tuple[str | int, ...]) -> Any:
    for step in key_path:
        value = _child(value, step)
    return value


def _meant(
    key_path: tuple[str | int, ...], document: yamlfile.Document, root: type[pydantic.BaseModel], specialise: Specialise
) -> tuple[str | int, ...]:
    """The key that one which is not known was probably meant to be."""
    return (*key_path[:-1], nearest(str(key_path[-1]), _fields(root, key_path[:-1], document.value, specialise)) or "")


Fields: TypeAlias = Mapping[str, pydantic.fields.FieldInfo]


def _missing(key_path: tuple[str | int, ...], fields: Fields, given: Any) -> str:
    field = fields.get(str(key_path[-1]))
    said = f"is required: {field.description}" if field is not None and field.description else "is required"
    known = {one.alias or name for name, one in fields.items()}
    near = nearest(str(key_path[-1]), given.keys() - known) if isinstance(given, Mapping) else None
    return f"{said}; {quoted(near)} may be a misspelling of it" if near is not None else said


def _unknown(key_path: tuple[str | int, ...], fields: Fields, _given: Any) -> str:
    return f"is no key here; {suggestion(str(key_path[-1]), fields)}"


_AROUND = {"missing": _missing, "extra_forbidden": _unknown}  # messages that need the keys that there are


def _fields(model: type[pydantic.BaseModel], key_path: tuple[str | int, ...], value: Any, specialise: Specialise) -> Fields:
    """The keys that there are at a place of the file."""
    for step in key_path:
        value = _child(value, step)
        if isinstance(step, str):
            field = model.model_fields.get(step)
            inner = _model_in(field.annotation) if field is not None else None
            if inner is None:
                return {}
            model = inner
        model = specialise(model, value)
    return model.model_fields


def _model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    """The first model in a type such as ``tuple[Model, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((model for arg in get_args(annotation) if (model := _model_in(arg)) is not None), None)


def message(problem: pydantic_core.ErrorDetails, value: Any) -> str:
    """What pydantic found wrong with ``value``, without its place: what was expected, and what was found."""
    facts = problem.get("ctx", {})
    if problem["type"] == "value_error":
        said = str(facts["error"])
        return f"{said}, found {found(value)}" if said.startswith("expected") and ", not " not in said else said
    if problem["type"] in _EXPECTED:
        words = PATTERNS.get(str(facts.get("pattern")), f"text that matches {facts.get('pattern')}")
        expected = _EXPECTED[problem["type"]].format(**{**facts, "words": words})
        shown = _counted(value) if isinstance(value, list) and problem["type"] in _OF_LENGTH else found(value)
        return f"expected {expected}, found {shown}{_advice(expected, value)}"
    return problem["msg"][:1].lower() + problem["msg"][1:]


def _counted(value: list[Any]) -> str:
    return f"one of {len(value)}" if value else "an empty one"


def _advice(expected: str, value: Any) -> str:
    if expected == _TEXT and isinstance(value, bool | int | float):
        return "; put quotes around it"
    if expected == _LIST and isinstance(value, str | int | float):
        return "; put brackets around it"
    if isinstance(value, str) and expected in _READS_AS and re.fullmatch(_READS_AS[expected], value):
        return "; take the quotes away"
    if expected == _NUMBER and isinstance(value, str) and (share := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%", value)):
        return f"; write it as {float(share[1]) / 100:.10g}"
    return ""
