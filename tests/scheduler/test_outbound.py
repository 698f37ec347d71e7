"""Which addresses are private, and that no time is left when it is over."""

import time

import httpcore
import httpx
import pytest

from scheduler.outbound import (
    PrivateAddress,
    Transport,
    is_private,
    is_public,
    resolve,
    trust,
)
from tests.site import Site, answer_dns

PRIVATE = [
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:7f00:1::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_not_everybody_reaches_are_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_everybody_reaches_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_url_with_a_private_address_is_private(address: str) -> None:
    host = f"[{address}]" if ":" in address else address

    assert is_private(f"http://user@{host}:8080/path")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "app.localhost", "2130706433", "0x7f.1", "127.1", "0"]
)
def test_this_host_is_private_however_it_is_called(host: str) -> None:
    assert is_private(f"https://{host}/")


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "1.1.1.1", "16843009"])
def test_other_hosts_are_private_only_if_they_resolve_to_it(host: str) -> None:
    assert not is_private(f"https://{host}/")


def test_a_host_with_any_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_dns(monkeypatch, {"mixed.test": [["1.1.1.1", "10.0.0.1"]]})

    with pytest.raises(PrivateAddress):
        resolve("mixed.test", 80, private=False)
    assert resolve("mixed.test", 80, private=True) == ["1.1.1.1", "10.0.0.1"]


@pytest.mark.parametrize("host", ["unknown.invalid", "a" * 70 + ".test", "a..b"])
def test_a_name_nobody_knows_is_a_failed_connection(host: str) -> None:
    with pytest.raises(httpcore.ConnectError, match="cannot be found"):
        resolve(host, 80, private=True)


def _post(url: str, *, seconds: float, size: int = 0) -> int:
    until = time.monotonic() + seconds
    transport = Transport(private=True, until=until, trusting=trust())
    with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
        return client.post(url, content=b"x" * size).status_code


@pytest.mark.parametrize("path", ["/drip", "/slowly", "/silence"])
def test_a_server_that_never_comes_to_an_end_is_left_in_time(site: Site, path: str) -> None:
    began = time.monotonic()

    with pytest.raises(httpx.TimeoutException):
        _post(site.url(path), seconds=0.3)

    assert time.monotonic() - began < 10


def test_nothing_is_sent_when_the_time_is_over(site: Site) -> None:
    with pytest.raises(httpx.ConnectTimeout):
        _post(site.url("/"), seconds=0)

    assert site.seen == []


def test_a_large_body_arrives_whole(site: Site) -> None:
    assert _post(site.url("/"), seconds=30, size=1_000_001) == 200
    assert len(site.seen[0].body) == 1_000_001
