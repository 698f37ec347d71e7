"""The contract in machine-readable form, and a page to read and try it."""

from functools import cache

from flask import Response, current_app, render_template

from webapp import openapi
from webapp.answers import json_body
from webapp.endpoints import Endpoint, Resource, endpoints_of

bp = Resource("api_docs", __name__)


@bp.route_of("GET", "/openapi.json", summary="This document", is_open=True, answers={200: None})
def read_openapi() -> Response:
    """OpenAPI 3.1, made from the same declarations that are enforced."""
    document = _document(tuple(endpoints_of(current_app)))
    return Response(document, content_type="application/json")


@bp.route_of("GET", "/docs", summary="Interactive documentation", is_open=True, answers={200: None})
def read_docs() -> Response:
    """All assets are served from here."""
    return Response(render_template("docs/index.html"))


@cache  # anybody may ask for it, and to make it takes longer than all else that is answered
def _document(endpoints: tuple[Endpoint, ...]) -> bytes:
    return json_body(openapi.document(endpoints))
