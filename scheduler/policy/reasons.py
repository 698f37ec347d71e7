"""Why a job waits, as a code and as one sentence saying what would unblock it."""

from dataclasses import dataclass
from enum import StrEnum

from scheduler.snapshot import NOTHING, Resources


class HoldCode(StrEnum):
    """Why a candidate was passed over."""

    TURN = "turn"  # others go first
    RESOURCES = "resources"  # it is next and lacks room, or the room is kept for another
    USER_CAP = "user_cap"  # its owner, or the owner's group, holds all it may
    TYPE_CAP = "type_cap"  # as many jobs of its type run as may
    NO_WORKER = "no_worker"  # nothing alive could run it
    PAUSED = "paused"  # its class or its type is paused


@dataclass(frozen=True, slots=True)
class Hold:
    """Why one candidate was passed over, with what a sentence about it needs."""

    code: HoldCode
    need: Resources = NOTHING
    available: Resources = NOTHING  # free room, room under the cap, or the whole capacity
    before: int = 0  # jobs that go first
    own_before: int = 0  # those of them with the same owner
    kept_for: int | None = None  # the job whose reservation it would delay
    what: str = ""  # the type or class that is full or paused, or the executor that is missing
    of_minute: bool = False  # the type's cap is on starts in a minute
    limit: int = 0  # how many jobs the type's cap allows
    of_group: bool = False  # the cap is the group's
    behind_first: bool = False  # the owner's first job is at the cap, and this one is behind it


def sentence(hold: Hold, *, kept_for: str = "another job") -> str:
    """Tell a person what the job waits for; *kept_for* names the job with the reservation."""
    match hold.code:
        case HoldCode.TURN:
            return _turn(hold)
        case HoldCode.RESOURCES:
            return _resources(hold, kept_for)
        case HoldCode.USER_CAP:
            return _user_cap(hold)
        case HoldCode.TYPE_CAP:
            return _type_cap(hold)
        case HoldCode.NO_WORKER:
            return _no_worker(hold)
        case HoldCode.PAUSED:
            whose = f"{hold.what} jobs" if hold.what else "the owner's jobs"
            return f"Waits until {whose} are resumed."


def _turn(hold: Hold) -> str:
    own = f", {hold.own_before} of them by the same owner" if hold.own_before else ""
    goes = "goes" if hold.before == 1 else "go"
    return f"Waits for its turn: {_count(hold.before, 'job')} {goes} first{own}."


def _resources(hold: Hold, kept_for: str) -> str:
    if hold.kept_for is not None:
        return f"Waits until {kept_for} has started: the free room is kept for it."
    need, free = _lack(hold)
    return f"Waits for {need}; {free} free now."


def _user_cap(hold: Hold) -> str:
    whose = "the group's" if hold.of_group else "the owner's"
    if hold.behind_first:
        return f"Waits behind the owner's first job, which waits under {whose} own limit."
    if hold.available.slots < hold.need.slots:
        return f"Waits until one of {whose} jobs ends: no more may run at once."
    need, free = _lack(hold)
    return f"Waits under {whose} own limit for {need}; {free} free now."


def _type_cap(hold: Hold) -> str:
    if hold.of_minute:
        return f"Waits until more {hold.what} jobs may start: enough did in the last minute."
    return f"Waits until fewer than {_count(hold.limit, hold.what + ' job')} run at once."


def _no_worker(hold: Hold) -> str:
    if hold.what:
        return "Waits until a pull worker asks for it."
    if hold.available == NOTHING:
        return "Waits for a worker: none is alive."
    need, _ = _lack(hold)
    offered = hold.available
    return (
        f"Waits for more workers: it needs {need}, and all together offer "
        f"{_count(offered.cpu_units, 'CPU unit')} and {offered.memory_mb} MB."
    )


def _lack(hold: Hold) -> tuple[str, str]:
    """Say what is needed, and how much of it there is."""
    need, free = hold.need, hold.available
    if need.cpu_units > free.cpu_units:
        return _count(need.cpu_units, "CPU unit"), _is(free.cpu_units)
    if need.memory_mb > free.memory_mb:
        return f"{need.memory_mb} MB of memory", _is(free.memory_mb)
    return "a worker process", _is(free.slots)


def _is(amount: float) -> str:
    if amount <= 0:
        return "none is"
    return "1 is" if amount == 1 else f"{amount:.12g} are"


def _count(amount: float, unit: str) -> str:
    return f"1 {unit}" if amount == 1 else f"{amount:.12g} {unit}s"
