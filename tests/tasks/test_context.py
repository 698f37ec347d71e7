import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from scheduler.store.work import LogLine
from tasks.context import Cancelled, Context, Notebook, Progress
from tests.factories import NOON
from tests.tasks.conftest import make_claim, make_home_settings


class Desk:
    """A context with its notebook in reach."""

    def __init__(self, home: Path) -> None:
        self.nudges = 0
        self.notebook = Notebook(self._nudge)
        self.context = Context(make_claim(), make_home_settings(home), self.notebook)

    def _nudge(self) -> None:
        self.nudges += 1


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_context_names_its_attempt(desk: Desk) -> None:
    context = desk.context

    assert (context.job_id, context.owner, context.attempt) == ("job_7", "ann", 1)
    assert context.idempotency_key == "7:1"
    assert not context.is_last_attempt


def test_asking_for_time_tells_how_much_is_left(tmp_path: Path) -> None:
    settings, notebook = make_home_settings(tmp_path), Notebook(lambda: None)
    context = Context(make_claim(), settings, notebook, lambda seconds: seconds / 2)

    assert context.extend(10) == 5


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_only_time_that_makes_sense_can_be_asked_for(desk: Desk, seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        desk.context.extend(seconds)


def test_of_many_progresses_only_the_latest_is_kept(desk: Desk) -> None:
    for step in range(10):
        desk.context.progress(step / 10, f"step {step}")

    assert desk.notebook.take().progress == Progress(0.9, "step 9")
    assert not desk.notebook
    assert desk.nudges == 10


@pytest.mark.parametrize(("given", "kept"), [(-1, 0.0), (0.5, 0.5), (7, 1.0), (None, None)])
def test_a_progress_stays_between_0_and_1(
    desk: Desk, given: float | None, kept: float | None
) -> None:
    desk.context.progress(given)

    assert desk.notebook.take().progress == Progress(kept, None)


def test_a_progress_may_be_any_kind_of_number(desk: Desk) -> None:
    desk.context.progress(Fraction(1, 2))

    progress = desk.notebook.take().progress
    assert progress is not None
    assert type(progress.fraction) is float  # what the driver can write


def test_a_progress_that_is_no_number_is_refused(desk: Desk) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        desk.context.progress(float("nan"))


def test_lines_keep_their_order_and_levels(desk: Desk) -> None:
    desk.context.debug("a")
    desk.context.info("b")
    desk.context.warning("c")
    desk.context.error("d\x00")

    lines = desk.notebook.take().lines
    assert [(line.level, line.message) for line in lines] == [
        ("debug", "a"),
        ("info", "b"),
        ("warning", "c"),
        ("error", "d\N{REPLACEMENT CHARACTER}"),
    ]


def test_an_unknown_level_is_refused(desk: Desk) -> None:
    with pytest.raises(ValueError, match="loud"):
        desk.context.log("loud", "x")


def test_too_many_lines_at_once_are_counted_instead_of_kept(desk: Desk) -> None:
    for number in range(5000):
        desk.context.info(str(number))

    lines = desk.notebook.take().lines
    assert [line.message for line in lines[:2]] == ["0", "1"]
    assert (
        lines[-1].message == f"{5000 - (len(lines) - 1)} more lines were dropped: too many at once"
    )
    desk.context.info("next")
    assert [line.message for line in desk.notebook.take().lines] == ["next"]


def test_notes_that_could_not_be_written_come_before_later_ones() -> None:
    notebook = Notebook(lambda: None)
    notebook.write(LogLine(NOON, "info", "first"))
    notebook.mark(Progress(0.1, None))
    notes = notebook.take()
    notebook.write(LogLine(NOON, "info", "second"))
    notebook.mark(Progress(0.2, None))

    notebook.give_back(notes)

    again = notebook.take()
    assert [line.message for line in again.lines] == ["first", "second"]
    assert again.progress == Progress(0.2, None)


def test_waiting_ends_as_soon_as_the_job_is_to_stop(desk: Desk) -> None:
    threading.Timer(0.05, desk.context.request_stop).start()
    began = time.monotonic()

    with pytest.raises(Cancelled):
        desk.context.wait(30)

    assert time.monotonic() - began < 5
    assert desk.context.cancelled()
    with pytest.raises(Cancelled):
        desk.context.raise_if_cancelled()


def test_a_job_that_is_not_to_stop_goes_on(desk: Desk) -> None:
    desk.context.wait(0)

    desk.context.raise_if_cancelled()
    assert not desk.context.cancelled()


def test_except_exception_does_not_keep_a_cancelled_job_alive() -> None:
    assert not issubclass(Cancelled, Exception)
