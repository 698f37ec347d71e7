"""Reading what a preview of another policy plays with. Nothing is changed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.policy.preview import Person, Start, Wish, next_starts
from scheduler.policy.rules import rules_of
from scheduler.snapshot import Caps, Limits, Resources, Snapshot
from scheduler.states import JobClass
from scheduler.store import fleet, leader, picture
from scheduler.store.moves import fetch, run
from scheduler.store.policy import PolicyContent, content_of, current_policy


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is at one moment, and the policy that applies."""

    snapshot: Snapshot
    policy: PolicyContent
    offered: fleet.Capacity
    people: Mapping[int, Person]
    wishes: Mapping[int, Wish]
    names: Mapping[int, str]  # of the waiting jobs


_PEOPLE = text("""
SELECT users.id, users.username, groups.name AS group_name,
       users.weight * COALESCE(groups.weight, 1) AS weight,
       CAST(users.cap_cpu_units AS float8) AS cap_cpu_units, users.cap_memory_mb,
       users.cap_running_jobs
FROM users LEFT JOIN groups ON groups.id = users.group_id
WHERE users.id = ANY(:owners)
""")

_WISHES = text("SELECT id, job_id, job_class, rank, tags FROM jobs WHERE id = ANY(:jobs)")


def read_scene(session: Session) -> Scene:
    """Read everything in the transaction of *session*, which should see one moment only."""
    now: datetime = run(session, text("SELECT now()")).scalar_one()
    snapshot = picture.read_snapshot(session, leader.remembered(session), now=now)
    rows = fetch(session, _WISHES, jobs=[job.id for job in snapshot.candidates])
    return Scene(
        snapshot=snapshot,
        policy=content_of(current_policy(session)),
        offered=fleet.offered(session),
        people=_people(session, snapshot.accounts),
        wishes={row["id"]: _wish(row) for row in rows},
        names={row["id"]: row["job_id"] for row in rows},
    )


def starts_under(policy: PolicyContent, scene: Scene, *, count: int) -> list[Start]:
    """Return the next starts if *policy* applied from now on."""
    return next_starts(
        scene.snapshot,
        rules_of(policy.rules),
        _limits(policy, scene),
        people=scene.people,
        wishes=scene.wishes,
        count=count,
    )


def _people(session: Session, owners: Collection[int]) -> dict[int, Person]:
    return {row["id"]: _person(row) for row in fetch(session, _PEOPLE, owners=sorted(owners))}


def _person(row: Mapping[str, Any]) -> Person:
    caps = Caps(row["cap_cpu_units"], row["cap_memory_mb"], row["cap_running_jobs"])
    return Person(row["username"], row["group_name"], row["weight"], caps)


def _wish(row: Mapping[str, Any]) -> Wish:
    return Wish(JobClass(row["job_class"]), row["rank"], tuple(row["tags"]))


def _limits(policy: PolicyContent, scene: Scene) -> Limits:
    """Return the limits under *policy* with as much used of them as is now."""
    now = scene.snapshot.limits
    return replace(
        now,
        capacity=now.capacity and _capacity(policy, scene.offered, slots=now.capacity.slots),
        type_caps=policy.max_running,
        type_starts={
            name: max(0, most - _started(name, scene))
            for name, most in policy.max_per_minute.items()
        },
        paused_classes=policy.paused_classes,
        paused_types=policy.paused_types,
    )


def _capacity(policy: PolicyContent, offered: fleet.Capacity, *, slots: int) -> Resources:
    cpu_units, memory_mb = offered.cpu_units, offered.memory_mb
    if policy.cap_cpu_units is not None:
        cpu_units = min(cpu_units, policy.cap_cpu_units)
    if policy.cap_memory_mb is not None:
        memory_mb = min(memory_mb, policy.cap_memory_mb)
    return Resources(float(cpu_units), memory_mb, slots)


def _started(job_type: str, scene: Scene) -> int:
    """Return how many jobs of a type have started this minute, as far as it is counted."""
    most = scene.policy.max_per_minute.get(job_type)
    left = scene.snapshot.limits.type_starts.get(job_type)
    return 0 if most is None or left is None else most - left
