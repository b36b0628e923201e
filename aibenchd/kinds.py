"""Settings whose own key ``kind`` picks which other keys there are. Kinds are imported when they are named, not before."""

from __future__ import annotations

from typing import Any

import pydantic
import pydantic_core

from aibenchd import errors, faults, plugins


def of_kind(base: type[pydantic.BaseModel], group: str, value: Any) -> type[pydantic.BaseModel]:
    """The settings class of the kind that a mapping names; ``base`` itself for what is no mapping.

    Args:
        group: of plug-ins, such as ``devices``; each has a class ``Settings`` that is derived from ``base``.

    Raises:
        UnknownKindError: it names none, or one that no installed package offers.
    """
    if not isinstance(value, dict):
        return base
    kind = value.get("kind")
    if not isinstance(kind, str):
        near = faults.nearest("kind", value) if "kind" not in value else None
        advice = f"; {faults.quoted(near)} may be a misspelling of it" if near else ""
        raise errors.UnknownKindError(f"is required, as text; known: {', '.join(plugins.names(group))}{advice}")
    check(group, kind)
    settings: type[pydantic.BaseModel] = plugins.load(group, kind).Settings  # type: ignore[attr-defined]
    return settings


def check(group: str, kind: str) -> None:
    """Raises UnknownKindError where no installed package offers such a kind."""
    if kind not in plugins.names(group):
        known = faults.suggestion(kind, plugins.names(group))
        raise errors.UnknownKindError(f"{faults.quoted(kind)} is none of the installed kinds of {group}; {known}")


def validator(base: type[pydantic.BaseModel], group: str) -> pydantic.WrapValidator:
    """Makes of a mapping the settings of the kind that it names."""

    def validate(value: Any, handler: pydantic.ValidatorFunctionWrapHandler, info: pydantic.ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return handler(value)
        try:
            settings = of_kind(base, group, value)
        except errors.UnknownKindError as error:
            raise _at_kind(str(error), value.get("kind")) from error
        return settings.model_validate_json(pydantic_core.to_json(value), strict=True, context=info.context)

    return pydantic.WrapValidator(validate)


def _at_kind(message: str, kind: Any) -> pydantic.ValidationError:
    problem = pydantic_core.PydanticCustomError("unknown_kind", "{message}", {"message": message})
    line = pydantic_core.InitErrorDetails(type=problem, loc=("kind",), input=kind)
    return pydantic.ValidationError.from_exception_data("kind", [line])
