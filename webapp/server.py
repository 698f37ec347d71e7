"""The gevent server: one greenlet per connection, WebSockets included."""

import logging
import signal
import socket
from datetime import timedelta

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

from scheduler.settings import Settings
from webapp import live
from webapp.services import services_of

log = logging.getLogger(__name__)

FINISHING = timedelta(seconds=5)
"""How long requests may go on after the server was told to stop."""


class Server(WSGIServer):  # type: ignore[misc]  # gevent ships no annotations
    """Serves an application and knows how many requests it is answering."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        super().__init__(
            (settings.host, settings.port),
            app,
            handler_class=_Handler,
            log=None,
            error_log=log,
        )
        self._answering = 0
        self._idle = Event()
        self._idle.set()

    def begin(self) -> None:
        """Note that a request is being answered."""
        self._answering += 1
        self._idle.clear()

    def end(self) -> None:
        """Note that a request has been answered."""
        self._answering -= 1
        if self._answering == 0:
            self._idle.set()

    def finish(self) -> None:
        """Accept nothing more and let what is being answered finish, for a while."""
        self.close()
        self._idle.wait(FINISHING.total_seconds())
        self.stop(timeout=0)


class _Handler(WebSocketHandler):  # type: ignore[misc]  # gevent ships no annotations
    def handle(self) -> None:
        """Serve a connection. Each write leaves at once: waiting for company costs 40 ms."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()

    def get_environ(self) -> dict[str, object]:
        """Add the path as it was sent; see ``webapp.urls``."""
        environ: dict[str, object] = super().get_environ()
        environ["RAW_URI"] = self.path
        return environ

    def log_request(self) -> None:
        """Write nothing: the application writes the access lines, it knows the request's id."""

    def run_application(self) -> None:
        """Answer a request. Live connections last for ever and are not waited for."""
        if self.path.startswith("/socket.io/"):
            super().run_application()
            return
        self.server.begin()
        try:
            super().run_application()
        finally:
            self.server.end()


def serve(app: Flask, settings: Settings) -> None:
    """Serve *app* until SIGTERM or SIGINT, then finish what is being answered."""
    stopping = Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, stopping.set)
    server = Server(app, settings)
    server.start()
    live.start_relay(app)
    log.info("web server started", extra={"host": settings.host, "port": server.server_port})
    stopping.wait()
    services_of(app).desk.close()
    server.finish()
    log.info("web server stopped")
