from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict

from scheduler.models import JobType
from scheduler.states import Condition
from webapp.forms import JobForm, payload_fields

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["count"],
    "$defs": {"Colour": {"enum": ["red", 3, None]}},
    "properties": {
        "notes": {"type": "object"},
        "lines": {"type": "array", "items": {"type": "string"}},
        "colour": {"$ref": "#/$defs/Colour"},
        "count": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."},
        "size": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "loud": {"type": "boolean", "default": True},
        "word": {"type": "string"},
    },
}


RETRY = {
    "max_attempts": 3,
    "strategy": "linear",
    "base_delay_seconds": 1.5,
    "backoff_multiplier": 3.0,
    "max_delay_seconds": 1_234_567.0,
    "jitter": False,
}

CONTROLS = (
    "payload",
    "payload.count",
    "payload.notes",
    "cpu_units",
    "run_at",
    "zone_minutes",
    "priority",
    "tags",
    "depends_on",
    "delay_seconds",
    "mode",
    "job_id",
    "max_attempts",
)


def kind(schema: dict[str, Any] | None = SCHEMA) -> JobType:
    return JobType(
        name="paint",
        description="",
        payload_schema=schema,
        cpu_units=Decimal(1),
        memory_mb=128,
        timeout_seconds=60.0,
        retry_config={},
    )


def filled(**fields: str) -> JobForm:
    return JobForm.filled(kind(), MultiDict({"mode": "form", **fields}))


def test_every_kind_of_member_gets_a_control_and_what_is_needed_comes_first() -> None:
    fields = payload_fields(SCHEMA, {})

    assert fields[0].name == "count"
    assert fields[0].required
    assert fields[0].hint == "How many. From 1 to 9."
    assert {one.name: one.kind for one in fields} == {
        "count": "number",
        "colour": "choice",
        "size": "number",
        "loud": "boolean",
        "word": "text",
        "lines": "lines",
        "notes": "json",
    }
    assert [one.name for one in fields][-2:] == ["notes", "lines"]


def test_a_filled_form_becomes_a_request_of_the_right_types() -> None:
    form = filled(
        **{
            "payload.count": "3",
            "payload.colour": "3",
            "payload.size": "1.5",
            "payload.loud": "true",
            "payload.word": "12",
            "payload.lines": "a\r\n\r\n b ",
            "payload.notes": '{"x": [1]}',
        },
        priority="2",
        cpu_units="0.5",
        memory_mb="64",
        depends_on="one\ntwo finished\nthree four",
        tags="a, b,",
        run_at="2026-07-01T12:00:00",
        zone_minutes="-120",
        max_attempts="5",
    )

    wanted = form.request()

    assert form.errors == {}
    assert wanted is not None
    assert wanted.payload == {
        "count": 3,
        "colour": 3,
        "size": 1.5,
        "loud": True,
        "word": "12",
        "lines": ["a", "b"],
        "notes": {"x": [1]},
    }
    assert wanted.priority == 2
    assert wanted.cpu_units() == Decimal("0.5")
    assert [(one.job_id, one.when) for one in wanted.depends_on] == [
        ("one", Condition.COMPLETED),
        ("two", Condition.FINISHED),
        ("three four", Condition.COMPLETED),
    ]
    assert wanted.tags == ["a", "b"]
    assert wanted.run_at is not None
    assert wanted.run_at.isoformat() == "2026-07-01T10:00:00+00:00"
    assert wanted.retry_config is not None
    assert wanted.retry_config.model_dump(exclude_unset=True) == {"max_attempts": 5}


def test_an_unticked_box_says_no_and_empty_fields_say_nothing() -> None:
    wanted = filled(**{"payload.count": "1"}).request()

    assert wanted is not None
    assert wanted.payload == {"count": 1, "loud": False}


def test_every_problem_stands_at_its_control_at_once() -> None:
    form = filled(
        **{"payload.count": "10", "payload.size": "big", "payload.notes": "{"},
        cpu_units="none",
        max_attempts="0",
        run_at="someday",
        tags="x" * 101,
    )

    assert form.request() is None
    assert set(form.errors) == {
        "payload.count",
        "payload.size",
        "payload.notes",
        "cpu_units",
        "max_attempts",
        "run_at",
        "tags",
    }


def test_a_missing_member_is_asked_for_where_it_belongs() -> None:
    form = filled()

    assert form.request() is None
    assert form.errors["payload.count"] == ["This is needed."]


def test_json_is_taken_as_it_is_written_and_its_problems_stand_there() -> None:
    good = JobForm.filled(kind(), MultiDict({"mode": "json", "payload": '{"count": 2}'}))
    wrong = JobForm.filled(kind(), MultiDict({"mode": "json", "payload": '{"count": 0}'}))
    broken = JobForm.filled(kind(None), MultiDict({"mode": "form", "payload": "[1]"}))

    wanted = good.request()

    assert wanted is not None
    assert wanted.payload == {"count": 2}
    assert wrong.request() is None
    assert wrong.errors == {"payload": ["0 is less than the minimum of 1"]}
    assert broken.request() is None
    assert list(broken.errors) == ["payload"]


def test_what_the_engine_refuses_stands_at_the_control_or_above_the_form() -> None:
    form = filled(**{"payload.count": "1"})
    form.refuse("depends_on.0", "there is no job x")
    form.refuse("resource_requirements", "asks for too much")
    form.refuse("", "the backlog is full")
    form.refuse("start_by", "is odd")

    assert form.errors == {
        "depends_on": ["there is no job x"],
        "cpu_units": ["asks for too much"],
        "": ["the backlog is full", "start_by: is odd"],
    }


def test_a_job_is_repeated_by_form_where_the_form_can_and_as_json_elsewhere() -> None:
    model = {
        "payload": {"count": 4, "lines": ["a", "b"]},
        "priority": 7,
        "resource_requirements": {"cpu_units": 2.0, "memory_mb": 256},
        "retry_config": RETRY,
        "timeout_seconds": 60.0,
        "depends_on": ["one", {"job_id": "two", "when": "failed"}],
        "tags": ["a"],
    }

    form = JobForm.like(kind(), model)
    strange = JobForm.like(kind(), {**model, "payload": {"count": 4, "unknown": 1}})

    assert form.mode == "form"
    assert {one.name: one.value for one in form.fields if one.value} == {
        "count": "4",
        "lines": "a\nb",
        "loud": "true",
    }
    assert form.values["depends_on"] == "one\ntwo failed"
    assert form.values["timeout_seconds"] == "60"
    assert strange.mode == "json"


def test_a_repeated_job_is_asked_for_exactly_as_the_one_before() -> None:
    model = {
        "type": "paint",
        "payload": {"count": 4},
        "priority": 7,
        "resource_requirements": {"cpu_units": 2.125, "memory_mb": 1_234_567},
        "retry_config": RETRY,
        "timeout_seconds": 1_234_567.0,
        "estimated_seconds": 0.25,
        "executor": "pull",
        "callback_url": "https://host/told",
        "description": "Words",
        "tags": ["a"],
        "depends_on": ["one", {"job_id": "two", "when": "failed"}],
    }
    form = JobForm.like(kind(), model)

    sent = form.values | {f"payload.{one.name}": one.value for one in form.fields if one.value}
    wanted = JobForm.filled(kind(), MultiDict(sent | {"mode": form.mode})).request()

    assert wanted is not None
    assert wanted.model_dump(mode="json", exclude_unset=True) == model | {
        "payload": {"count": 4, "loud": True},
        "depends_on": [{"job_id": "one"}, {"job_id": "two", "when": "failed"}],
    }


@pytest.mark.parametrize("said", ["nan", "-inf", "1e999", "9" * 5000])
@pytest.mark.parametrize("control", ["payload.size", "cpu_units", "max_delay_seconds", "priority"])
def test_a_number_that_is_none_is_told_at_its_field(control: str, said: str) -> None:
    form = filled(**{"payload.count": "1", control: said})

    assert form.request() is None
    assert set(form.errors) == {control}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines are slow
@given(
    st.dictionaries(
        st.sampled_from(CONTROLS),
        st.one_of(
            st.text(max_size=12), st.sampled_from(["NaN", "1e999", "\0", "[", "form", "9" * 40])
        ),
    )
)
def test_no_input_breaks_the_form(given: dict[str, str]) -> None:
    form = JobForm.filled(kind(), MultiDict(given))

    assert (form.request() is None) == bool(form.errors)
