"""The OpenAPI 3.1 document, made from the declarations of the routes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from webapp.endpoints import OVERSEERS, Endpoint
from webapp.errors import CODES, MEDIA_TYPE, type_of
from webapp.examples import EXAMPLES
from webapp.schemas.errors import ProblemDetails

_JSON = "application/json"
_REFERENCE = "#/components/schemas/{model}"

_PARAMETER = re.compile(r"<(?:(?P<converter>\w+):)?(?P<name>\w+)>")

_TEXT: Mapping[str, Any] = {"schema": {"type": "string"}}

_HEADERS: Mapping[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "The same key again answers with the job it made the first time; for jobs"
        " without a `job_id`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    },
    "Last-Event-ID": {
        "description": "The id of the last event that was received: the stream goes on after it.",
        "schema": {"type": "string"},
    },
}

_WAIT_FIRST = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which it is worth asking again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}

_INTRODUCTION = """\
Jobs in, results out: the contract of a Fairq server.

Send `Authorization: Bearer <token>`; the first token comes from `POST /tokens` with username and
password. Errors are problem details (RFC 9457) with a stable `code`. Lists are keyset pages: pass
`next_cursor` on as `cursor` until it is null.

Too much is refused: 429 for more requests than a user may make in a minute, for more unfinished
jobs than a backlog takes, and for guessing passwords; 413 and 422 for bodies that are too large,
too deep or have too many keys."""


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the whole document."""
    schemas, references = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(path_of(endpoint.rule), {})
        operations[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fairq", "version": "1", "description": _INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "fairq_session"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def path_of(rule: str) -> str:
    """Return a Flask rule the way OpenAPI writes it."""
    return _PARAMETER.sub(r"{\g<name>}", rule)


_References = Mapping[Any, dict[str, Any]]  # by model and direction


def _schemas(endpoints: Sequence[Endpoint]) -> tuple[dict[str, Any], _References]:
    wanted: dict[tuple[type[BaseModel], Any], None] = {(ProblemDetails, "serialization"): None}
    for endpoint in endpoints:
        if endpoint.body is not None:
            wanted[endpoint.body, "validation"] = None
        for model in endpoint.answers.values():
            if model is not None:
                wanted[model, "serialization"] = None
        for model in endpoint.streams.values():
            wanted[model, "serialization"] = None
    references, definitions = models_json_schema(list(wanted), ref_template=_REFERENCE)
    return definitions["$defs"], references


def _operation(endpoint: Endpoint, references: _References) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.view,
        "summary": endpoint.summary,
        "description": _description(endpoint),
        "tags": [endpoint.rule.split("/")[1]],
        "parameters": [
            *_path_parameters(endpoint),
            *_query_parameters(endpoint),
            *_headers(endpoint),
        ],
        "responses": {**_answers(endpoint, references), **_problems(endpoint, references)},
        "security": _security(endpoint),
    }
    if endpoint.body is not None:
        schema = references[endpoint.body, "validation"]
        content = {"schema": schema, "example": EXAMPLES[endpoint.body]}
        operation["requestBody"] = {"required": True, "content": {_JSON: content}}
    return operation


def _description(endpoint: Endpoint) -> str:
    if endpoint.is_open:
        return endpoint.description
    scope = "" if endpoint.scope is None else f", tokens the scope `{endpoint.scope}`"
    needs = f"Needs the role `{endpoint.role}`{scope}."
    return f"{endpoint.description}\n\n{needs}{_audited(endpoint)}"


def _audited(endpoint: Endpoint) -> str:
    if not endpoint.audits:
        return ""
    always = endpoint.role in OVERSEERS
    return f" Audited as `{endpoint.audits}`{'' if always else ' if it is about somebody else'}."


def _path_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for match in _PARAMETER.finditer(endpoint.rule):
        kind = "integer" if match["converter"] == "int" else "string"
        yield {"name": match["name"], "in": "path", "required": True, "schema": {"type": kind}}


def _query_parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    if endpoint.query is None:
        return
    schema = endpoint.query.model_json_schema()
    for name, field in schema["properties"].items():
        described = {"description": field.pop("description")} if "description" in field else {}
        field.pop("title", None)
        # A set is written as words between commas, a list by repeating the name.
        explode = not field.pop("uniqueItems", False)
        style = {"style": "form", "explode": explode} if field.get("type") == "array" else {}
        blank = {"allowEmptyValue": True} if endpoint.query.takes_blanks else {}
        yield {"name": name, "in": "query", "schema": field, **described, **style, **blank}


def _headers(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for name in endpoint.headers:
        yield {"name": name, "in": "header", **_HEADERS[name]}


def _answers(endpoint: Endpoint, references: _References) -> dict[str, Any]:
    answers = {}
    for status, model in endpoint.answers.items():
        content = {} if model is None else _json(references[model, "serialization"])
        if status == HTTPStatus.OK:
            content |= dict.fromkeys(endpoint.files, _TEXT)
        if endpoint.streams and status == HTTPStatus.OK:
            bodies = {n: references[m, "serialization"] for n, m in endpoint.streams.items()}
            content |= _events(bodies)
        described = {"description": HTTPStatus(status).phrase}
        answers[str(status)] = described | ({"content": content} if content else {})
    return answers


def _problems(endpoint: Endpoint, references: _References) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes_of(endpoint):
        by_status.setdefault(CODES[code], []).append(code)
    schema = references[ProblemDetails, "serialization"]
    return {
        str(int(status)): {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{c}`' for c in codes)}",
            "content": {MEDIA_TYPE: {"schema": schema, "examples": _refusals(codes)}},
            **({"headers": _RETRY_AFTER} if status in _WAIT_FIRST else {}),
        }
        for status, codes in sorted(by_status.items())
        if status not in endpoint.answers
    }


def _refusals(codes: Iterable[str]) -> dict[str, Any]:
    """Return what a refusal with each code looks like."""
    return {
        code: {
            "value": {
                "type": type_of(code),
                "title": CODES[code].phrase,
                "status": int(CODES[code]),
                "detail": "A sentence that says what is in the way.",
                "code": code,
                "request_id": "req_01kf8xq7w3m5n9p2r4t6v8y0za",
            }
        }
        for code in codes
    }


def codes_of(endpoint: Endpoint) -> list[str]:
    """Return the codes of every refusal a route may answer with."""
    codes = [*endpoint.refuses, "internal_error", "unavailable"]
    if not endpoint.is_open:
        codes += ["unauthenticated", "forbidden", "rate_limited"]
    if endpoint.scope is not None:
        codes.append("insufficient_scope")
    if not endpoint.is_open and endpoint.method != "GET":
        codes.append("csrf_failed")
    if "<" in endpoint.rule:
        codes.append("not_found")
    if endpoint.query is not None or endpoint.body is not None:
        codes.append(endpoint.invalid or "validation_failed")
    if endpoint.body is not None:
        codes += [endpoint.invalid or "invalid_json", "too_large", "unsupported_media_type"]
    return [code for code in CODES if code in codes]


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    if endpoint.is_open:
        return []
    schemes = ["token", "session", *(["password"] if _takes_basic(endpoint) else [])]
    return [{scheme: []} for scheme in schemes]


def _takes_basic(endpoint: Endpoint) -> bool:
    return endpoint.takes_password or endpoint.takes_basic_token


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


def _events(bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tell of server-sent events: what each of them is, in which the data is JSON."""
    either = [_event(name, schema) for name, schema in bodies.items()]
    return {"text/event-stream": {"schema": {"type": "object", "anyOf": either}}}


def _event(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": _JSON, "contentSchema": schema}
    properties = {"id": {"type": "string"}, "event": {"const": name}, "data": data}
    return {"required": ["event", "data"], "properties": properties}
