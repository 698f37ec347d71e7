"""Two transactions that meet on the same rows, with a known winner."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.services import eventually

T = TypeVar("T")
U = TypeVar("U")

_WAITERS = text("""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
""")


def one_after_the_other(
    engine: Engine, first: Callable[[Session], T], second: Callable[[Session], U]
) -> tuple[T, U]:
    """Return what both did: *second* ran while *first* was done and not yet committed.

    *first* commits once *second* waits for it, or is done without waiting.
    """
    with Session(engine) as session, ThreadPoolExecutor(1) as pool:
        did_first = first(session)
        later = pool.submit(committed, engine, second)
        eventually(lambda: later.done() or somebody_waits(engine))
        session.commit()
        return did_first, later.result(timeout=10)


def all_at_once(engine: Engine, acts: Sequence[Callable[[Session], T]]) -> list[T]:
    """Return what each did, all having begun at the same moment on connections of their own."""
    barrier = Barrier(len(acts))

    def at_the_barrier(act: Callable[[Session], T]) -> T:
        with Session(engine) as session, session.begin():
            session.connection()
            barrier.wait(timeout=10)
            return act(session)

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(at_the_barrier, acts))


def committed(engine: Engine, act: Callable[[Session], T]) -> T:
    """Return what *act* did in a transaction of its own."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return act(session)


def somebody_waits(engine: Engine) -> bool:
    """Tell whether a transaction waits for a lock."""
    with engine.connect() as connection:
        return bool(connection.execute(_WAITERS).scalar_one())
