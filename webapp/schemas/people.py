"""Accounts and groups: their weights and caps, and what they are due, receive and hold."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from scheduler.job_request import CpuUnits, MemoryMb, Name, Request, Username
from scheduler.states import JobStatus, Role, Scope
from webapp.schemas.groundwork import COUNT_LIMIT, Answer, Patch

PASSWORD_MIN = 8

PASSWORD_LIMIT = 1024
"""Longer passwords are not looked at: hashing them would be work for nothing."""

Password = Annotated[str, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_LIMIT)]
Weight = Annotated[float, Field(gt=0, le=1_000_000)]


class CapsRequest(Request):
    """Limits on what is held at a time; null lifts one."""

    cpu_units: CpuUnits | None = None
    memory_mb: MemoryMb | None = None
    running_jobs: Annotated[int, Field(ge=1, le=COUNT_LIMIT)] | None = None
    backlog: Annotated[int, Field(ge=0, le=COUNT_LIMIT)] | None = None


class UserRequest(Request):
    """A new account."""

    username: Username
    password: Password
    role: Role = Role.USER
    group: Name | None = None
    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()
    active: bool = True


class UserPatch(Patch):
    """What to change about an account; what is left out stays."""

    password: Password = ""
    role: Role = Role.USER
    group: Name | None = None
    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()
    active: bool = True


class GroupRequest(Request):
    """A new group."""

    name: Name
    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()


class GroupPatch(Patch):
    """What to change about a group; what is left out stays."""

    weight: Weight = 1.0
    caps: CapsRequest = CapsRequest()


class Caps(Answer):
    """Limits on what is held at a time; null is none."""

    cpu_units: float | None
    memory_mb: int | None
    running_jobs: int | None
    backlog: int | None


class UserAnswer(Answer):
    """An account."""

    username: str
    role: Role
    group: str | None
    weight: float
    caps: Caps
    active: bool
    paused: bool = Field(description="No more of its jobs are admitted until it is resumed.")
    created_at: AwareDatetime


class UserList(Answer):
    """One page of the accounts."""

    users: list[UserAnswer]
    next_cursor: str | None


class Me(UserAnswer):
    """The caller's own account."""

    scopes: list[Scope]
    unfinished_jobs: int


class Share(Answer):
    """What an account was due and received of the machine over a time that has passed."""

    since: AwareDatetime
    due: float = Field(
        description="Its part by weight among those who received something then or want it now."
    )
    received: float = Field(
        description="Its part of the machine, on average: the larger of CPU and memory."
    )
    machine_seconds: float = Field(description="The same, times seconds.")


class Shares(Answer):
    """Shares of the last hour and the last day, to five minutes."""

    hour: Share
    day: Share


class UsedLimit(Answer):
    """A limit, and what is used of it."""

    name: Literal["cpu_units", "memory_mb", "running_jobs", "backlog"]
    of: Literal["own", "group"]
    limit: float | None
    used: float = Field(description="A group's backlog is counted to one beyond its limit.")


class BacklogAnswer(Answer):
    """Jobs that have not finished."""

    unfinished: int
    jobs: dict[JobStatus, int]
    oldest_ready_seconds: float | None


class Usage(Answer):
    """What the caller is due, receives, may hold and holds."""

    at: AwareDatetime
    weight: float = Field(description="As the rules and the group make it now.")
    shares: Shares
    limits: list[UsedLimit] = Field(description="As the rules make them now; null is none.")
    backlog: BacklogAnswer


class GroupAnswer(Answer):
    """Users who share a weight and caps."""

    name: str
    weight: float
    caps: Caps
    members: list[str]
    created_at: AwareDatetime


class GroupList(Answer):
    """One page of the groups."""

    groups: list[GroupAnswer]
    next_cursor: str | None
