"""How values leave as JSON."""

from datetime import UTC, datetime
from typing import Any

from flask import Response
from pydantic_core import to_json


def json_body(value: Any) -> bytes:
    """Encode *value*; instants come out in RFC 3339 with ``Z``."""
    return to_json(value)


def answer(value: Any, status: int = 200) -> Response:
    """Answer with *value*."""
    return Response(json_body(value), status=status, content_type="application/json")


def utc(instant: datetime | None) -> datetime | None:
    """Return *instant* in UTC, so that it is written with ``Z``."""
    return None if instant is None else instant.astimezone(UTC)
