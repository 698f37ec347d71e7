"""How estimates came true is added up by day, and what was learned from it survives its leader."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.experience import Bounds, Case, Experience, Method, Score, Verdict
from scheduler.states import JobClass
from scheduler.store import estimates
from scheduler.store.estimates import Tally

NORMAL = Case(Method.SIMULATION, JobClass.NORMAL)
LOW = Case(Method.SIMULATION, JobClass.LOW)
RATE = Case(Method.RATE, JobClass.LOW)
WEEK = timedelta(days=7)


def test_scores_are_added_up_over_cases_and_days(session: Session) -> None:
    estimates.add(session, [Score(NORMAL, {Verdict.WITHIN: 3, Verdict.LATE: 1}, Bounds())])
    estimates.add(
        session,
        [Score(NORMAL, {Verdict.WITHIN: 4}, Bounds()), Score(LOW, {Verdict.EARLY: 2}, Bounds())],
    )
    session.execute(text("UPDATE estimate_scores SET day = day - 3"))
    estimates.add(session, [Score(NORMAL, {Verdict.WITHIN: 1}, Bounds())])

    found = estimates.tallies(session, span=WEEK)

    assert found == {Method.SIMULATION: Tally(within=8, early=2, late=1), Method.RATE: Tally()}
    assert found[Method.SIMULATION].scored == 11


def test_scores_of_long_ago_do_not_count(session: Session) -> None:
    estimates.add(session, [Score(NORMAL, {Verdict.WITHIN: 3}, Bounds())])
    session.execute(text("UPDATE estimate_scores SET day = day - 7"))

    assert estimates.tallies(session, span=WEEK)[Method.SIMULATION] == Tally()


def test_the_newest_bounds_of_every_case_are_read_back(session: Session) -> None:
    estimates.add(session, [Score(case, {}, Bounds(-1, 1)) for case in (NORMAL, LOW, RATE)])
    session.execute(text("UPDATE estimate_scores SET day = day - 1"))
    estimates.add(session, [Score(LOW, {Verdict.LATE: 1}, Bounds(-2, 3))])

    assert estimates.read(session) == Experience(
        {NORMAL: Bounds(-1, 1), LOW: Bounds(-2, 3), RATE: Bounds(-1, 1)}
    )


def test_without_scores_there_is_no_experience(session: Session) -> None:
    estimates.add(session, [])

    assert estimates.read(session) == Experience()
