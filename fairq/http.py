"""What both clients tell httpx, and how they read what it brings back."""

from importlib import metadata
from typing import Any, TypedDict, TypeVar

import httpx
from httpx_sse import ServerSentEvent

from fairq.calls import Call
from fairq.errors import NoAnswer, Refused
from fairq.models import Change
from fairq.sign_in import SignIn

T = TypeVar("T")

SILENCE_SECONDS = 60.0
"""A stream that brings nothing for so long, not even a sign of life, is taken for broken."""

REOPEN_SECONDS = 1.0
"""The pause before a stream that ended is opened again."""


_EVENT_STREAM = "text/event-stream"
_MOVE, _GAP = "job", "reload"
LINE, END = "log", "end"
"""Kinds of events in the stream of a log."""


class Options(TypedDict):
    """What an httpx client is made with."""

    base_url: str
    headers: dict[str, str]
    timeout: float


class Request(TypedDict):
    """What an httpx client sends."""

    method: str
    url: str
    params: dict[str, Any]
    json: Any
    headers: dict[str, str]


def options(sign_in: SignIn, timeout_seconds: float) -> Options:
    """Return how to reach a server."""
    headers = {
        "Authorization": f"Bearer {sign_in.token}",
        "Accept": "application/json",
        "User-Agent": f"fairq/{version()}",
    }
    return Options(base_url=sign_in.url, headers=headers, timeout=timeout_seconds)


def request(call: Call[Any]) -> Request:
    """Return *call* as httpx takes it."""
    return Request(
        method=call.method,
        url=call.path,
        params=dict(call.query),
        json=call.body,
        headers=dict(call.headers),
    )


def seconds_for(call: Call[Any], usual: float) -> float:
    """Return how long the answer to *call* may take where *usual* is enough for most."""
    return min(usual, call.timeout_seconds) + call.waits_seconds


def listening(call: Call[Any], last_id: str | None) -> Request:
    """Return *call* as a stream that goes on behind *last_id*."""
    made = request(call)
    made["headers"] |= {"Accept": _EVENT_STREAM, "Cache-Control": "no-store"}
    if last_id:
        made["headers"]["Last-Event-ID"] = last_id
    return made


def answered(call: Call[T], answer: httpx.Response) -> T:
    """Read the answer to *call*. Raises Refused for any that the contract does not promise."""
    if not answer.is_success:
        raise Refused.of(answer)
    try:
        body = None if answer.status_code == httpx.codes.NO_CONTENT else answer.json()
        return call.read(body)
    except (ValueError, KeyError, TypeError) as error:
        raise Refused.of(answer) from error


def is_stream(answer: httpx.Response) -> bool:
    """Tell whether *answer* is a stream of events."""
    return answer.is_success and _EVENT_STREAM in answer.headers.get("content-type", "")


def stream_of(answer: httpx.Response) -> httpx.Response:
    """Return *answer* if it is a stream of events. Raises Refused for anything else."""
    if not is_stream(answer):
        raise Refused.of(answer)
    return answer


def change(event: ServerSentEvent) -> Change | None:
    """Return the change that an event tells of, or that some were missed; None for any other."""
    return Change.model_validate(event.json()) if event.event in {_MOVE, _GAP} else None


def no_answer(error: httpx.RequestError, base_url: httpx.URL) -> NoAnswer:
    """Return what a caller is told when *error* came instead of an answer."""
    return NoAnswer(str(base_url).rstrip("/"), error)


def version() -> str:
    """Return which version this is."""
    try:
        return metadata.version("fairq")
    except metadata.PackageNotFoundError:
        return "checkout"
