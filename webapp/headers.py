"""What every answer carries: its request id, and what browsers may do with it."""

import logging
import re
import time
from http import HTTPStatus

from flask import Flask, Response, abort, g, request
from ulid import ULID

from webapp.services import services

log = logging.getLogger("webapp.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'"
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: over HTTPS the CSRF check looks at the referrer.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}

_HSTS = "max-age=31536000"


def init_app(app: Flask) -> None:
    """Mark every request of *app* on its way in, and every answer on its way out."""
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{str(ULID()).lower()}"
    g.began = time.perf_counter()
    if "\0" in request.path:
        abort(HTTPStatus.NOT_FOUND)  # Postgres would refuse it: nothing here is called so


def _finish(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    if services().settings.cookie_secure:
        response.headers["Strict-Transport-Security"] = _HSTS
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    response.headers["X-Request-ID"] = g.request_id
    _log(response)
    return response


def _log(response: Response) -> None:
    """Write the access line. The query stays out: people paste secrets into search fields."""
    log.info(
        "request served",
        extra={
            "request_id": g.request_id,
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "milliseconds": round((time.perf_counter() - g.began) * 1000, 1),
            "caller": getattr(g.get("caller"), "username", None),
            "address": request.remote_addr,
        },
    )
