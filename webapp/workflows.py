"""Jobs that wait for each other, directly or through others: the whole workflow around one.

All of them have one owner, since a job can wait for jobs of its own owner only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Select, literal, select, true
from sqlalchemy.orm import Session

from scheduler.models import Dependency, Job
from scheduler.states import Condition
from scheduler.store.finding import among

JOBS_SHOWN = 5_000
"""Jobs of a workflow that are told: those fewest steps away from the one asked for."""

EDGES_SHOWN = 20_000
"""Likewise of what they wait for; ten jobs that each wait for a thousand have as many."""


@dataclass(frozen=True, slots=True)
class Edge:
    """*child* waits for *parent*; both are internal ids."""

    parent: int
    child: int
    when: Condition
    met: bool


@dataclass(frozen=True, slots=True)
class Workflow:
    """Connected jobs in the order of their submission; *is_whole* unless some were left out."""

    jobs: Sequence[Job]
    edges: Sequence[Edge]
    is_whole: bool


def workflow_of(session: Session, job: Job) -> Workflow:
    """Return the jobs connected with *job*, and how."""
    ids = session.scalars(connected_with(job.id).limit(JOBS_SHOWN + 1)).all()
    shown = ids[:JOBS_SHOWN]
    edges = [
        Edge(parent, child, Condition(when), met)
        for parent, child, when, met in session.execute(edges_among(shown).limit(EDGES_SHOWN + 1))
    ]
    jobs = session.scalars(select(Job).where(among(Job.id, shown)).order_by(Job.id)).all()
    is_whole = len(ids) <= JOBS_SHOWN and len(edges) <= EDGES_SHOWN
    return Workflow(jobs, edges[:EDGES_SHOWN], is_whole)


def connected_with(job: int) -> Select[int]:
    """Return the select of every job that *job* is connected with, itself first, nearest first.

    Reads no more than is fetched of it.
    """
    connected = select(literal(job, BigInteger()).label("id")).cte("connected", recursive=True)
    parents = select(Dependency.parent_id.label("id")).where(Dependency.child_id == connected.c.id)
    children = select(Dependency.child_id).where(Dependency.parent_id == connected.c.id)
    beside = parents.union_all(children).lateral("beside")
    # UNION, not UNION ALL: a job that is met again is not gone through again.
    connected = connected.union(select(beside.c.id).select_from(connected).join(beside, true()))
    return select(connected.c.id)


def edges_among(jobs: Sequence[int]) -> Select[int, int, str, bool]:
    """Return the select of who waits for whom among *jobs*."""
    return (
        select(Dependency.parent_id, Dependency.child_id, Dependency.condition, Dependency.met)
        .where(among(Dependency.child_id, jobs), among(Dependency.parent_id, jobs))
        .order_by(Dependency.child_id, Dependency.parent_id)
    )
