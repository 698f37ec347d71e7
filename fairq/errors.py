"""Everything that can go wrong between a program and a server.

::

    FairqError
    ├── NotSignedIn      nobody said which server, or with which token
    ├── AddressInvalid   what was given is no address of a server
    ├── NoAnswer         the server could not be reached
    ├── Refused          the server answered, and not with what was asked for
    ├── NotFinished      a job that was waited for takes longer
    └── CycleFound       jobs of a workflow wait for each other
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from fairq import clock
from fairq.models import Job

UNEXPECTED = "unexpected_answer"
"""The code of an answer that no Fairq gives, such as a page of a proxy."""

_LONGEST_EXCERPT = 200


class FairqError(Exception):
    """Base of everything this package raises by itself."""


class NotSignedIn(FairqError):
    """Nobody said which server, or with which token."""

    def __init__(self) -> None:
        super().__init__(
            "not signed in: run `fairq login`, or set FAIRQ_URL and FAIRQ_TOKEN"
            " (either token is for its own address only)"
        )


class AddressInvalid(FairqError, ValueError):
    """What was given is no address of a server."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url!r} is no address of a server: it begins with http:// or https://")


class NoAnswer(FairqError):
    """The server could not be reached, or went away before it answered."""

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(f"{url} does not answer: {str(cause) or type(cause).__name__}")
        self.url = url


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request."""

    path: str
    message: str


class Refused(FairqError):
    """The server answered with a problem.

    ``code`` is stable and meant for programs, ``status`` is the HTTP status, ``errors`` name the
    fields that are wrong, ``retry_after`` says after how many seconds it is worth trying again,
    ``request_id`` finds the request in the server's log, and ``details`` is everything it said.
    """

    def __init__(
        self, status: int, details: Mapping[str, Any], *, retry_after: float | None = None
    ) -> None:
        self.status = status
        self.details = details
        self.retry_after = retry_after
        self.code = str(details.get("code", UNEXPECTED))
        self.detail = str(details.get("detail") or details.get("title") or "no reason given")
        self.errors: Sequence[FieldProblem] = [
            FieldProblem(str(error.get("path", "")), str(error.get("message", "")))
            for error in details.get("errors", [])
        ]
        self.request_id: str | None = details.get("request_id")
        super().__init__(f"{self.code}: {self.detail}")

    @classmethod
    def of(cls, answer: httpx.Response) -> "Refused":
        """Read a refusal from an answer whose body is there."""
        return cls(answer.status_code, _details(answer), retry_after=_retry_after(answer))


class NotFinished(FairqError, TimeoutError):
    """A job that was waited for takes longer; ``job`` is how it was seen last, if it was seen."""

    def __init__(self, job: str | Job) -> None:
        self.job = job if isinstance(job, Job) else None
        super().__init__(
            f"{job} could not be seen to finish"
            if self.job is None
            else f"{self.job.job_id} is still {self.job.status}"
        )


class CycleFound(FairqError, ValueError):
    """Jobs of a workflow wait for each other; nothing was sent. ``cycle`` names them."""

    def __init__(self, cycle: Sequence[str]) -> None:
        super().__init__(f"these jobs wait for each other: {' → '.join(cycle)}")
        self.cycle = list(cycle)


def _details(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        details = answer.json()
    except ValueError:
        details = None
    if isinstance(details, dict) and "code" in details:
        return details
    return {"code": UNEXPECTED, "detail": _excerpt(answer)}


def _excerpt(answer: httpx.Response) -> str:
    """Say what came instead of an answer of Fairq."""
    if answer.has_redirect_location:
        return f"the address has moved to {answer.headers['location']}; use that one"
    words = " ".join(answer.text.split())[:_LONGEST_EXCERPT] or answer.reason_phrase
    return f"this is no answer of Fairq ({answer.status_code}): {words}"


def _retry_after(answer: httpx.Response) -> float | None:
    """Read the seconds to wait; proxies may name a date instead."""
    given = answer.headers.get("retry-after", "")
    if given.isdecimal():
        return float(given)
    try:
        until = parsedate_to_datetime(given)
    except ValueError:
        return None
    seconds = (until.replace(tzinfo=until.tzinfo or UTC) - clock.now()).total_seconds()
    return seconds if seconds > 0 else None
