"""Calling a URL, without becoming a way into the network the worker stands in.

The name is resolved here, every address it has is checked, and the connection is made to a checked
address: between check and connection nobody can change the answer. That holds for each redirect,
since each needs a connection. Proxies of the environment are not used: they would resolve again.
"""

import ipaddress
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import httpcore
import httpx
from pydantic import Field, JsonValue, model_validator

from tasks.catalogue import Timed, job_type
from tasks.context import Context, DoNotRetry, RetryAfter
from tasks.kinds.pace import take_time

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
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
    answer = call(payload, context, private=context.settings.allow_private_http)
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
            transport=_Transport(private=private),
            trust_env=False,
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            timeout=payload.timeout_seconds,
        ) as client,
        client.stream(payload.method, payload.url, headers=headers, **body) as response,
    ):
        _raise_for_status(response)
        start, cut = _read(response, payload.max_bytes, deadline, context)
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


def _read(
    response: httpx.Response, most: int, deadline: float, context: Context
) -> tuple[bytes, bool]:
    """Return the beginning of the body, and whether there was more."""
    start = b""
    for chunk in response.iter_raw():
        context.raise_if_cancelled()
        if time.monotonic() > deadline:
            raise TooSlow("the answer took too long")
        start += chunk
        if len(start) > most:
            return start[:most], True
    return start, False


class _Transport(httpx.HTTPTransport):
    """httpx's transport on connections that are checked; httpx itself takes no such wish."""

    def __init__(self, *, private: bool) -> None:
        super().__init__(trust_env=False)
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            network_backend=_Checked(private=private),
        )


class _Checked(httpcore.SyncBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, *, private: bool) -> None:
        self._private = private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers."""
        addresses = resolve(host, port, private=self._private)
        for last, address in enumerate(addresses, start=1 - len(addresses)):
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                if last == 0:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")


def resolve(host: str, port: int, *, private: bool) -> Sequence[str]:
    """Return the addresses of *host*. Raises PrivateAddress if any of them is not public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise httpcore.ConnectError(f"{host} cannot be found: {problem}") from problem
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not private and not all(is_public(address) for address in addresses):
        raise PrivateAddress(f"{host} is not a public address")
    return addresses


def is_public(address: str) -> bool:
    """Tell whether an address is reachable by everybody, with whatever it wraps."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return all(_is_open(one) for one in _unwrapped(ip))


def _is_open(ip: Address) -> bool:
    site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or site_local)


def _unwrapped(ip: Address) -> list[Address]:
    """Return the address a packet ends up at: gateways unwrap some IPv6 addresses to IPv4."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    inner = [ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        return [one for one in inner if one]
    return [ip, *(one for one in inner if one)]
