"""Errors that are alike have one fingerprint, others another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.fingerprint import LENGTH, fingerprint, skeleton

TRACE = """Traceback (most recent call last):
  File "/srv/app/tasks/kinds/data.py", line {line}, in {function}
    rows = read(path)
ValueError: no
"""

ALIKE = [
    ("row 7 is broken", "row 1234 is broken"),
    ("no file '/data/a.csv'", "no file '/data/b.csv'"),
    ("no file /data/a.csv here", "no file /data/2026/b.csv here"),
    ("took 1.5 s", "took 20.25 s"),
    ("job 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "job 9d4f1b2a-0000-4d3e-8f11-aabbccddeeff"),
    ("at 0x7f3a2c", "at 0xdeadbeef"),
    ("commit 3f786850e387550f", "commit 89e6c98d92887913"),
    ("job_01h2xcejqtf2nbrexx3vqjhp41 is gone", "job_01h2xcek5tdh7k9z4m0w8s6q2r is gone"),
    ("GET https://example.org/a failed", "GET https://example.org/b?x=1 failed"),
    ("unknown key `a`", "unknown key `b c`"),
    ("too   much\n  space", "too much space"),
]
DIFFERENT = [
    ("no such file", "no such user"),
    ("connection refused", "connection reset"),
    ("", "something"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_messages_that_differ_in_what_varies_are_alike(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)
    assert fingerprint("t", "E", one) == fingerprint("t", "E", other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_messages_that_say_something_else_are_not(one: str, other: str) -> None:
    assert fingerprint("t", "E", one) != fingerprint("t", "E", other)


def test_errors_of_other_types_kinds_or_places_are_not_alike() -> None:
    here, there = (TRACE.format(line=3, function=name) for name in ("parse", "read"))
    errors = [
        ("t", "E", "no", here),
        ("u", "E", "no", here),
        ("t", "F", "no", here),
        ("t", "E", "no", there),
        ("t", "E", "no", None),
    ]

    assert len({fingerprint(*error) for error in errors}) == len(errors)


def test_a_place_stays_the_same_when_lines_move() -> None:
    before, after = (TRACE.format(line=line, function="parse") for line in (3, 300))

    assert fingerprint("t", "E", "no", before) == fingerprint("t", "E", "no", after)


@given(st.tuples(st.text(), st.text(), st.none() | st.text(), st.none() | st.text()))
def test_any_error_has_one(error: tuple[str, str, str | None, str | None]) -> None:
    found = fingerprint(*error)

    assert len(found) == LENGTH
    assert found == fingerprint(*error)
    assert set(found) <= set("0123456789abcdef")
