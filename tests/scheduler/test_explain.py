"""What is told about a job, whatever its status, by somebody who may only look."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler import explain
from scheduler.__main__ import main
from scheduler.models import Job, PolicyVersion, User
from scheduler.policy.durations import Durations, Lasted
from scheduler.policy.plan import plan
from scheduler.policy.reasons import sentence
from scheduler.settings import Settings
from scheduler.states import JobClass, JobStatus
from scheduler.store import durations, lookup
from scheduler.store.preview import read_scene
from tests.factories import (
    NOON,
    WORKER,
    make_dependency,
    make_group,
    make_job,
    make_user,
    make_worker,
)

S = JobStatus


@pytest.fixture
def ann(session: Session) -> User:
    make_worker(session)
    return make_user(session, "ann")


def told(session: Session, job: Job) -> dict[str, Any]:
    owner = session.get_one(User, job.owner_id).username
    answer = explain.about(session, job, owner)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def lines(session: Session, job: Job) -> list[str]:
    found: list[str] = told(session, job)["lines"]
    return found


def wide(session: Session, owner: User, **columns: Any) -> Job:
    job = make_job(session, owner, cpu_units=6, **columns)
    session.flush()
    return job


# In line


def test_a_job_that_goes_now_is_told_so(session: Session, ann: User) -> None:
    job = make_job(session, ann)

    answer = told(session, job)

    assert answer["lines"][0] == "Goes now (turn)."
    assert (answer["code"], answer["admitted_by"], answer["position"]) == (None, "turn", 0)


def test_what_is_told_is_what_the_plan_says(session: Session, ann: User) -> None:
    bob = make_user(session, "bob")
    jobs = [wide(session, (ann, bob)[n % 2], rank=n, job_id=f"wide{n}") for n in range(6)]

    answers = {job.id: told(session, job) for job in jobs}

    made = plan(read_scene(session).snapshot)
    waiting = [job_id for job_id in made.order if job_id in made.holds]
    assert len(waiting) == 5
    for position, job_id in enumerate(waiting, start=1):
        assert answers[job_id]["position"] == position
        assert answers[job_id]["code"] == made.holds[job_id].code
        assert answers[job_id]["lines"][0] == sentence(made.holds[job_id])


def test_the_first_that_lacks_room_is_told_what_is_missing_and_what_is_kept(
    session: Session, ann: User
) -> None:
    make_job(session, ann, S.RUNNING, cpu_units=4)
    job = wide(session, ann)

    answer = told(session, job)

    assert answer["code"] == "resources"
    assert answer["missing"] == {"cpu_units": 2.0, "memory_mb": 0, "slots": 0}
    assert answer["reservation"]["job_id"] == job.job_id
    assert answer["estimated_start"]["method"] == "simulation"
    assert answer["estimated_start"]["earliest"] < answer["estimated_start"]["latest"]
    assert "Missing: 2 CPU units." in answer["lines"]


def test_rules_that_apply_to_the_owner_and_to_the_job_are_named(
    session: Session, ann: User
) -> None:
    ann.group_id = make_group(session, "physics").id
    rules = [
        {"name": "night", "match": {"group": "physics"}, "effect": {"weight": {"times": 2}}},
        {"name": "others", "match": {"user": "bob"}, "effect": {"weight": {"times": 2}}},
        {"name": "big", "match": {"tag": "big"}, "effect": {"weight": {"times": 0.5}}},
    ]
    session.execute(select(PolicyVersion)).scalar_one().rules = rules
    tagged, plain = (make_job(session, ann, tags=tags) for tags in (["big"], []))
    session.execute(text("UPDATE ready SET tags = '{big}' WHERE job_id = :job"), {"job": tagged.id})

    assert told(session, tagged)["rules"] == ["night", "big"]
    assert told(session, plain)["rules"] == ["night"]
    assert "Rules that apply: night." in lines(session, plain)


def test_an_urgent_job_is_told_what_is_left_of_the_allowance(session: Session, ann: User) -> None:
    job = wide(session, ann, job_class=JobClass.CRITICAL)
    session.execute(
        text("UPDATE ready SET job_class = :name WHERE job_id = :job"),
        {"name": JobClass.CRITICAL, "job": job.id},
    )

    answer = told(session, job)

    assert answer["express"]["is_open"]
    assert answer["express"]["left_machine_seconds"] > 0


def test_what_is_expected_says_where_it_comes_from(session: Session, ann: User) -> None:
    guessed = make_job(session, ann)
    said = make_job(session, ann, estimated_seconds=30.0)
    _, changed = Durations().learn([Lasted("report", ann.id, 8)] * 6)
    durations.write(session, changed)
    learned = make_job(session, ann, type="report", estimated_seconds=30.0)

    sources = [told(session, job)["expected"]["source"] for job in (guessed, said, learned)]

    assert sources == ["default", "estimate", "own"]
    assert told(session, learned)["expected"]["seconds"] == pytest.approx(8)


def test_a_job_behind_those_a_pass_looks_at_is_placed_about(session: Session, ann: User) -> None:
    for number in range(150):
        make_job(session, ann, rank=number)
    last = make_job(session, ann, rank=1000)

    answer = told(session, last)

    assert answer["own_jobs_ahead"] == 150
    assert not answer["position_is_exact"]
    assert answer["position"] == 151
    assert answer["lines"][0].startswith("Waits for its turn: about ")


# Not in line


def test_a_blocked_job_names_whom_it_waits_for(session: Session, ann: User) -> None:
    parents = [make_job(session, ann, S.RUNNING, job_id=f"parent{n}") for n in range(12)]
    done = make_job(session, ann, S.COMPLETED, job_id="done")
    child = make_job(session, ann, S.BLOCKED, open_dependencies=12)
    for parent in parents:
        make_dependency(session, child, parent)
    make_dependency(session, child, done).met = True
    session.flush()

    first, second = lines(session, child)

    assert first.startswith("Waits for parent0 (running), parent1 (running), ")
    assert first.endswith("parent9 (running) and 2 more.")
    assert second.startswith("Expected to take 1 s")


def test_a_blocked_job_whose_parents_are_done_is_about_to_get_in_line(
    session: Session, ann: User
) -> None:
    assert lines(session, make_job(session, ann, S.BLOCKED))[0] == (
        "The jobs it waited for are done; it is about to get in line."
    )


@pytest.mark.parametrize(
    ("status", "columns", "said"),
    [
        (S.SCHEDULED, {}, "Its time has not come: it is due at 2026-01-15 12:01:00 UTC."),
        (
            S.RETRYING,
            {"error_type": "ValueError", "error_message": "no"},
            (
                "Its next attempt is due at 2026-01-15 12:01:00 UTC;"
                " the last error was ValueError: no."
            ),
        ),
        (
            S.QUEUED,
            {},
            "Was admitted at 2026-01-15 12:00:00 UTC, and waits for a worker process.",
        ),
        (S.RUNNING, {}, f"Runs since 2026-01-15 12:00:00 UTC on {WORKER}, as attempt 1."),
        (S.COMPLETED, {}, "Ended well in attempt 1, at 2026-01-15 12:01:00 UTC."),
        (
            S.FAILED,
            {},
            "Failed for good in attempt 1 (ValueError: no), at 2026-01-15 12:01:00 UTC.",
        ),
        (
            S.CANCELLED,
            {"reason": "dependency_failed", "reason_job_id": "first"},
            "Was cancelled (dependency failed because of first), at 2026-01-15 12:01:00 UTC.",
        ),
    ],
)
def test_every_other_status_says_what_is_true_for_it(
    session: Session, ann: User, status: JobStatus, columns: dict[str, Any], said: str
) -> None:
    job = make_job(session, ann, status, **columns)

    assert lines(session, job)[0] == said


# The command


class Asked:
    """The command with its arguments, and what it says."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.said: list[str] = []

    def __call__(self, *arguments: str) -> int:
        self.said.clear()
        parser = ArgumentParser()
        explain.add_to(parser.add_subparsers())
        given = parser.parse_args(["explain", *arguments])
        return explain.run(given, self.said.append, self._session)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session


@pytest.fixture
def asked(committed_engine: Engine) -> Asked:
    with Session(committed_engine) as session, session.begin():
        make_worker(session)
        ann, bob = (make_user(session, name) for name in ("ann", "bob"))
        make_job(session, ann, job_id="mine")
        make_job(session, ann, job_id="shared")
        make_job(session, bob, S.SCHEDULED, job_id="shared", due_at=NOON + timedelta(days=1))
    return Asked(committed_engine)


def test_the_command_tells_in_words_or_as_json(asked: Asked) -> None:
    assert asked("mine") == 0
    assert asked.said[0].startswith("Goes now (turn).\nThe owner is over its share by")

    assert asked("mine", "--json") == 0
    assert json.loads(asked.said[0])["owner"] == "ann"


def test_the_command_asks_whose_job_is_meant(asked: Asked) -> None:
    assert asked("shared") == 1
    assert asked.said == ["several owners have a job 'shared', name one with --owner: ann, bob"]

    assert asked("shared", "--owner", "BOB") == 0
    assert asked.said[0].startswith("Its time has not come")


def test_the_command_knows_what_it_does_not_know(asked: Asked) -> None:
    assert asked("other") == 1
    assert asked.said == ["there is no job 'other'"]
    assert asked("mine", "--owner", "bob") == 1


def test_whoever_explains_can_change_nothing(asked: Asked) -> None:
    with Session(asked.engine) as session, session.begin():
        lookup.see_one_moment(session)
        with pytest.raises(DBAPIError, match="read-only"):
            session.execute(text("UPDATE jobs SET description = 'x'"))
        session.rollback()


def test_python_m_scheduler_explains(
    asked: Asked,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("FAIRQ_SECRET_KEY", settings.secret_key)

    assert asked("mine") == main(["explain", "mine"]) == 0
    assert capsys.readouterr().out.startswith("Goes now (turn).\n")

    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert main(["explain", "mine"]) == 1
    assert capsys.readouterr().out == "the database does not answer\n"
