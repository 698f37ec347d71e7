"""Forgetting finished jobs beside the turns, so that no turn waits for it.

Every scheduler does it, whether it leads or not: what one of them has locked the others skip.
"""

import logging
import threading
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.store import retention

FORGET_EVERY = timedelta(seconds=60)
"""How often finished jobs are looked for that have been kept long enough."""

FORGET_BATCH = 100
"""Finished jobs deleted in one transaction; while there are more, the next follows at once."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keep:
    """How long finished jobs are kept; dead letters have a term of their own."""

    finished: timedelta
    failed: timedelta


class Forgetter:
    """Deletes what was kept long enough."""

    def __init__(self, engine: Engine, keep: Keep) -> None:
        self._engine = engine
        self._keep = keep
        self._stopping = threading.Event()

    def run(self) -> None:
        """Forget until stopped. Survives a database that is away."""
        while not self._stopping.is_set():
            try:
                has_more = self.forget() == FORGET_BATCH
            except SQLAlchemyError as problem:
                said = str(problem).partition("\n")[0]
                log.warning("forgetting waits for the database", extra={"problem": said})
                has_more = False
            if not has_more:
                self._stopping.wait(FORGET_EVERY.total_seconds())

    def stop(self) -> None:
        """End the loop after the batch under way. Safe before ``run``, and twice."""
        self._stopping.set()

    def forget(self) -> int:
        """Delete some of what was kept long enough; return how many jobs."""
        with Session(self._engine) as session, session.begin():
            now = session.scalars(select(func.now())).one()
            return retention.forget_finished(
                session,
                finished_before=now - self._keep.finished,
                failed_before=now - self._keep.failed,
                limit=FORGET_BATCH,
            )
