"""About where jobs stand that are too far back for the leader to place one by one."""

from collections.abc import Sequence
from datetime import datetime

from redis import Redis
from sqlalchemy import CTE, BigInteger, Row, Subquery, any_, cast, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from scheduler.events import Standing, read_curve
from scheduler.models import Group, Job, Meter, Ready, User
from scheduler.policy.curve import Curve, position_on, start_on
from scheduler.policy.meters import effective_weight
from scheduler.policy.reasons import HoldCode
from scheduler.states import JobClass

OWN_COUNTED = 1_000
"""Jobs of the own line that are counted; what is behind more of them is behind at least these."""

_Line = Row[int, str, int, float | None, float, float]


def far_back(
    session: Session, redis: Redis, jobs: Sequence[Job], *, now: datetime
) -> dict[int, Standing]:
    """Return about where ready jobs stand; nothing for those that are next or if nobody leads."""
    curve = read_curve(redis) if jobs else None
    if curve is None:
        return {}
    places = (_standing(curve, row, now) for row in _in_line(session, [job.id for job in jobs]))
    return {job_id: standing for job_id, standing in places if standing.position > 1}


def _in_line(session: Session, ids: Sequence[int]) -> Sequence[_Line]:
    """Return class, own jobs ahead, tag, meter and weight of each job, in one statement."""
    wanted = Job.id == any_(cast(list(ids), ARRAY(BigInteger)))
    ahead = _own_ahead(select(Job.owner_id).where(wanted).distinct().subquery())
    return session.execute(
        select(
            Ready.job_id,
            Ready.job_class,
            func.coalesce(ahead.c.own, OWN_COUNTED),
            Meter.tag,
            func.coalesce(Meter.meter, 0.0),
            User.weight * func.coalesce(Group.weight, 1.0),
        )
        .select_from(Job)
        .join(
            Ready,
            (Ready.owner_id == Job.owner_id) & (Ready.rank == Job.rank) & (Ready.job_id == Job.id),
        )
        .join(User, User.id == Job.owner_id)
        .outerjoin(ahead, ahead.c.job_id == Job.id)
        .outerjoin(Group, Group.id == User.group_id)
        .outerjoin(Meter, Meter.owner_id == User.id)
        .where(wanted)
    ).all()


def _own_ahead(owners: Subquery) -> CTE:
    """Return the first jobs of each line with how many of it are before them.

    Each line is read once, however many of its jobs are asked about.
    """
    place = func.row_number().over(order_by=(Ready.rank, Ready.job_id))
    line = (
        select(Ready.job_id, (place - 1).label("own"))
        .where(Ready.owner_id == owners.c.owner_id)
        .order_by(Ready.rank, Ready.job_id)
        .limit(OWN_COUNTED)
        .lateral()
    )
    ahead = select(line.c.job_id, line.c.own).select_from(owners.join(line, true()))
    # Left to itself the planner takes lines for short and reads them again for every job.
    return ahead.cte("ahead").prefix_with("MATERIALIZED")


def _standing(curve: Curve, row: _Line, now: datetime) -> tuple[int, Standing]:
    job_id, job_class, own, tag, meter, weight = row
    begins = max(meter, curve.virtual_now) if tag is None else tag
    position = position_on(curve, begins, own, effective_weight(weight))
    start = start_on(curve, position, JobClass(job_class), now) or (None, None, None)
    return job_id, Standing(position, HoldCode.TURN, _about(position - 1), *start)


def _about(before: int) -> str:
    jobs = "1 job goes" if before == 1 else f"{before} jobs go"
    return f"Waits for its turn: about {jobs} first."
