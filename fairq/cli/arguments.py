"""What words on the command line mean. Pure, but for the time zone of whoever typed them."""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from fairq.models import COMPLETED, CONDITIONS

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)


def payload_of(words: Iterable[str], text: str | None) -> dict[str, Any]:
    """Return the payload of ``key=value`` words, on top of *text*, a JSON object.

    A value that is JSON is taken as JSON, any other as text: ``n=5`` is a number, ``name=ann`` a
    string, and so is ``n='"5"'``. Raises ValueError for what is neither.
    """
    payload = {} if text is None else json_object(text)
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise ValueError(f"{word!r} is no key=value")
        payload[key] = _value(value)
    return payload


def json_object(text: str) -> dict[str, Any]:
    """Return *text* as a JSON object. Raises ValueError for anything else."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"the payload is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError('the payload must be a JSON object, such as {"n": 5}')  # noqa: TRY004 - a word is wrong, not a program
    return value


def seconds(text: str) -> float:
    """Return a duration such as ``90``, ``1.5m``, ``2h`` or ``1d``. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write 90, 90s, 5m, 2h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def whole_seconds(text: str) -> int:
    """Return a duration of whole seconds. Raises ValueError."""
    if not seconds(text).is_integer():
        raise ValueError(f"{text!r} is not a number of whole seconds")
    return int(seconds(text))


def instant(text: str) -> datetime:
    """Return a time such as ``2026-03-01T12:00``, local if it names no zone. Raises ValueError."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise ValueError(f"{text!r} is no time; write 2026-03-01T12:00") from error


def priority(text: str) -> str | int:
    """Return a class or a level."""
    return int(text) if text.isdecimal() else text


def dependency(text: str) -> tuple[str, str]:
    """Return the job id and the condition of ``JOB`` or ``JOB:failed``."""
    job_id, colon, condition = text.rpartition(":")
    return (job_id, condition) if colon and condition in CONDITIONS else (text, COMPLETED)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
