"""How long it took until a fault was over, read from the history and from nothing else. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from scheduler.states import Outcome
from tests.chaos.record import Attempt, Event, Hit, Record, Struck
from tests.chaos.schedule import NATURES, Kind


@dataclass(frozen=True, slots=True)
class Recovery:
    """How one strike was got over: in so many seconds, one figure for each thing it hit.

    *is_alone*: no outage of something else lengthened it.
    """

    struck: Struck
    seconds: Sequence[float]
    is_alone: bool


def recoveries(record: Record) -> list[Recovery]:
    """Return what became of every strike that hit something."""
    hits = [struck for struck in record.struck if struck.hit is not None]
    seconds = {id(struck): _seconds(struck, record) for struck in hits}
    spans = [(struck, *_span(struck, seconds[id(struck)])) for struck in hits]
    return [
        Recovery(struck, seconds[id(struck)], is_alone=not _disturbed(struck, begin, end, spans))
        for struck, begin, end in spans
    ]


Span = tuple[Struck, datetime, datetime]


def _span(struck: Struck, seconds: Sequence[float]) -> tuple[datetime, datetime]:
    """Return from when to when a strike made itself felt."""
    since = _since(struck)
    return struck.began, max([struck.lifted, *(since + timedelta(seconds=one) for one in seconds)])


def _disturbed(struck: Struck, begin: datetime, end: datetime, spans: Iterable[Span]) -> bool:
    return any(
        NATURES[other.strike.kind].is_outage and other_begin < end and begin < other_end
        for other, other_begin, other_end in spans
        if other is not struck
    )


def _since(struck: Struck) -> datetime:
    """Return from when on it counts: for what was taken away, from when it was given back."""
    return struck.began if struck.strike.kind in _FROM_THE_BEGINNING else struck.lifted


def _seconds(struck: Struck, record: Record) -> Sequence[float]:
    measure = _MEASURES.get(struck.strike.kind, _every_worker_works)
    since = _since(struck)
    return [(at - since).total_seconds() for at in measure(record, struck)]


def _next_attempts(record: Record, lost: Iterable[Attempt]) -> Iterator[datetime]:
    """Tell when each of these attempts was followed by the next one, if it was really lost."""
    for job, attempt in lost:
        if record.outcomes.get((job, attempt)) is Outcome.LOST:
            following = (job, attempt + 1)
            yield from (
                event.at
                for event in record.by_job[job]
                if event.key == following and _begins(event)
            )


def _runs_elsewhere(record: Record, struck: Struck) -> Iterator[datetime]:
    yield from _next_attempts(record, _hit(struck).attempts)


def _all_run_elsewhere(record: Record, struck: Struck) -> Iterator[datetime]:
    """Tell when each attempt that the worker held was followed by the next one."""
    held = (
        last.key
        for last in _last_before(record, struck.began)
        if _begins(last) and _worker_of(last) == _hit(struck).process
    )
    yield from _next_attempts(record, held)


def _queue_moves(record: Record, struck: Struck) -> Iterator[datetime]:
    """Tell when each job whose message waited was taken, and when every worker works."""
    waited = {last.key for last in _last_before(record, struck.began) if last.verb == "admit"}
    taken: dict[Attempt, datetime] = {}
    for event in record.events:
        if event.key in waited and event.at >= struck.began:
            taken.setdefault(event.key, event.at)
    yield from taken.values()
    yield from _every_worker_works(record, struck)


def _another_leads(record: Record, struck: Struck) -> Iterator[datetime]:
    epoch = _hit(struck).epoch or 0
    yield from _first(event.at for event in record.events if (event.epoch or 0) > epoch)


def _submitted_again(record: Record, struck: Struck) -> Iterator[datetime]:
    yield from _first(
        event.at for event in record.events if event.verb == "submit" and event.at >= struck.lifted
    )


def _every_worker_works(record: Record, struck: Struck) -> Iterator[datetime]:
    """Tell when the last of the workers that were up has begun what was admitted since.

    So it takes a leader that decides, a broker that carries and workers that listen.
    """
    since = struck.lifted
    admitted = {one.key for one in record.events if one.verb == "admit" and one.at >= since}
    began: dict[str, datetime] = {}
    for event in record.events:
        if _begins(event) and event.key in admitted:
            began.setdefault(_worker_of(event), event.at)
    yield from _last(at for name, at in began.items() if not _was_down(record, name, since, at))


def _was_down(record: Record, worker: str, begin: datetime, end: datetime) -> bool:
    return any(
        struck.strike.kind in {Kind.WORKER_KILLED, Kind.WORKER_FROZEN}
        and _hit(struck).process == worker
        and struck.began < end
        and begin < struck.lifted
        for struck in record.struck
    )


def _last_before(record: Record, instant: datetime) -> Iterator[Event]:
    """Yield the last thing that had happened to each job by then."""
    for events in record.by_job.values():
        before = [event for event in events if event.at <= instant]
        yield from before[-1:]


def _begins(event: Event) -> bool:
    return event.verb == "start"


def _worker_of(event: Event) -> str:
    return (event.worker or "").partition("@")[0]


def _hit(struck: Struck) -> Hit:
    return struck.hit or Hit()


def _first(instants: Iterable[datetime]) -> list[datetime]:
    return sorted(instants)[:1]


def _last(instants: Iterable[datetime]) -> list[datetime]:
    return sorted(instants)[-1:]


Measure = Callable[[Record, Struck], Iterator[datetime]]

_MEASURES: Mapping[Kind, Measure] = MappingProxyType(
    {
        Kind.CHILD_KILLED: _runs_elsewhere,
        Kind.WORKER_KILLED: _all_run_elsewhere,
        Kind.WORKER_FROZEN: _all_run_elsewhere,
        Kind.LEADER_KILLED: _another_leads,
        Kind.LEADER_FROZEN: _another_leads,
        Kind.WEB_KILLED: _submitted_again,
        Kind.REDIS_EMPTIED: _queue_moves,
    }
)
"""When it is over; where nothing is said, when every worker works again."""

_FROM_THE_BEGINNING = frozenset(_MEASURES) - {Kind.WEB_KILLED}
