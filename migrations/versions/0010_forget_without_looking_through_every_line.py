"""Forget finished jobs without looking through every line and timer, or past dead letters.

Deleting a job looked for it in all of ``ready`` and ``timers``, which no index leads to from a job;
the verbs see to it that a finished job is in neither. What is kept for the usual term gets an index
without dead letters, in the place of one with them. Locks are short, and nobody waits for indexes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_USUAL = "finished_at IS NOT NULL AND (status <> 'failed' OR discarded_at IS NOT NULL)"
_REFERRING = ("ready", "timers")


def upgrade() -> None:
    for table in _REFERRING:
        op.drop_constraint(op.f(f"fk_{table}_job_id"), table, type_="foreignkey")
    _exchange("ix_jobs_finished_at", "ix_jobs_finished_at_usual", _USUAL)


def downgrade() -> None:
    for table in _REFERRING:
        op.create_foreign_key(op.f(f"fk_{table}_job_id"), table, "jobs", ["job_id"], ["id"])
    _exchange("ix_jobs_finished_at_usual", "ix_jobs_finished_at", "finished_at IS NOT NULL")


def _exchange(old: str, new: str, those: str) -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            new,
            "jobs",
            ["finished_at"],
            postgresql_where=sa.text(those),
            postgresql_concurrently=True,
        )
        op.drop_index(old, table_name="jobs", postgresql_concurrently=True)
