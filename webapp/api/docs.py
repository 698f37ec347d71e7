"""The contract in machine-readable form, and a page to read and try it."""

from flask import Response, current_app, render_template

from webapp import openapi
from webapp.answers import answer
from webapp.endpoints import Resource, endpoints_of

bp = Resource("api_docs", __name__)


@bp.route_of("GET", "/openapi.json", summary="This document", is_open=True, answers={200: None})
def read_openapi() -> Response:
    """OpenAPI 3.1, made from the same declarations that are enforced."""
    return answer(openapi.document(endpoints_of(current_app)))


@bp.route_of("GET", "/docs", summary="Interactive documentation", is_open=True, answers={200: None})
def read_docs() -> Response:
    """All assets are served from here."""
    return Response(render_template("docs/index.html"))
