"""Calling URLs of users without becoming a way into the network this process stands in.

The name is resolved here, every address it has is checked, and the connection is made to a checked
address: between check and connection nobody can change the answer. That holds for each redirect,
since each needs a connection. Proxies of the environment are not used: they would resolve again.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import httpcore
import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_PIECE = 65_536
"""Bytes written at a time, so that a server that takes them slowly is noticed in between."""


class PrivateAddress(Exception):
    """A URL leads into a private network."""


def trust() -> ssl.SSLContext:
    """Return whom connections trust; making it reads every authority, so it is made once."""
    return httpx.create_ssl_context(trust_env=False)


class Transport(httpx.HTTPTransport):
    """httpx's transport on connections that are checked; httpx itself takes no such wish.

    With *until*, an instant of ``time.monotonic``, nothing goes over the wire after it: httpx's own
    timeouts begin anew with every byte that arrives. *private*: private addresses are allowed.
    """

    def __init__(
        self, *, private: bool, until: float | None = None, trusting: ssl.SSLContext | None = None
    ) -> None:
        context = trusting or trust()
        super().__init__(verify=context, trust_env=False)
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, network_backend=_Checked(private=private, until=until)
        )


class _Checked(httpcore.SyncBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, *, private: bool, until: float | None) -> None:
        self._private = private
        self._until = until

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
            left = _left(self._until, timeout, httpcore.ConnectTimeout)
            try:
                stream = super().connect_tcp(address, port, left, local_address, socket_options)
            except httpcore.ConnectError:
                if last == 0:
                    raise
            else:
                return stream if self._until is None else _Bounded(stream, self._until)
        raise httpcore.ConnectError(f"{host} has no address")


class _Bounded(httpcore.NetworkStream):
    """A connection on which nothing waits beyond an instant."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is, or wait for some."""
        return self._stream.read(max_bytes, _left(self._until, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of *buffer*."""
        for start in range(0, len(buffer), _PIECE):
            left = _left(self._until, timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[start : start + _PIECE], left)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Agree on encryption."""
        left = _left(self._until, timeout, httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        return _Bounded(stream, self._until)

    def get_extra_info(self, info: str) -> object:
        """Tell something about the connection."""
        return self._stream.get_extra_info(info)


def _left(until: float | None, timeout: float | None, over: type[Exception]) -> float | None:
    """Return how long to wait at most. Raises *over* when there is no time left."""
    if until is None:
        return timeout
    left = until - time.monotonic()
    if left <= 0:
        raise over("there is no time left")
    return left if timeout is None else min(left, timeout)


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


def is_private(url: str) -> bool:
    """Tell whether the host of *url* is private whoever resolves it: an address, or this host."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _literal(host)
    return address is not None and not is_public(address)


def _literal(host: str) -> str | None:
    """Return the address that *host* is, however it is written; None for a name."""
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    with suppress(OSError, UnicodeError):  # resolvers take 127.1 and 0x7f000001 as well
        return socket.inet_ntoa(socket.inet_aton(host))
    return None


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
