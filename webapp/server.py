"""The gevent server: one greenlet per connection, WebSockets included."""

import errno
import logging
import resource
import signal
import socket
from contextlib import suppress
from datetime import timedelta

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pywsgi import WSGIHandler, WSGIServer
from geventwebsocket.handler import WebSocketHandler

from scheduler.settings import Settings
from webapp import live
from webapp.connection import ENVIRON_KEY, Connection
from webapp.services import services_of
from webapp.streams.home import streams_of

log = logging.getLogger(__name__)

FINISHING = timedelta(seconds=5)
"""How long requests may go on after the server was told to stop."""

PARTING = timedelta(seconds=1)
"""How long those who listen may take to hear that the server stops."""


SILENCE = timedelta(seconds=75)
"""How long a client may take to begin a request, and as long again to send its headers."""

_NOTICE_SILENCE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A client that vanishes without a word is noticed after about a minute, also while it listens."""


class Tally:
    """How many of something go on."""

    def __init__(self) -> None:
        self._count = 0
        self._none = Event()
        self._none.set()

    def begin(self) -> None:
        """Count one more."""
        self._count += 1
        self._none.clear()

    def end(self) -> None:
        """Count one less."""
        self._count -= 1
        if self._count == 0:
            self._none.set()

    def wait(self, longest: timedelta) -> None:
        """Wait until there is none left, but not for ever."""
        self._none.wait(longest.total_seconds())


class Server(WSGIServer):  # type: ignore[misc]  # gevent ships no annotations
    """Serves an application and knows what it is answering."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        super().__init__(
            (settings.host, settings.port),
            app,
            handler_class=_Handler,
            log=None,
            error_log=log,
        )
        self.answering = Tally()
        self.lasting = Tally()

    def finish(self) -> None:
        """Let what is being answered finish, for a while, and end the rest."""
        self.answering.wait(FINISHING)
        self.lasting.wait(PARTING)
        self.stop(timeout=0)


class _Handler(WebSocketHandler):  # type: ignore[misc]  # gevent ships no annotations
    # The last is what a write ends with when its connection is severed.
    ignored_socket_errors = (*WSGIHandler.ignored_socket_errors, errno.EBADF)

    def handle(self) -> None:
        """Serve a connection. Each write leaves at once: waiting for company costs 40 ms."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _NOTICE_SILENCE.items():
            if hasattr(socket, name):  # not everywhere under these names
                self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        super().handle()

    def read_requestline(self) -> str:
        """Wait for a request; who begins none is hung up on."""
        with gevent.Timeout(SILENCE.total_seconds(), TimeoutError("no request came")):
            line: str = super().read_requestline()
            return line

    def read_request(self, raw_requestline: str) -> bool:
        """Read the headers; who does not finish them has made no request."""
        with gevent.Timeout(SILENCE.total_seconds(), ValueError("the headers did not end")):
            is_read: bool = super().read_request(raw_requestline)
            return is_read

    def get_environ(self) -> dict[str, object]:
        """Add the path as it was sent, see ``webapp.urls``, and the connection."""
        environ: dict[str, object] = super().get_environ()
        environ["RAW_URI"] = self.path
        environ[ENVIRON_KEY] = _Socket(self)
        return environ

    def log_request(self) -> None:
        """Write nothing: the application writes the access lines, it knows the request's id."""

    def run_application(self) -> None:
        """Answer a request. Socket.IO lasts for ever and is not waited for.

        It alone leaves upgrading to the library; streams upgrade once they know who asks.
        """
        if self.path.startswith("/socket.io/"):
            super().run_application()
            return
        self._tally = self.server.answering
        self._tally.begin()
        try:
            WSGIHandler.run_application(self)
        finally:
            self._tally.end()
            if self.connection_upgraded:
                self.close_connection = True

    def lasts(self) -> None:
        """Wait no longer for this answer when the server stops."""
        self._tally.end()
        self._tally = self.server.lasting
        self._tally.begin()


class _Socket(Connection):
    """The connection under a request of this server."""

    can_upgrade = True

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self._socket = handler.socket
        self._stream = handler.rfile

    def lasts(self) -> None:
        self._handler.lasts()

    def is_there(self) -> bool:
        # With no patience at all gevent does not wait for something to be read.
        patience = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(patience)

    def read(self, size: int) -> bytes:
        try:
            received: bytes = self._stream.read1(size)
        except OSError:
            return b""
        return received

    def sever(self) -> None:
        with suppress(OSError):  # it may have gone by itself
            self._socket.shutdown(socket.SHUT_RDWR)


def raise_file_limit() -> None:
    """Let more than a thousand clients stay: many systems grant 1,024 files until asked."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems state a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(app: Flask, settings: Settings) -> None:
    """Serve *app* until SIGTERM or SIGINT; then take nothing more, and finish what goes on."""
    stopping = Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, stopping.set)
    raise_file_limit()
    server = Server(app, settings)
    server.start()
    live.start(app)
    log.info("web server started", extra={"host": settings.host, "port": server.server_port})
    stopping.wait()
    server.close()
    _let_go(app)
    server.finish()
    log.info("web server stopped")


def _let_go(app: Flask) -> None:
    """Let those go on who would wait or listen for longer than the server lasts."""
    services_of(app).desk.close()
    streams_of(app).stop()
