"""Figures that are the same for everybody."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.experience import Bounds, Case, Method, Score, Verdict
from scheduler.states import JobClass
from scheduler.store import estimates
from tests.webapp.conftest import MakePerson
from webapp.schemas.fleet import Stats

SIMULATION, RATE = (Case(method, JobClass.NORMAL) for method in Method)


def test_figures_tell_how_estimates_came_true(person: MakePerson, store: Session) -> None:
    played = {Verdict.WITHIN: 80, Verdict.EARLY: 9, Verdict.LATE: 11}
    estimates.add(
        store, [Score(SIMULATION, played, Bounds()), Score(RATE, {Verdict.LATE: 1}, Bounds())]
    )
    store.commit()

    answer = person("ann").get("/stats")

    Stats.model_validate_json(answer.data)
    assert answer.json["estimates"] == {
        "scored": 101,
        "within": 80,
        "early": 9,
        "late": 12,
        "by_method": {
            "simulation": {"scored": 100, "within": 80, "early": 9, "late": 11},
            "rate": {"scored": 1, "within": 0, "early": 0, "late": 1},
        },
    }


def test_estimates_of_more_than_a_week_ago_are_left_out(person: MakePerson, store: Session) -> None:
    estimates.add(store, [Score(SIMULATION, {Verdict.WITHIN: 1}, Bounds())])
    store.execute(text("UPDATE estimate_scores SET day = day - 8"))
    store.commit()

    assert person("ann").get("/stats").json["estimates"]["scored"] == 0
