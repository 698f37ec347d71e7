import gzip
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler import outbound
from scheduler.settings import Settings
from tasks.catalogue import CATALOGUE
from tasks.context import Context, DoNotRetry, Notebook, RetryAfter
from tasks.kinds.http_request import CallFailed, PrivateAddress, TooSlow
from tests.site import Site, answer_dns
from tests.tasks.conftest import make_claim, make_home_settings


@pytest.fixture
def open_settings(tmp_path: Path) -> Settings:
    return make_home_settings(tmp_path, FAIRQ_ALLOW_PRIVATE_HTTP="yes")


def run(settings: Settings, url: str, **payload: Any) -> Any:
    kind = CATALOGUE.get("http_request")
    assert kind is not None
    context = Context(make_claim(), settings, Notebook(lambda: None))
    return kind.handler(context, kind.payload.model_validate({"url": url, **payload}))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0/",
        "https://10.0.0.1/",
        "http://user@127.0.0.1/",
    ],
)
def test_a_private_url_is_refused_for_good_however_it_is_written(
    home_settings: Settings, url: str
) -> None:
    with pytest.raises(PrivateAddress) as refusal:
        run(home_settings, url)

    assert isinstance(refusal.value, DoNotRetry)


def test_a_name_with_any_private_address_is_refused(
    home_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_dns(monkeypatch, {"mixed.test": [["1.1.1.1", "10.0.0.1"]]})

    with pytest.raises(PrivateAddress):
        run(home_settings, "http://mixed.test/")


def test_a_redirect_to_a_private_address_is_refused(
    home_settings: Settings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "is_public", lambda address: address == "127.0.0.1")
    site.answers["/go"] = (302, {"Location": site.url("/secret", host="127.0.0.2")}, b"")

    with pytest.raises(PrivateAddress):
        run(home_settings, site.url("/go"))

    assert [asked.path for asked in site.seen] == ["/go"]


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(
    home_settings: Settings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "is_public", lambda address: address == "127.0.0.1")
    asked = answer_dns(monkeypatch, {"rebind.test": [["127.0.0.1"], ["127.0.0.2"]]})

    result = run(home_settings, site.url("/", host="rebind.test"))

    assert result["status_code"] == 200
    assert asked == ["rebind.test"]
    assert site.seen[0].headers["Host"].startswith("rebind.test")


def test_the_next_address_is_tried_when_one_does_not_answer(
    open_settings: Settings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_dns(monkeypatch, {"two.test": [["127.0.0.9", "127.0.0.1"]]})

    assert run(open_settings, site.url("/", host="two.test"))["status_code"] == 200


def test_proxies_of_the_environment_are_not_used(
    home_settings: Settings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url(""))
    monkeypatch.setenv("all_proxy", site.url(""))

    with pytest.raises(PrivateAddress):
        run(home_settings, "http://10.0.0.1/")

    assert site.seen == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/", "//example.com", ""])
def test_only_http_is_spoken(open_settings: Settings, url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        run(open_settings, url)


def test_a_redirect_to_another_protocol_is_refused(open_settings: Settings, site: Site) -> None:
    site.answers["/go"] = (302, {"Location": "file:///etc/passwd"}, b"")

    with pytest.raises(httpx.UnsupportedProtocol):
        run(open_settings, site.url("/go"))


def test_a_name_nobody_knows_is_tried_again(
    home_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(httpx.ConnectError, match="cannot be found"):
        run(home_settings, "http://unknown.test/")


def test_an_answer_is_returned_with_its_beginning(open_settings: Settings, site: Site) -> None:
    site.answers["/"] = (201, {"Content-Type": "text/plain", "X-Own": "1"}, b"0123456789")

    result = run(open_settings, site.url("/"), max_bytes=4)

    assert (result["status_code"], result["body"], result["truncated"]) == (201, "0123", True)
    assert result["headers"]["content-type"] == "text/plain"
    assert "x-own" not in result["headers"]


def test_a_body_and_headers_are_sent(open_settings: Settings, site: Site) -> None:
    run(open_settings, site.url("/a"), method="POST", json={"n": 1}, headers={"X-Own": "1"})
    run(open_settings, site.url("/b"), method="PUT", body="plain")

    (posted, put) = site.seen
    assert (posted.method, json.loads(posted.body)) == ("POST", {"n": 1})
    assert (posted.headers["X-Own"], posted.headers["Idempotency-Key"]) == ("1", "7:1")
    assert (put.method, put.body) == ("PUT", b"plain")


def test_two_bodies_are_refused(open_settings: Settings) -> None:
    with pytest.raises(ValueError, match="not both"):
        run(open_settings, "http://example.com", json=1, body="x")


def test_what_is_packed_stays_packed(open_settings: Settings, site: Site) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    site.answers["/"] = (200, {"Content-Encoding": "gzip"}, bomb)

    result = run(open_settings, site.url("/"))

    assert result["body"] is None


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_a_refusal_is_not_tried_again(open_settings: Settings, site: Site, status: int) -> None:
    site.answers["/"] = (status, {}, b"")

    with pytest.raises(DoNotRetry, match=str(status)):
        run(open_settings, site.url("/"))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_cannot_now_is_tried_again(
    open_settings: Settings, site: Site, status: int
) -> None:
    site.answers["/"] = (status, {}, b"")

    with pytest.raises(CallFailed, match=str(status)):
        run(open_settings, site.url("/"))


def test_a_server_may_say_when_to_come_back(open_settings: Settings, site: Site) -> None:
    site.answers["/"] = (503, {"Retry-After": "120"}, b"")

    with pytest.raises(RetryAfter) as wish:
        run(open_settings, site.url("/"))

    assert wish.value.seconds == 120


def test_redirects_that_go_in_circles_end(open_settings: Settings, site: Site) -> None:
    site.answers["/"] = (302, {"Location": site.url("/")}, b"")

    with pytest.raises(httpx.TooManyRedirects):
        run(open_settings, site.url("/"))


@pytest.mark.parametrize("path", ["/drip", "/slowly", "/silence"])
def test_an_answer_that_takes_too_long_ends_in_time(
    open_settings: Settings, site: Site, path: str
) -> None:
    began = time.monotonic()

    with pytest.raises(TooSlow):
        run(open_settings, site.url(path), timeout_seconds=0.3)

    assert time.monotonic() - began < 10
