"""What a refusal looks like: problem details (RFC 9457) for programs, a page for people."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from flask import Flask, Response, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_limiter import RateLimitExceeded
from flask_login import current_user
from flask_wtf.csrf import CSRFError
from redis import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from scheduler import clock
from scheduler.database import is_outage
from scheduler.errors import (
    BacklogFull,
    DependencyCycle,
    JobIdConflict,
    JobNotFound,
    PolicyConflict,
    SubmissionRefused,
    TimingInvalid,
)
from webapp.answers import json_body
from webapp.extensions import limiter
from webapp.urls import asked_for

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

AT_THE_DOOR = "door"
"""The category of messages for who has yet to sign in."""

RETRY_SOON = 1
"""Seconds after which it is worth asking again when a service is away."""

RETRY_BACKLOG = 5
"""Seconds after which some of a full backlog has probably finished."""

CODES: Mapping[str, HTTPStatus] = MappingProxyType(
    {
        "bad_request": HTTPStatus.BAD_REQUEST,
        "unauthenticated": HTTPStatus.UNAUTHORIZED,
        "forbidden": HTTPStatus.FORBIDDEN,
        "insufficient_scope": HTTPStatus.FORBIDDEN,
        "csrf_failed": HTTPStatus.FORBIDDEN,
        "not_found": HTTPStatus.NOT_FOUND,
        "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
        "ambiguous_job_id": HTTPStatus.CONFLICT,
        "ambiguous_name": HTTPStatus.CONFLICT,
        "job_id_conflict": HTTPStatus.CONFLICT,
        "not_cancellable": HTTPStatus.CONFLICT,
        "lease_lost": HTTPStatus.CONFLICT,
        "not_running": HTTPStatus.CONFLICT,
        "not_retryable": HTTPStatus.CONFLICT,
        "not_changeable": HTTPStatus.CONFLICT,
        "nothing_to_send": HTTPStatus.CONFLICT,
        "name_taken": HTTPStatus.CONFLICT,
        "too_many_schedules": HTTPStatus.CONFLICT,
        "last_admin": HTTPStatus.CONFLICT,
        "policy_conflict": HTTPStatus.CONFLICT,
        "worker_gone": HTTPStatus.CONFLICT,
        "beyond_bounds": HTTPStatus.CONFLICT,
        "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "invalid_json": HTTPStatus.UNPROCESSABLE_ENTITY,
        "validation_failed": HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_cursor": HTTPStatus.UNPROCESSABLE_ENTITY,
        "unknown_owner": HTTPStatus.UNPROCESSABLE_ENTITY,
        "unknown_group": HTTPStatus.UNPROCESSABLE_ENTITY,
        "unknown_type": HTTPStatus.UNPROCESSABLE_ENTITY,
        "unknown_dependency": HTTPStatus.UNPROCESSABLE_ENTITY,
        "dependency_cycle": HTTPStatus.UNPROCESSABLE_ENTITY,
        "never_fits": HTTPStatus.UNPROCESSABLE_ENTITY,
        "backlog_full": HTTPStatus.TOO_MANY_REQUESTS,
        "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
        "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
        "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""Every code an answer may carry, and the status it comes with."""

_CODE_OF_STATUS: Mapping[int, str] = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: "bad_request",
        HTTPStatus.UNAUTHORIZED: "unauthenticated",
        HTTPStatus.FORBIDDEN: "forbidden",
        HTTPStatus.NOT_FOUND: "not_found",
        HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
        HTTPStatus.TOO_MANY_REQUESTS: "rate_limited",
    }
)


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field."""

    path: str
    message: str


@dataclass
class Problem(Exception):
    """A request cannot be served; *code* is one of CODES and decides the status."""

    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status that goes with the code."""
        return CODES[self.code]

    def body(self) -> dict[str, Any]:
        """Return the problem details object."""
        details: dict[str, Any] = {
            "type": type_of(self.code),
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "code": self.code,
            "request_id": g.get("request_id"),
            **self.more,
        }
        if self.errors:
            details["errors"] = [vars(error) for error in self.errors]
        return details


def type_of(code: str) -> str:
    """Return the name of a kind of problem, which is no address."""
    return f"urn:fairq:problem:{code}"


def not_found() -> Problem:
    """Return the one answer for what does not exist and what the caller may not see."""
    return Problem("not_found", "There is nothing here, or nothing you may see.")


def unauthenticated(detail: str, *, basic: bool = False) -> Problem:
    """Return the answer to missing or wrong credentials; *basic* where all take HTTP Basic."""
    takes_basic = basic or "takes_basic" in g
    challenge = 'Bearer realm="fairq"' + (', Basic realm="fairq"' if takes_basic else "")
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def unavailable(what: str) -> Problem:
    """Return the answer while a service is away."""
    return Problem(
        "unavailable",
        f"{what} is away; nothing was changed. Try again shortly.",
        headers={"Retry-After": str(RETRY_SOON)},
    )


def init_app(app: Flask) -> None:
    """Make every refusal and failure of *app* come out as a problem."""
    app.register_error_handler(Problem, respond)
    app.register_error_handler(SubmissionRefused, lambda error: respond(_of_submission(error)))
    app.register_error_handler(JobNotFound, lambda _: respond(not_found()))
    app.register_error_handler(PolicyConflict, _policy_conflict)
    app.register_error_handler(TimingInvalid, _timing_invalid)
    app.register_error_handler(DBAPIError, _of_database)
    app.register_error_handler(PoolTimeout, lambda _: respond(unavailable("A database connection")))
    app.register_error_handler(RedisError, lambda _: respond(unavailable("The broker")))
    app.register_error_handler(CSRFError, _csrf_failed)
    app.register_error_handler(RateLimitExceeded, rate_limited)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(Exception, _internal)


def respond(problem: Problem) -> ResponseReturnValue:
    """Answer with *problem*, as a page if the caller would rather have one."""
    if prefers_html():
        if _may_sign_in(problem):
            return to_the_door()
        page = render_template("errors/problem.html", problem=problem)
        return page, problem.status, dict(problem.headers)
    return Response(
        json_body(problem.body()),
        status=problem.status,
        headers=dict(problem.headers),
        content_type=MEDIA_TYPE,
    )


def _may_sign_in(problem: Problem) -> bool:
    """Tell whether a person who follows a link or sends a form has only to sign in.

    Not with a header that was refused: it would be refused again after signing in.
    """
    asks = request.method in {"GET", "POST"} and "Authorization" not in request.headers
    return problem.code == "unauthenticated" and asks


def to_the_door() -> ResponseReturnValue:
    """Lead a person to signing in, and from there back; who sent a form is told to do it again."""
    if request.method == "POST":
        flash("Your session has ended; sign in and do it again.", AT_THE_DOOR)
    return redirect(url_for("auth.sign_in", next=asked_for()))


def prefers_html() -> bool:
    """Tell whether a browser asks for something to show."""
    kinds = ["application/json", MEDIA_TYPE, "text/html"]
    return request.accept_mimetypes.best_match(kinds) == "text/html"


def _of_submission(error: SubmissionRefused) -> Problem:
    if isinstance(error, BacklogFull):
        return Problem(error.code, str(error), headers={"Retry-After": str(RETRY_BACKLOG)})
    more: dict[str, Any] = {}
    if isinstance(error, DependencyCycle):
        more["cycle"] = list(error.cycle)
    if isinstance(error, JobIdConflict):
        more["job_id"] = error.job_id
    return Problem(error.code, str(error), (FieldError(error.path, str(error)),), more=more)


def _timing_invalid(error: TimingInvalid) -> ResponseReturnValue:
    wrong = FieldError(error.field, str(error))
    return respond(Problem("validation_failed", f"{wrong.path}: {wrong.message}.", (wrong,)))


def _policy_conflict(error: PolicyConflict) -> ResponseReturnValue:
    return respond(Problem(error.code, f"The policy was changed meanwhile: {error}."))


def _of_database(error: DBAPIError) -> ResponseReturnValue:
    if not is_outage(error):
        return _internal(error)
    log.warning("database unavailable", extra={"cause": type(error.orig).__name__})
    return respond(unavailable("The database"))


def _csrf_failed(error: CSRFError) -> ResponseReturnValue:
    if not prefers_html():
        return respond(Problem("csrf_failed", error.description or "The CSRF token is missing."))
    if not current_user.is_authenticated:
        return to_the_door()
    return respond(Problem("csrf_failed", "This page is old: load it again."))


def retry_after(error: RateLimitExceeded) -> str:
    """Return the seconds after which a limit lets the next one through."""
    longest: int = error.limit.limit.get_expiry()
    reached = limiter.current_limit
    try:
        resets_at = longest if reached is None else reached.window.reset_time
    except RedisError:  # gone since it was counted
        return str(longest)
    return str(min(max(math.ceil(resets_at - clock.now().timestamp()), 1), longest))


def rate_limited(error: RateLimitExceeded) -> ResponseReturnValue:
    """Answer that a limit is reached, and when to come back."""
    wait = {"Retry-After": retry_after(error)}
    return respond(Problem("rate_limited", str(error.description), headers=wait))


def _of_http(error: HTTPException) -> ResponseReturnValue:
    """Dress what Flask and Werkzeug refuse by themselves; redirects pass."""
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error.get_response()
    if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _internal(error)
    if error.code == HTTPStatus.NOT_FOUND:
        return respond(not_found())
    code = _CODE_OF_STATUS.get(error.code, "bad_request")
    kept = {"Allow", "Retry-After", "WWW-Authenticate"}
    headers = {name: value for name, value in error.get_headers() if name in kept}
    return respond(
        Problem(code, error.description or "The request cannot be served.", headers=headers)
    )


def _internal(error: Exception) -> ResponseReturnValue:
    """Say nothing of the cause to the caller; the log has it under the request's id."""
    log.error("request failed", exc_info=error)
    detail = "Something went wrong here. The request id helps to find out what."
    return respond(Problem("internal_error", detail))
