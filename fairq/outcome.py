"""What the server takes of a handler's words and results. Pure."""

import json
from typing import Any

LONGEST_NAME = 200
LONGEST_MESSAGE = 500
LONGEST_LINE = 8192
LONGEST_ERROR = 8192
LONGEST_TRACEBACK = 16_000


class ResultInvalid(ValueError):
    """What a handler returned cannot be sent."""


def check(result: Any) -> None:
    """Raise ResultInvalid if *result* cannot be sent as JSON."""
    try:
        json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as problem:
        raise ResultInvalid(f"the result is not JSON: {problem}") from problem


def clean(text: str, longest: int) -> str:
    """Return *text* as it can be sent and kept: no NUL, no half characters, not too long."""
    kept = text if len(text) <= longest else text[: longest - 1] + "…"
    return kept.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
