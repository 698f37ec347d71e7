"""The right to schedule. At most one process holds it; it ends with its connection.

The advisory lock only elects. What protects is the epoch: it is raised at takeover, and every turn
checks it first, so a leader that lost the lock without noticing changes nothing.
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from scheduler.database import is_in_the_way
from scheduler.errors import LeadershipLost
from scheduler.store import leader

LOCK_KEY = 0x_FA_12_0002

FROZEN_AFTER = timedelta(seconds=4)
"""A leader that has not renewed for this long is unseated: a stopped process keeps its lock."""

log = logging.getLogger(__name__)

_RENEW = text("""
UPDATE scheduler_lease SET renewed_at = clock_timestamp()
WHERE id = 1 AND epoch = :epoch
RETURNING renewed_at
""")

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:key), pg_backend_pid()")

_UNSEAT_FROZEN = text("""
SELECT pg_terminate_backend(pg_locks.pid)
FROM pg_locks CROSS JOIN scheduler_lease
WHERE pg_locks.locktype = 'advisory' AND pg_locks.granted
  AND pg_locks.classid = 0 AND pg_locks.objid = :key
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND scheduler_lease.renewed_at < now() - CAST(:frozen_after AS interval)
""")


class Lease:
    """One scheduler's hold, or wish, to lead."""

    def __init__(self, engine: Engine, holder: str) -> None:
        self._engine = engine
        self._holder = holder
        self._connection: Connection | None = None
        self.epoch = 0
        self.held_at: datetime | None = None

    def hold(self) -> bool:
        """Return whether this process leads, trying to take the lead if it does not.

        ``held_at`` is then the database's time.
        """
        if self._connection is None:
            self._connection = self._try_to_lead()
        self.renew()
        return self._connection is not None

    def renew(self) -> None:
        """Show that who leads is alive. Raises LeadershipLost when a later epoch has begun.

        Not while a turn's transaction is open: that holds the row.
        """
        if self._connection is not None:
            self.held_at = self._renewed_over(self._connection)

    def release(self) -> None:
        """Let another one lead at once. Safe at any time, and twice."""
        if self._connection is not None:
            self._drop(self._connection)

    def _renewed_over(self, connection: Connection) -> datetime:
        """Renew over the connection that holds the lock, and so learn whether it is there."""
        try:
            renewed_at: datetime | None = connection.execute(
                _RENEW, {"epoch": self.epoch}
            ).scalar_one_or_none()
        except SQLAlchemyError as problem:
            if not is_in_the_way(problem):
                self._drop(connection)
            raise
        if renewed_at is None:
            self._drop(connection)
            raise LeadershipLost(f"epoch {self.epoch} is over")
        return renewed_at

    def _try_to_lead(self) -> Connection | None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            won, backend_pid = connection.execute(_TRY_LOCK, {"key": LOCK_KEY}).one()
            if won:
                self.epoch = self._begin_epoch(backend_pid)
                return connection
            self._unseat_frozen(connection)
        except BaseException:  # a connection that was left behind would keep the lock
            self._drop(connection)
            raise
        connection.close()
        return None

    def _begin_epoch(self, backend_pid: int) -> int:
        with Session(self._engine) as session, session.begin():
            # An epoch that was lost with the database's machine would be given out twice.
            leader.commit_durably(session)
            epoch = leader.take_over(session, holder=self._holder, backend_pid=backend_pid)
        log.info("leading", extra={"epoch": epoch})
        return epoch

    def _unseat_frozen(self, connection: Connection) -> None:
        ended = connection.execute(
            _UNSEAT_FROZEN, {"key": LOCK_KEY, "frozen_after": FROZEN_AFTER}
        ).all()
        if ended:
            log.warning("unseated a leader that stopped renewing")

    def _drop(self, connection: Connection) -> None:
        self._connection = None
        # The lock lives as long as the server's side of the connection: end it, do not pool it.
        connection.invalidate()
        connection.close()
