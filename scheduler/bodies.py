"""Reading what others send as JSON: strictly, and with the path of whatever is wrong. Pure."""

import math
import re
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from scheduler.errors import Malformed, WrongField

M = TypeVar("M", bound=BaseModel)

ERRORS_TOLD = 20
"""Problems named in one answer; a batch can have thousands."""

DEPTH_LIMIT = 50
"""Levels of objects and lists in a body, itself the first: more than data needs, and far less than
what ends a program that follows them down."""

KEYS_LIMIT = 10_000
"""Keys of one object. Larger data belongs where the job can fetch it."""

_DEEP = f"is nested deeper than {DEPTH_LIMIT} levels"
_NUL = "must not contain a null character"
_NAMES_TOLD = 8
_LINES_COUNTED = 10_000  # a body of line ends would be counted for seconds
_TOO_DEEP = "recursion limit"  # the parser's words
_LINE_AND_COLUMN = re.compile(r"line (\d+) column (\d+)")


def parse_body(model: type[M], raw: bytes) -> M:
    """Read a JSON body as *model*. Raises a Malformed that names every wrong field."""
    read_json(raw)
    try:
        return model.model_validate_json(raw)
    except ValidationError as refusal:
        raise malformed(refusal) from refusal


def read_json(raw: bytes, path: str = "") -> Any:
    """Read JSON that can be kept, and walked by whatever comes after.

    Raises a Malformed, for what is too deep before anything follows it down.
    """
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as refusal:
        if _TOO_DEEP in str(refusal):
            check_values(_beginning(raw, str(refusal)), path)
            raise _refused(path, _DEEP) from refusal
        raise Malformed(f"The body is not JSON: {refusal}.", code="invalid_json") from refusal
    check_values(value, path)
    return value


def check_values(value: Any, path: str = "") -> None:
    """Raise a Malformed for what Postgres cannot keep, and for too much depth or too many keys.

    Nothing is walked by recursion: what is too deep would be too deep for that.
    """
    _check_scalar(value, None, path)
    if type(value) not in _HOLDS:
        return
    levels = [_enter(value, (None, path), 1)]
    while levels:
        members, where = levels[-1]
        for name, inner in members:
            if type(inner) in _HOLDS:
                levels.append(_enter(inner, (where, name), len(levels) + 1))
                break
            _check_scalar(inner, where, name)
        else:
            levels.pop()


_Place = tuple["_Place | None", str | int]
"""Where a value is: the place of what holds it, and its name there."""

_HOLDS = {dict, list}


def _enter(here: Any, where: _Place, depth: int) -> tuple[Iterator[tuple[Any, Any]], _Place]:
    _check_size(here, where, depth)
    return iter(here.items() if type(here) is dict else enumerate(here)), where


def _check_scalar(value: Any, holder: _Place | None, name: str | int) -> None:
    kind = type(value)
    if kind is str and "\0" in value:
        raise _refused(_told((holder, name)), _NUL)
    if kind is float and not math.isfinite(value):
        raise _refused(_told((holder, name)), "must be a finite number")


def _check_size(here: Collection[Any], where: _Place, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise _refused(_told(where), _DEEP)
    if type(here) is not dict:
        return
    if len(here) > KEYS_LIMIT:
        raise _refused(_told(where), f"has more than {KEYS_LIMIT} keys")
    if "\0" in "".join(here):
        key = next(key for key in here if "\0" in key)
        raise _refused(_told((where, key)), _NUL)


def _told(where: _Place | None) -> str:
    """Return a path, without what is too far down to help anybody."""
    names: list[str] = []
    while where is not None:
        names.append(str(where[1]))
        where = where[0]
    return ".".join([name for name in reversed(names) if name][:_NAMES_TOLD])


def _beginning(raw: bytes, refusal: str) -> Any:
    """Return what stands before the place where a parser found it too deep, if that is near."""
    found = _LINE_AND_COLUMN.search(refusal)
    if found is None or int(found[1]) > _LINES_COUNTED:
        return None
    start = 0
    for _ in range(int(found[1]) - 1):
        start = raw.index(b"\n", start) + 1
    return from_json(raw[: start + int(found[2]) - 1], allow_partial=True)


def _refused(path: str, message: str) -> Malformed:
    return Malformed(f"{path or 'the body'} {message}.", [WrongField(path, message)])


def malformed(refusal: ValidationError) -> Malformed:
    """Return the refusal of what does not fit a model."""
    found = refusal.errors(include_url=False, include_context=False, include_input=False)
    wrong = [WrongField(_path(error), _message(error)) for error in found[:ERRORS_TOLD]]
    more = f" ({len(found)} problems in all)" if len(found) > 1 else ""
    first = wrong[0]
    return Malformed(f"{first.path or 'the request'}: {first.message}{more}.", wrong)


def _path(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _message(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
