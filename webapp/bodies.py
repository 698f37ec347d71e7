"""Reading what clients send: strictly, and with the path of whatever is wrong."""

import math
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from werkzeug.datastructures import MultiDict

from webapp.errors import FieldError, Problem

M = TypeVar("M", bound=BaseModel)

ERRORS_TOLD = 20
"""Problems named in one answer; a batch can have thousands."""


def parse_body(model: type[M], raw: bytes) -> M:
    """Read a JSON body as *model*. Raises a 422 problem that names every wrong field."""
    check_values(_json(raw))
    try:
        return model.model_validate_json(raw)
    except ValidationError as refusal:
        raise _problem(refusal) from refusal


def parse_query(model: type[M], args: MultiDict[str, str]) -> M:
    """Read a query string as *model*; a name given several times makes a list of a list field."""
    values: dict[str, Any] = {}
    for name, given in args.lists():
        field = model.model_fields.get(name)
        takes_list = field is not None and "list" in str(field.annotation)
        values[name] = given if takes_list else given[-1]
    check_values(values)
    try:
        return model.model_validate(values, strict=False)
    except ValidationError as refusal:
        raise _problem(refusal) from refusal


def _json(raw: bytes) -> Any:
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as refusal:
        raise Problem("invalid_json", f"The body is not JSON: {refusal}.") from refusal


def check_values(value: Any, path: str = "") -> None:
    """Raise a 422 problem for what JSON can write and Postgres cannot keep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_values(key, _join(path, key))
            check_values(inner, _join(path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            check_values(inner, _join(path, str(place)))
    elif isinstance(value, str) and "\0" in value:
        raise _refused(path, "must not contain a null character")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refused(path, "must be a finite number")


def _refused(path: str, message: str) -> Problem:
    return Problem("validation_failed", f"{path} {message}.", (FieldError(path, message),))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _problem(refusal: ValidationError) -> Problem:
    found = refusal.errors(include_url=False, include_context=False, include_input=False)
    errors = tuple(FieldError(_path(error), _message(error)) for error in found[:ERRORS_TOLD])
    more = f" ({len(found)} problems in all)" if len(found) > 1 else ""
    first = errors[0]
    subject = first.path or "the request"
    return Problem("validation_failed", f"{subject}: {first.message}{more}.", errors)


def _path(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _message(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
