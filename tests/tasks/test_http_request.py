import gzip
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from scheduler.settings import Settings
from tasks.catalogue import CATALOGUE
from tasks.context import Context, DoNotRetry, Notebook, RetryAfter
from tasks.kinds import http_request
from tasks.kinds.http_request import CallFailed, PrivateAddress, TooSlow, is_public, resolve
from tests.tasks.conftest import make_claim, make_home_settings

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


class Site(http.server.ThreadingHTTPServer):
    """Answers as its table says, and remembers who asked for what."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.slowly = threading.Event()
        super().__init__(("127.0.0.1", 0), _Page)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"


class _Page(http.server.BaseHTTPRequestHandler):
    server: Site

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        status, headers, content = self.server.answers.get(self.path, (200, {}, b"hello"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.path == "/drip":
            self._drip()
        else:
            self.wfile.write(content)

    def _drip(self) -> None:
        while not self.server.slowly.wait(0.05):
            try:
                self.wfile.write(b".")
            except OSError:
                return

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names are the library's

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.02,))
        thread.start()
        yield site
        site.slowly.set()
        site.shutdown()
        thread.join()


@pytest.fixture
def open_settings(tmp_path: Path) -> Settings:
    return make_home_settings(tmp_path, FAIRQ_ALLOW_PRIVATE_HTTP="yes")


def run(settings: Settings, url: str, **payload: Any) -> Any:
    kind = CATALOGUE.get("http_request")
    assert kind is not None
    context = Context(make_claim(), settings, Notebook(lambda: None))
    return kind.handler(context, kind.payload.model_validate({"url": url, **payload}))


def answer_dns(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> list[str]:
    """Make names resolve to the next of their answers; return the list of names asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if host not in names:
            return real(host, port, *rest, **more)
        asked.append(host)
        answer = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
        return [entry for one in answer for entry in real(one, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_not_everybody_reaches_are_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_everybody_reaches_are_public(address: str) -> None:
    assert is_public(address)


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
    monkeypatch.setattr(http_request, "is_public", lambda address: address == "127.0.0.1")
    site.answers["/go"] = (302, {"Location": site.url("/secret", host="127.0.0.2")}, b"")

    with pytest.raises(PrivateAddress):
        run(home_settings, site.url("/go"))

    assert [path for _, path, _, _ in site.seen] == ["/go"]


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(
    home_settings: Settings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_request, "is_public", lambda address: address == "127.0.0.1")
    asked = answer_dns(monkeypatch, {"rebind.test": [["127.0.0.1"], ["127.0.0.2"]]})

    result = run(home_settings, site.url("/", host="rebind.test"))

    assert result["status_code"] == 200
    assert asked == ["rebind.test"]
    assert site.seen[0][2]["Host"].startswith("rebind.test")


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
    with pytest.raises(httpcore.ConnectError):
        resolve("unknown.test", 80, private=True)


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
    assert (posted[0], json.loads(posted[3]), posted[2]["X-Own"]) == ("POST", {"n": 1}, "1")
    assert posted[2]["Idempotency-Key"] == "7:1"
    assert (put[0], put[3]) == ("PUT", b"plain")


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


def test_an_answer_that_drips_ends_in_time(open_settings: Settings, site: Site) -> None:
    began = time.monotonic()

    with pytest.raises(TooSlow):
        run(open_settings, site.url("/drip"), timeout_seconds=0.3)

    assert time.monotonic() - began < 10
