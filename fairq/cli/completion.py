"""What the shell may complete. Asked once and briefly: no answer means no suggestion."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from fairq import calls
from fairq.client import Client
from fairq.errors import FairqError

_MOST = 100
_SECONDS = 2.0


def types(incomplete: str) -> list[tuple[str, str]]:
    """Return job types and what they do."""
    return _matching(
        incomplete, lambda client: ((one.name, one.description) for one in client.types())
    )


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """Return the newest jobs and how they stand."""
    newest = calls.jobs({"limit": _MOST}, None)
    return _matching(
        incomplete,
        lambda client: (
            (one.job_id, f"{one.type}, {one.status}") for one in client.send(newest).items
        ),
    )


def schedules(incomplete: str) -> list[tuple[str, str]]:
    """Return schedules and when they run."""
    first = calls.schedules(None)
    return _matching(
        incomplete,
        lambda client: ((one.name, one.cron or "") for one in client.send(first).items),
    )


def _matching(
    incomplete: str, find: Callable[[Client], Iterable[tuple[str, str]]]
) -> list[tuple[str, str]]:
    return [pair for pair in _found(find) if pair[0].startswith(incomplete)]


def _found(find: Callable[[Client], Iterable[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    with (
        suppress(FairqError, OSError),
        Client(patience_seconds=0, timeout_seconds=_SECONDS) as client,
    ):
        yield from find(client)
