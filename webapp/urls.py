"""Ids of jobs and names of schedules in URLs: any printable text, slashes included.

WSGI hands a path over decoded, so that ``/jobs/a%2Flogs`` (a job called ``a/logs``) looks like
``/jobs/a/logs`` (the logs of ``a``). The middleware keeps both apart for the converter.
"""

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from flask import Flask, request
from werkzeug.routing import PathConverter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PREFIXES = ("/jobs/", "/simplequeue/jobs/", "/schedules/")


class JobIdConverter(PathConverter):
    """An id or a name of any printable characters; encoded slashes belong to it."""

    def to_python(self, value: str) -> str:
        """Undo what the middleware did."""
        return unquote(value)

    def to_url(self, value: str) -> str:
        """Encode everything that means something in a path."""
        return quote(value, safe="")


class KeepEncodedSlashes:
    """Encodes ``%`` and encoded slashes of such paths once more before the path is decoded."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> "Iterable[bytes]":
        """Serve a request whose path is put right."""
        if environ["PATH_INFO"].startswith(_PREFIXES):
            environ["PATH_INFO"] = _protected(environ)
        return self._application(environ, start_response)


def init_app(app: Flask) -> None:
    """Teach *app* the converter ``job_id`` and the path it needs, and templates where they are."""
    app.url_map.converters["job_id"] = JobIdConverter
    app.jinja_env.globals["asked_for"] = asked_for
    app.wsgi_app = KeepEncodedSlashes(app.wsgi_app)  # type: ignore[method-assign]  # Flask's documented way to add middleware


def asked_for() -> str:
    """Return the page that is asked for, or that had the form, to come back to: path and query.

    They are as they were sent. A form that no page of ours had leads to the front page.
    """
    if request.method in {"GET", "HEAD"}:
        return str(request.environ.get("RAW_URI") or request.full_path.rstrip("?"))
    page = urlsplit(request.referrer or "")
    is_ours = page.netloc == request.host
    return urlunsplit(("", "", page.path, page.query, "")) if is_ours else f"{request.script_root}/"


def _protected(environ: "WSGIEnvironment") -> str:
    decoded: str = environ["PATH_INFO"]
    raw = str(environ.get("RAW_URI", "")).partition("?")[0]
    if not raw.startswith(_PREFIXES):
        return decoded.replace("%", "%25")
    kept = raw.replace("%25", "%2525").replace("%2F", "%252F").replace("%2f", "%252F")
    return unquote(kept, encoding="latin-1")
