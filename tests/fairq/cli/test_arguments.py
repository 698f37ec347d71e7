import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairq.cli import arguments

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("word", "payload"),
    [
        ("n=5", {"n": 5}),
        ("n=5.5", {"n": 5.5}),
        ("on=true", {"on": True}),
        ("none=null", {"none": None}),
        ("name=ann", {"name": "ann"}),
        ('n="5"', {"n": "5"}),
        ("list=[1, 2]", {"list": [1, 2]}),
        ("empty=", {"empty": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("odd=NaN", {"odd": "NaN"}),
        ("odd=-Infinity", {"odd": "-Infinity"}),
    ],
)
def test_a_value_is_json_where_it_can_be(word: str, payload: dict[str, Any]) -> None:
    assert arguments.payload_of([word], None) == payload


@given(values)
def test_any_json_can_be_typed(value: Any) -> None:
    assert arguments.payload_of([f"x={json.dumps(value)}"], None) == {"x": value}


def test_words_come_on_top_of_the_object() -> None:
    assert arguments.payload_of(["n=2"], '{"n": 1, "m": 1}') == {"n": 2, "m": 1}


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["lonely"], None, "'lonely' is no key=value"),
        (["=5"], None, "'=5' is no key=value"),
        ([], "[1]", "must be a JSON object"),
        ([], "{n: 1}", "is not JSON"),
        ([], '{"n": NaN}', "NaN is not JSON"),
    ],
)
def test_what_is_no_payload_is_refused(words: list[str], text: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        arguments.payload_of(words, text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5s", 0.5), ("1.5m", 90), ("2h", 7200), ("1d", 86_400)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert arguments.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 weeks", "1e3", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        arguments.seconds(text)


def test_whole_seconds_are_a_whole_number() -> None:
    assert repr(arguments.whole_seconds("1.5m")) == "90"
    with pytest.raises(ValueError, match="whole seconds"):
        arguments.whole_seconds("0.5")


def test_times_have_a_zone_or_are_local() -> None:
    assert arguments.instant("2026-03-01T12:00Z") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert arguments.instant("2026-03-01T12:00") == datetime(2026, 3, 1, 12).astimezone()


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="is no time"):
        arguments.instant("tomorrow")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("a", ("a", "completed")),
        ("a:failed", ("a", "failed")),
        ("a:finished", ("a", "finished")),
        ("a:b", ("a:b", "completed")),
        (":failed", ("", "failed")),
    ],
)
def test_a_dependency_may_name_another_end(word: str, meant: tuple[str, str]) -> None:
    assert arguments.dependency(word) == meant


@pytest.mark.parametrize(("text", "priority"), [("high", "high"), ("0", 0), ("10", 10)])
def test_a_priority_is_a_class_or_a_level(text: str, priority: str | int) -> None:
    assert arguments.priority(text) == priority
