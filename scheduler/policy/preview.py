"""What would start next under other rules and limits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from scheduler.policy.experience import Method
from scheduler.policy.forecast import forecast
from scheduler.policy.plan import plan
from scheduler.policy.rules import JobTerms, Rules, under
from scheduler.snapshot import Candidate, Caps, Limits, Snapshot
from scheduler.states import JobClass


@dataclass(frozen=True, slots=True)
class Person:
    """An owner as the account says, before any rule. The weight includes that of the group."""

    username: str
    group: str | None
    weight: float
    caps: Caps


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for a job, before any rule, and its place in the line by that."""

    job_class: JobClass
    rank: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """A job that is expected to start, how long from now, and the rules that apply to it."""

    job: Candidate
    wait: timedelta
    rules: tuple[str, ...]


def next_starts(
    snapshot: Snapshot,
    rules: Rules,
    limits: Limits,
    *,
    people: Mapping[int, Person],
    wishes: Mapping[int, Wish],
    count: int,
) -> list[Start]:
    """Return the next *count* starts of the candidates if *rules* and *limits* held from now on.

    Nobody new arrives. *people* are all owners of the snapshot, *wishes* those of its candidates.
    """
    accounts = {
        owner: rules.account(one.username, one.group, one.weight, one.caps, snapshot.now)
        for owner, one in people.items()
    }
    jobs = {
        job.id: rules.job(accounts[job.owner_id], job.job_type, wishes[job.id].tags)
        for job in snapshot.candidates
    }
    changed = replace(
        snapshot,
        limits=limits,
        accounts={
            owner: replace(account, weight=accounts[owner].weight, caps=accounts[owner].caps)
            for owner, account in snapshot.accounts.items()
        },
        candidates=tuple(
            _counting_as(job, jobs[job.id], wishes[job.id]) for job in snapshot.candidates
        ),
    )
    return [Start(job, wait, jobs[job.id].applied) for job, wait in _first(changed)[:count]]


def _counting_as(job: Candidate, terms: JobTerms, wish: Wish) -> Candidate:
    plain = replace(job, job_class=wish.job_class, rank=wish.rank, rate=1.0, allowance=1.0)
    return under(terms, plain)


def _first(snapshot: Snapshot) -> list[tuple[Candidate, timedelta]]:
    """Return the jobs that a forecast sees start, in the order in which they do."""
    decided = plan(snapshot)
    jobs = {job.id: job for job in snapshot.candidates}
    starts = forecast(snapshot, decided.order, decided=decided)
    seen = [
        (jobs[job_id], starts[job_id].wait)
        for job_id in decided.order
        if job_id in starts and starts[job_id].method is Method.SIMULATION
    ]
    return sorted(seen, key=lambda start: start[1])
