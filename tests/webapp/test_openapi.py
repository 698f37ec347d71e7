"""The OpenAPI document tells what the routes do."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from flask import Flask, Response
from jsonschema import Draft202012Validator

from webapp import openapi
from webapp.bodies import parse_body
from webapp.endpoints import Endpoint, Resource, endpoints_of
from webapp.errors import CODES, MEDIA_TYPE
from webapp.examples import EXAMPLES
from webapp.openapi import codes_of, path_of
from webapp.schemas.errors import ProblemDetails

LOG_EVENTS = {"log": "LogLine", "end": "LogEnd", "resume": "StreamPlace"}
MOVE_EVENTS = {
    "job": "StreamedMove",
    "live": "StreamPlace",
    "reload": "StreamPlace",
    "resume": "StreamPlace",
}


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json")
    assert answer.mimetype == "application/json"
    told: dict[str, Any] = answer.json
    return told


def test_every_route_of_the_contract_is_in_the_document(
    app: Flask, document: dict[str, Any]
) -> None:
    resources = {name for name, bp in app.blueprints.items() if isinstance(bp, Resource)}
    routes = {
        (path_of(rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if rule.endpoint.partition(".")[0] in resources and method != "HEAD"
    }

    told = {(path, method) for path, item in document["paths"].items() for method in item}

    assert told == routes


def test_the_document_is_made_once_of_the_routes_there_are(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = Resource("resource", __name__)
    resource.route_of("GET", "/more", summary="More", is_open=True, answers={200: None})(Response)
    app.register_blueprint(resource)
    made, document = [], openapi.document

    def noted(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
        made.append(endpoints)
        return document(endpoints)

    monkeypatch.setattr(openapi, "document", noted)

    told = [app.test_client().get("/openapi.json").json for _ in range(2)]

    assert len(made) == 1
    assert told[0] == told[1]
    assert "/more" in told[0]["paths"]


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    operations = [one for item in document["paths"].values() for one in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation["summary"]
        assert operation["responses"]
        assert all(re.fullmatch("[1-5][0-9][0-9]", status) for status in operation["responses"])
        assert all(answer["description"] for answer in operation["responses"].values())


def test_paths_and_their_parameters_agree(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            told = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
            assert told == re.findall(r"{(\w+)}", path)


def test_every_schema_is_one_and_every_reference_leads_somewhere(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_every_default_is_one_that_could_be_sent(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, told in schema.get("properties", {}).items():
            if "default" in told:
                validator = Draft202012Validator(told | {"components": document["components"]})
                assert validator.is_valid(told["default"]), f"{name}.{field}"


def test_every_request_has_an_example_that_would_be_taken(
    app: Flask, document: dict[str, Any]
) -> None:
    for endpoint in endpoints_of(app):
        if endpoint.body is not None:
            operation = document["paths"][path_of(endpoint.rule)][endpoint.method.lower()]
            example = operation["requestBody"]["content"]["application/json"]["example"]
            assert parse_body(endpoint.body, json.dumps(example).encode())
    assert set(EXAMPLES) == {e.body for e in endpoints_of(app)} - {None}


def test_every_refusal_has_an_example_for_each_of_its_codes(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                told = answer.get("content", {}).get(MEDIA_TYPE, {"examples": {}})["examples"]
                for code, example in told.items():
                    problem = ProblemDetails.model_validate(example["value"])
                    assert (problem.code, str(problem.status)) == (code, status)
                    assert f"`{code}`" in answer["description"]


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for inner in node for found in references(inner)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for inner in node.values() for found in references(inner)]


def test_the_document_tells_the_contracts_limits(document: dict[str, Any]) -> None:
    job = document["components"]["schemas"]["JobRequest"]

    assert job["additionalProperties"] is False
    assert job["required"] == ["type"]
    assert job["properties"]["job_id"]["anyOf"][0]["maxLength"] == 200
    cancel = document["paths"]["/jobs/{job_id}/cancel"]["patch"]
    assert {"401", "403", "404", "409", "503"} <= set(cancel["responses"])
    assert cancel["security"] == [{"token": []}, {"session": []}]
    listed = document["paths"]["/jobs"]["get"]["responses"]["200"]["content"]
    assert set(listed) == {"application/json", "text/csv", "application/x-ndjson"}
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert {"password": []} in document["paths"]["/tokens"]["post"]["security"]


def test_streams_are_told_with_what_each_event_holds(document: dict[str, Any]) -> None:
    paths = document["paths"]
    follow, stream = paths["/jobs/{job_id}/logs"]["get"], paths["/jobs/stream"]["get"]

    for operation, told in ((follow, LOG_EVENTS), (stream, MOVE_EVENTS)):
        events = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["anyOf"]
        bodies = {
            event["properties"]["event"]["const"]: event["properties"]["data"]["contentSchema"]
            for event in events
        }
        assert bodies == {
            name: {"$ref": f"#/components/schemas/{body}"} for name, body in told.items()
        }
        assert "Last-Event-ID" in [one["name"] for one in operation["parameters"]]
    assert set(follow["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert stream["security"] == [{"token": []}, {"session": []}]
    assert {"101", "200", "401", "403", "422"} <= set(stream["responses"])
    assert {"200", "202", "404"} <= set(paths["/jobs/{job_id}/wait"]["get"]["responses"])


def test_every_code_that_is_declared_exists_and_every_code_is_declared(app: Flask) -> None:
    declared = {code for endpoint in endpoints_of(app) for code in codes_of(endpoint)}

    assert declared <= set(CODES)
    assert set(CODES) - declared <= {"bad_request", "method_not_allowed"}
