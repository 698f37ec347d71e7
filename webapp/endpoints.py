"""JSON routes that say what they need, take, answer and refuse.

The declaration is the only source: the wrapper enforces it, the OpenAPI document tells it.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from flask import Blueprint, Flask, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from scheduler.job_request import BODY_LIMIT
from scheduler.states import Role, Scope
from webapp import access
from webapp.bodies import parse_body, parse_query
from webapp.errors import Problem
from webapp.extensions import csrf, db
from webapp.schemas.groundwork import Query

View = Callable[..., ResponseReturnValue]

OVERSEERS = frozenset({Role.OPERATOR, Role.ADMIN})
"""Whose changes are audited, always."""

NO_EVENTS: Mapping[str, type[BaseModel]] = MappingProxyType({})

NOTHING = ""
"""What a route writes to the audit log that changes nothing, whatever its method."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """One route of the HTTP contract; each is equal to itself alone."""

    method: str
    rule: str
    view: str
    summary: str
    description: str
    scope: Scope | None
    role: Role
    is_open: bool
    takes_password: bool
    takes_basic_token: bool
    invalid: str | None
    body: type[BaseModel] | None
    query: type[Query] | None
    answers: Mapping[int, type[BaseModel] | None]
    refuses: tuple[str, ...]
    headers: tuple[str, ...]
    files: tuple[str, ...]
    body_limit: int
    audits: str | None
    reports: bool
    streams: Mapping[str, type[BaseModel]]
    upgrades: bool


class Resource(Blueprint):
    """A blueprint of declared routes; one module of ``webapp.api`` holds one.

    What does not fit a declaration is refused with the code *invalid*, if there is one for all of
    that. Tokens are taken as the password of HTTP Basic, too, where it *takes_basic_token*.
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        *,
        invalid: str | None = None,
        takes_basic_token: bool = False,
    ) -> None:
        super().__init__(name, import_name)
        self.endpoints: list[Endpoint] = []
        self._invalid = invalid
        self._takes_basic_token = takes_basic_token

    def route_of(  # noqa: PLR0913 - a declaration has as many parts as the contract
        self,
        method: str,
        rule: str,
        *,
        summary: str,
        answers: Mapping[int, type[BaseModel] | None],
        scope: Scope | None = None,
        role: Role = Role.VIEWER,
        is_open: bool = False,
        takes_password: bool = False,
        body: type[BaseModel] | None = None,
        query: type[Query] | None = None,
        refuses: tuple[str, ...] = (),
        headers: tuple[str, ...] = (),
        files: tuple[str, ...] = (),
        body_limit: int = BODY_LIMIT,
        audits: str | None = None,
        reports: bool = False,
        streams: Mapping[str, type[BaseModel]] = NO_EVENTS,
        upgrades: bool = False,
    ) -> Callable[[View], View]:
        """Declare a route. The view gets ``body`` and ``query`` if it declares them.

        Without *is_open* the caller is known before the view runs: it has *role*, and a token has
        *scope*. *takes_password* leaves all of that to the view, and so does *upgrades*, for a
        WebSocket may prove later whose it is. What is answered with 200 may be had as *files* of
        these media types, too. *streams* holds the events by name, with the body of each, where
        the answer may be a stream of them. *audits* names the action that the view records with
        ``scheduler.store.audit``; operators and administrators change nothing without one. With
        *reports* a worker tells of a job it has; that is counted apart.
        """
        if audits is None and method != "GET" and role in OVERSEERS:
            raise ValueError(f"{method} {rule}: say what it audits, or that it changes NOTHING")

        def register(view: View) -> View:
            endpoint = Endpoint(
                method=method,
                rule=rule,
                view=view.__name__,
                summary=summary,
                description=view.__doc__ or "",
                scope=scope,
                role=role,
                is_open=is_open,
                takes_password=takes_password,
                takes_basic_token=self._takes_basic_token,
                invalid=self._invalid,
                body=body,
                query=query,
                answers=answers,
                refuses=refuses,
                headers=headers,
                files=files,
                body_limit=body_limit,
                audits=audits,
                reports=reports,
                streams=streams,
                upgrades=upgrades,
            )
            self.endpoints.append(endpoint)
            guarded = _guard(endpoint, view)
            for websocket in (False, True) if upgrades else (False,):
                self.add_url_rule(
                    rule,
                    endpoint=view.__name__,
                    view_func=guarded,
                    methods=[method],
                    websocket=websocket,
                )
            return view

        return register


def endpoints_of(app: Flask) -> list[Endpoint]:
    """Return every declared route of *app*."""
    resources = [bp for bp in app.blueprints.values() if isinstance(bp, Resource)]
    return [endpoint for resource in resources for endpoint in resource.endpoints]


def protect_session() -> None:
    """Check the CSRF token of a change that a session authenticates."""
    account = access.caller()
    if account is not None and account.by_session:
        csrf.protect()


def _guard(endpoint: Endpoint, view: View) -> View:
    @functools.wraps(view)
    def guarded(**values: Any) -> ResponseReturnValue:
        if endpoint.takes_basic_token:
            access.take_basic_token()
        if not (endpoint.is_open or endpoint.takes_password or endpoint.upgrades):
            access.require()
            (access.count_report if endpoint.reports else access.count_request)()
            access.require(endpoint.scope, endpoint.role)
            protect_session()
        elif endpoint.upgrades and access.caller() is not None:
            access.count_request()
        return view(**values, **_inputs(endpoint))

    return guarded


def _inputs(endpoint: Endpoint) -> dict[str, BaseModel]:
    try:
        return _read_inputs(endpoint)
    except Problem as problem:
        if endpoint.invalid is None or problem.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        raise replace(problem, code=endpoint.invalid) from problem


def _read_inputs(endpoint: Endpoint) -> dict[str, BaseModel]:
    inputs: dict[str, BaseModel] = {}
    if endpoint.query is not None:
        inputs["query"] = parse_query(endpoint.query, request.args)
    if endpoint.body is not None:
        inputs["body"] = parse_body(endpoint.body, _read_body(endpoint.body_limit))
    return inputs


def _read_body(limit: int) -> bytes:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("The body must be JSON: Content-Type: application/json.")
    # One byte more: a body without a length ends silently where reading has to stop.
    request.max_content_length = limit + 1
    db.session.rollback()  # no connection is held while a client sends, however slowly
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge as refusal:
        raise _too_large(limit) from refusal
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"The body is larger than {limit} bytes.")
