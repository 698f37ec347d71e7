"""How many unfinished jobs an owner may have, and has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from scheduler.policy.rules import Backlog, rules_of
from scheduler.snapshot import Caps
from scheduler.states import UNFINISHED
from scheduler.store.moves import run


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of an owner's backlog, how far it is used, and how to speak of it."""

    cap: int
    waiting: int
    name: str
    of_group: bool = False


# Rules are read only where one of them limits a backlog.
_CAPS = text("""
SELECT users.username, users.group_id, users.cap_backlog AS own, groups.name AS group_name,
       groups.cap_backlog AS shared, now() AS now,
       CASE WHEN jsonb_path_exists(rules, '$[*].effect.caps.backlog') THEN rules END AS rules
FROM (SELECT rules FROM policy_versions ORDER BY version DESC LIMIT 1) AS policy
CROSS JOIN users LEFT JOIN groups ON groups.id = users.group_id
WHERE users.id = :owner
""")

# Counted no further than it matters.
_OWN = text("""
SELECT count(*) FROM (
    SELECT FROM jobs WHERE owner_id = :owner AND status = ANY(:unfinished) LIMIT :cap + 1
) AS unfinished
""")

_OF_GROUP = text("""
SELECT count(*) FROM (
    SELECT FROM users AS members JOIN jobs ON jobs.owner_id = members.id
    WHERE members.group_id = :group AND jobs.status = ANY(:unfinished) LIMIT :cap + 1
) AS unfinished
""")


def backlog_limits(session: Session, owner_id: int) -> Iterator[Limit]:
    """Yield the limit of the owner itself, by account or rule, and that of its group."""
    caps = run(session, _CAPS, owner=owner_id).one()
    own = _own(caps)
    if own is not None:
        waiting = _count(session, _OWN, owner=owner_id, cap=own[0])
        yield Limit(own[0], waiting, own[1])
    if caps.shared is not None:
        waiting = _count(session, _OF_GROUP, group=caps.group_id, cap=caps.shared)
        yield Limit(
            caps.shared, waiting, f"your group's backlog limit of {caps.shared}", of_group=True
        )


def _own(caps: Row[Any]) -> tuple[int, str] | None:
    """Return the owner's limit and its name, if there is one."""
    ruled = None if caps.rules is None else _ruled(caps.rules, caps)
    if ruled is not None and (caps.own is None or ruled.limit < caps.own):
        return ruled.limit, f"the backlog limit of {ruled.limit} by the rule {ruled.rule!r}"
    return None if caps.own is None else (caps.own, f"your backlog limit of {caps.own}")


def _ruled(rules: Sequence[Mapping[str, Any]], caps: Row[Any]) -> Backlog | None:
    terms = rules_of(rules).account(caps.username, caps.group_name, 1.0, Caps(), caps.now)
    return terms.backlog


def _count(session: Session, statement: Any, **values: Any) -> int:
    count: int = run(session, statement, unfinished=sorted(UNFINISHED), **values).scalar_one()
    return count
