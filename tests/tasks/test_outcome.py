from typing import Any

import pytest

from tasks.outcome import LARGEST_RESULT, ResultInvalid, checked, clean

SELF_CONTAINING: list[Any] = []
SELF_CONTAINING.append(SELF_CONTAINING)


@pytest.mark.parametrize(
    "result", [None, True, 1, 1.5, "Grüße 🎉", [1, [2]], {"a": {"b": None}}, r"C:\u0000"]
)
def test_what_json_holds_is_kept_as_it_is(result: Any) -> None:
    assert checked(result) == result


def test_what_json_holds_differently_is_kept_as_json_holds_it() -> None:
    assert checked({1: (2, 3)}) == {"1": [2, 3]}


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (object(), "not JSON"),
        ({1, 2}, "not JSON"),
        (float("nan"), "not JSON"),
        ({"deep": [float("-inf")]}, "not JSON"),
        (b"bytes", "not JSON"),
        (SELF_CONTAINING, "not JSON"),
        ([10**5000], "not JSON"),
        ("\ud800", "not JSON"),
        ("x" * LARGEST_RESULT, "more than"),
        (["ä" * (LARGEST_RESULT // 2)], "more than"),
        ({"a": "b\x00"}, "NUL"),
        ({"\x00": 1}, "NUL"),
        ("\\\x00", "NUL"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_reason(result: Any, complaint: str) -> None:
    with pytest.raises(ResultInvalid, match=complaint):
        checked(result)


def test_cleaned_text_can_be_kept_and_is_not_too_long() -> None:
    assert clean("a\x00b\ud800c", 100) == "a\N{REPLACEMENT CHARACTER}b?c"
    assert clean("x" * 50, 10) == "x" * 9 + "…"
    assert clean("x" * 10, 10) == "x" * 10
