"""What random requests must not do: wait for long, shut themselves out, or go on for ever."""

from typing import Any
from urllib.parse import urlencode

import schemathesis

from tests.services import ADMIN
from webapp.schemas.streams import WAIT_LIMIT

USER = "ann"
"""Who asks beside the administrator."""

_SHORT = 0.1
_LONGEST = 4096  # half of what the server reads, for the rest of the address
_SOMEBODY, _NO_TOKEN = "somebody", 10**9
_TOKENS_IN_USE = 10  # those that ask were made first, and have the lowest numbers


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: dict[str, Any]) -> None:
    """Shorten waits, and lead away from the accounts and tokens that ask."""
    if case.path.endswith("/wait"):
        case.query.setdefault("timeout_seconds", _SHORT)
    shorten(case.query, "timeout_seconds")
    shorten(case.body, "wait_seconds")
    place = case.path_parameters
    if str(place.get("username", "")).lower() in {ADMIN[0], USER}:
        place["username"] = _SOMEBODY
    if str(place.get("number", "")).isdecimal() and int(place["number"]) <= _TOKENS_IN_USE:
        place["number"] = _NO_TOKEN


@schemathesis.hook
def filter_query(_: schemathesis.HookContext, query: dict[str, Any] | None) -> bool:
    """Leave out addresses of which the server does not read the end: it hangs up with a 414."""
    return len(urlencode(query or {}, doseq=True)) < _LONGEST


def shorten(values: Any, name: str) -> None:
    """Wait shortly where a long wait is asked for and would be granted."""
    if isinstance(values, dict) and is_long(values.get(name)):
        values[name] = _SHORT


def is_long(wait: Any) -> bool:
    """Tell whether *wait* is granted, a number or one in a query, and long."""
    try:
        return _SHORT < float(wait) <= WAIT_LIMIT
    except (TypeError, ValueError):
        return False
