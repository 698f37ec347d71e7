"""Forget finished jobs without looking through every line and timer, or past dead letters.

Deleting a job looked for it in all of ``ready`` and ``timers``, which no index leads to from a job;
the verbs see to it that a finished job is in neither. What is kept for the usual term gets an index
without dead letters, in the place of one with them. Locks are short, and nobody waits for indexes.
"""

import sqlalchemy as sa
from alembic import op

from migrations.concurrently import (
    beside_the_work,
    drop_index,
    make_index,
    replace_constraint,
    validate,
)

revision = "0010"
down_revision = "0009"

_USUAL = "finished_at IS NOT NULL AND (status <> 'failed' OR discarded_at IS NOT NULL)"
_OLD, _NEW = "ix_jobs_finished_at", "ix_jobs_finished_at_usual"
_REFERRING = ("ready", "timers")


def upgrade() -> None:
    for table in _REFERRING:
        op.drop_constraint(f"fk_{table}_job_id", table, if_exists=True)
    with beside_the_work():
        make_index(_NEW, "jobs", ["finished_at"], postgresql_where=sa.text(_USUAL))
        drop_index(_OLD, "jobs")


def downgrade() -> None:
    for table in _REFERRING:
        replace_constraint(f"fk_{table}_job_id", table, "FOREIGN KEY (job_id) REFERENCES jobs (id)")
    with beside_the_work():
        for table in _REFERRING:
            validate(f"fk_{table}_job_id", table)
        finished = sa.text("finished_at IS NOT NULL")
        make_index(_OLD, "jobs", ["finished_at"], postgresql_where=finished)
        drop_index(_NEW, "jobs")
