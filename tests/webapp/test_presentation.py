import shlex
from datetime import timedelta

import pytest

from scheduler.states import CancelReason, JobStatus, Outcome
from tests.factories import NOON
from webapp import presentation


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "\N{EN DASH}"),
        (-3.0, "0.0 s"),
        (3.14, "3.1 s"),
        (3, "3 s"),
        (42.9, "42 s"),
        (61.0, "1 min 01 s"),
        (3_600.0, "1 h 00 min"),
        (93_600.0, "1 d 2 h"),
    ],
)
def test_durations_are_said_in_at_most_two_units(seconds: float | None, words: str) -> None:
    assert presentation.duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(30.0, "30 s"), (5.0, "5 s"), (60.0, "1 min"), (7200.0, "2 h"), (90.0, "1 min 30 s")],
)
def test_chosen_lengths_have_no_empty_parts(seconds: float, words: str) -> None:
    assert presentation.limit(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "just now"),
        (-2, "in a moment"),
        (45, "45 s ago"),
        (-120, "in 2 min"),
        (90_000, "1 d ago"),
    ],
)
def test_times_are_said_relative_to_now(seconds: int, words: str) -> None:
    assert presentation.relative(NOON - timedelta(seconds=seconds), NOON) == words


@pytest.mark.parametrize(
    ("megabytes", "words"),
    [(None, "\N{EN DASH}"), (128, "128 MB"), (1024, "1 GB"), (1536, "1.5 GB")],
)
def test_memory_is_said_in_the_unit_that_fits(megabytes: float | None, words: str) -> None:
    assert presentation.memory(megabytes) == words


@pytest.mark.parametrize(
    ("fraction", "words"), [(None, ""), (0, "0%"), (0.999, "99%"), (1, "100%")]
)
def test_unfinished_work_never_reads_as_finished(fraction: float | None, words: str) -> None:
    assert presentation.percent(fraction) == words


def test_a_large_list_shows_its_first_members_only() -> None:
    shown = list(presentation.branches(list(range(1000))))

    assert len(shown) == presentation.TREE_ITEMS
    assert shown[-1].value == presentation.TREE_ITEMS - 1


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_every_outcome_has_words_and_a_look(outcome: Outcome | None) -> None:
    assert presentation.outcome_words(outcome)
    assert presentation.outcome_tone(outcome) in set(JobStatus)


def test_a_command_to_submit_survives_whatever_the_payload_holds() -> None:
    command = presentation.curl("https://host/", {"type": "x", "payload": {"a": "it's $HOME `id`"}})

    words = shlex.split(command.replace("\\\n", " "))

    assert words[1] == "https://host/jobs"
    assert words[-1] == '{"type": "x", "payload": {"a": "it\'s $HOME `id`"}}'


def test_every_reason_to_cancel_has_its_sentence() -> None:
    sentences = [presentation.cancel_sentence(reason) for reason in CancelReason]

    assert len(set(sentences)) == len(CancelReason)
    assert presentation.cancel_sentence(None) not in sentences
