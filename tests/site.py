"""Another server: it answers as a test says, and remembers who asked for what."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

Answer = tuple[int, dict[str, str], bytes]

HUGE = 100_000_000
"""Bytes that a server may want to send and nobody should read."""


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Site(http.server.ThreadingHTTPServer):
    """Answers as its table says.

    Of several answers each is given once, the last one for ever. ``/drip`` sends a byte now and
    then, ``/slowly`` a status line that never ends, ``/huge`` as much as is taken, and what is
    *silent* nothing until the test is over.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[Asked] = []
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.silent = {"/silence"}
        self.over = threading.Event()
        self.taken = 0
        super().__init__(("127.0.0.1", 0), _Page)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def answer_to(self, path: str) -> Answer:
        answers = self.answers.get(path, (200, {}, b"hello"))
        if isinstance(answers, list):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        return answers

    def handle_error(self, *_: Any) -> None:
        """Say nothing of those who hang up."""


class _Page(http.server.BaseHTTPRequestHandler):
    server: Site

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.server.seen.append(Asked(self.command, self.path, dict(self.headers), body))
        if self.path in self.server.silent:
            self.server.over.wait()
            return
        if self.path == "/slowly":
            self._be_slow()
            return
        status, headers, content = self.server.answer_to(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.path == "/drip":
            self._drip()
        elif self.path == "/huge":
            self._pour()
        else:
            self.wfile.write(content)

    def _drip(self, drop: bytes = b".") -> None:
        while not self.server.over.wait(0.05):
            try:
                self.wfile.write(drop)
            except OSError:
                return

    def _be_slow(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 ")
        self._drip(b"O")

    def _pour(self) -> None:
        while self.server.taken < HUGE:
            self.wfile.write(b"x" * 100_000)
            self.server.taken += 100_000

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names are the library's

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Site]:
    """Serve while the block runs."""
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.02,))
        thread.start()
        yield site
        site.over.set()
        site.shutdown()
        thread.join()


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
