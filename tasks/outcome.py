"""What may be kept of a handler's words and results. Pure."""

import json
import re
from typing import Any

LARGEST_RESULT = 1_000_000
"""How many bytes of JSON a result may have."""

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class ResultInvalid(ValueError):
    """What a handler returned cannot be kept."""


def checked(result: Any) -> Any:
    """Return *result* as JSON holds it. Raises ResultInvalid when it cannot."""
    try:
        body = json.dumps(result, allow_nan=False, ensure_ascii=False)
        size = len(body.encode())
    except (TypeError, ValueError, RecursionError) as problem:
        raise ResultInvalid(f"the result is not JSON: {problem}") from problem
    if size > LARGEST_RESULT:
        raise ResultInvalid(f"the result has {size} bytes, more than the {LARGEST_RESULT} allowed")
    if _NUL.search(body):
        raise ResultInvalid("the result holds a NUL character, which Postgres cannot keep")
    return json.loads(body)


def clean(text: str, longest: int) -> str:
    """Return *text* as Postgres can keep it: no NUL, no half characters, not too long."""
    kept = text if len(text) <= longest else text[: longest - 1] + "…"
    return kept.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
