"""Merge patches as RFC 7396 has them, and what a payload is held to."""

from typing import Any

import pytest

from scheduler.payloads import Misfit, Schemas, merge


@pytest.mark.parametrize(
    ("value", "patch", "merged"),
    [
        # The examples of the standard's appendix.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_patch_is_merged_as_the_standard_says(value: Any, patch: Any, merged: Any) -> None:
    assert merge(value, patch) == merged


def test_merging_leaves_what_was_there_alone() -> None:
    value, patch = {"a": {"b": 1}}, {"a": {"c": [2]}}

    assert merge(value, patch) == {"a": {"b": 1, "c": [2]}}
    assert (value, patch) == ({"a": {"b": 1}}, {"a": {"c": [2]}})


SCHEMAS = Schemas(
    {
        "export": {"properties": {"rows": {"items": {"type": "integer"}}}, "required": ["table"]},
        "free": None,
    }
)


def test_everything_wrong_with_a_payload_is_told_with_the_way_to_it() -> None:
    payload = {"rows": [1, "two"]}

    assert set(SCHEMAS.misfits("export", payload)) == {
        Misfit("payload.rows.1", "'two' is not of type 'integer'"),
        Misfit("payload", "'table' is a required property"),
    }
    assert SCHEMAS.misfit("export", payload) in SCHEMAS.misfits("export", payload)


@pytest.mark.parametrize("job_type", ["free", "unheard of"])
def test_a_type_without_a_schema_takes_anything(job_type: str) -> None:
    assert SCHEMAS.misfit(job_type, {"rows": "many"}) is None
    assert SCHEMAS.misfits(job_type, {"rows": "many"}) == []
    assert SCHEMAS.misfit("export", {"table": "t", "rows": [1]}) is None
