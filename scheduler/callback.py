"""What is told about a job that has ended, how it is signed, and when it is tried again. Pure."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from scheduler import retry

TIMEOUT = timedelta(seconds=10)
"""How long the other side may take: long enough for a slow start, short enough to be in nobody's
way for long."""

BACKOFF: Mapping[str, Any] = {
    "strategy": "exponential",
    "base_delay_seconds": 10.0,
    "backoff_multiplier": 2.0,
    "max_delay_seconds": 3600.0,
    "jitter": True,
}
"""Soon at first, for a receiver that restarts; then hourly, for one that somebody has to repair."""

MOST_TRIES = 32
"""About a day of trying with BACKOFF: a night and a morning to repair a receiver."""

SIGNATURE_VERSION = "v1"

_SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True)
class Call:
    """One try at telling: *number* counts the tries at this callback, *used* the ones that count.

    *at* is the database's time.
    """

    id: int
    number: int
    used: int
    delivery_id: str
    url: str
    about: Mapping[str, Any]
    secrets: Sequence[str]
    at: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """What a try came to: a status code, or what went wrong. *hopeless*: another would as well."""

    milliseconds: int
    status_code: int | None = None
    error: str | None = None
    hopeless: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the other side took it."""
        return self.status_code in _SUCCESS


def body(call: Call) -> bytes:
    """Return what is sent: the same bytes at every try."""
    told = {"delivery_id": call.delivery_id, **call.about}
    return json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def headers(call: Call, content: bytes) -> dict[str, str]:
    """Return what *content* is sent with."""
    timestamp = str(int(call.at.timestamp()))
    return {
        "Content-Type": "application/json",
        "User-Agent": "Fairq-Callback",
        "Fairq-Delivery": call.delivery_id,
        "Fairq-Timestamp": timestamp,
        "Fairq-Signature": ",".join(sign(secret, timestamp, content) for secret in call.secrets),
    }


def sign(secret: str, timestamp: str, content: bytes) -> str:
    """Sign *content* as sent at *timestamp*, so that neither can be changed or sent again later."""
    signed = timestamp.encode() + b"." + content
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"{SIGNATURE_VERSION}={digest}"


def next_try(call: Call, reply: Reply, *, draw: float) -> timedelta | None:
    """Return how long to wait before trying again; None to let it be.

    *draw* is a number in [0, 1] that places the delay inside the jitter.
    """
    if reply.is_success or reply.hopeless or call.used >= MOST_TRIES:
        return None
    return retry.delay(BACKOFF, call.used, draw=draw)
