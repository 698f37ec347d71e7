"""Calling a URL, without becoming a way into the network the worker stands in."""

import time
from typing import Any, Literal, Self

import httpx
from pydantic import Field, JsonValue, model_validator

from scheduler import outbound
from tasks.catalogue import Timed, job_type
from tasks.context import Context, DoNotRetry, RetryAfter
from tasks.kinds.pace import take_time

_MOST_REDIRECTS = 5
_LARGEST_BODY = 100_000
_LATER = frozenset({408, 425, 429})
_SERVER_ERROR, _CLIENT_ERROR = 500, 400
_SHOWN_HEADERS = ("content-type", "content-length", "location", "etag", "last-modified", "date")


class Call(Timed):
    """What to call and how."""

    url: str = Field(pattern=r"^https?://", max_length=4000)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    json_body: JsonValue = Field(None, alias="json", description="A body, sent as JSON.")
    body: str | None = Field(None, max_length=_LARGEST_BODY, description="A body, sent as it is.")
    timeout_seconds: float = Field(30, gt=0, le=600, description="For everything together.")
    max_bytes: int = Field(_LARGEST_BODY, ge=0, le=_LARGEST_BODY, description="Kept of the answer.")

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if self.body is not None and self.json_body is not None:
            raise ValueError("give json or body, not both")
        return self


class PrivateAddress(DoNotRetry):
    """The URL leads into a private network, where http_request does not go."""


class TooSlow(Exception):
    """The answer was not there in time."""


class CallFailed(Exception):
    """The server could not do it now."""


@job_type(
    "http_request",
    payload=Call,
    description="Calls a URL. Server errors are tried again, other refusals are not.",
    timeout_seconds=660,
)
def http_request(context: Context, payload: Call) -> dict[str, Any]:
    """Call the URL and return status, headers and the beginning of the body."""
    take_time(context, payload.duration_seconds, doing="waiting")
    context.info(f"{payload.method} {payload.url}")
    began = time.monotonic()
    try:
        answer = call(payload, context, private=context.settings.allow_private_http)
    except outbound.PrivateAddress as refusal:
        raise PrivateAddress(str(refusal)) from refusal
    except httpx.TimeoutException as problem:
        raise TooSlow("the answer took too long") from problem
    context.info(f"answered {answer['status_code']}")
    return {**answer, "elapsed_seconds": round(time.monotonic() - began, 3)}


def call(payload: Call, context: Context, *, private: bool) -> dict[str, Any]:
    """Make the call. Raises what says whether another attempt may help."""
    deadline = time.monotonic() + payload.timeout_seconds
    headers = {
        "Accept-Encoding": "identity",  # a small packed body can be a huge one
        "Idempotency-Key": context.idempotency_key,
        **payload.headers,
    }
    body: dict[str, Any] = {"content": payload.body}
    if payload.json_body is not None:
        body = {"json": payload.json_body}
    with (
        httpx.Client(
            transport=outbound.Transport(private=private, until=deadline),
            trust_env=False,
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            timeout=payload.timeout_seconds,
        ) as client,
        client.stream(payload.method, payload.url, headers=headers, **body) as response,
    ):
        _raise_for_status(response)
        start, cut = _read(response, payload.max_bytes, context)
    return {
        "status_code": response.status_code,
        "url": str(response.url),
        "headers": {
            key: response.headers[key] for key in _SHOWN_HEADERS if key in response.headers
        },
        "body": None if "content-encoding" in response.headers else start.decode(errors="replace"),
        "truncated": cut,
    }


def _raise_for_status(response: httpx.Response) -> None:
    status = response.status_code
    said = f"the server answered {status} {response.reason_phrase}"
    if status in _LATER or status >= _SERVER_ERROR:
        after = response.headers.get("retry-after", "")
        if after.isdecimal():
            raise RetryAfter(float(after), said)
        raise CallFailed(said)
    if status >= _CLIENT_ERROR:
        raise DoNotRetry(said)


def _read(response: httpx.Response, most: int, context: Context) -> tuple[bytes, bool]:
    """Return the beginning of the body, and whether there was more."""
    start = b""
    for chunk in response.iter_raw():
        context.raise_if_cancelled()
        start += chunk
        if len(start) > most:
            return start[:most], True
    return start, False
