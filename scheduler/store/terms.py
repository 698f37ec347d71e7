"""Telling the leader that what an account or a group may do has changed."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from scheduler.states import FeedKind
from scheduler.store.moves import run

# Of nobody's job: accounts are read anew, all of them.
_NOTE = text(f"INSERT INTO feed (kind, job_id, owner_id) VALUES ('{FeedKind.TERMS}', 0, 0)")


def note_terms(session: Session) -> None:
    """Make the leader read accounts and groups anew; it keeps them in memory."""
    run(session, _NOTE)
