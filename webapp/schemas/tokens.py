"""A caller's own tokens."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from scheduler.job_request import Instant, Name, Request
from scheduler.states import Scope
from webapp.schemas.groundwork import Answer

DAYS_LIMIT = 36_500
"""A token that a person makes ends within so many days, if it ends."""


def _tell_no_uniqueness(schema: dict[str, Any]) -> None:
    """A word that is given twice is taken once."""
    schema.pop("uniqueItems")


class TokenRequest(Request):
    """A new token."""

    name: Name
    scopes: Annotated[set[Scope], Field(min_length=1, json_schema_extra=_tell_no_uniqueness)]
    expires_at: Instant | None = None


class TokenAnswer(Answer):
    """A token without its secret."""

    id: int
    name: str
    scopes: list[Scope]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class NewToken(TokenAnswer):
    """A new token with its secret, which is told this once."""

    token: str


class TokenList(Answer):
    """One page of the caller's tokens."""

    tokens: list[TokenAnswer]
    next_cursor: str | None
