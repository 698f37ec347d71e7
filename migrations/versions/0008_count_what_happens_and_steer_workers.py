"""Count what happens, and let operators steer workers.

Counted are admissions, ended attempts, and what everybody has received of the machine.

The leader counts what it takes in, so nobody waits at a counter; the feed tells it how an attempt
ended.

What is wanted of a worker is kept beside what it says of itself: the scheduler heeds it at once,
and the worker follows when it looks.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_BUSY_TABLE = {
    "fillfactor": "70",
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
}


def upgrade() -> None:
    op.add_column("feed", sa.Column("outcome", sa.Text(), nullable=True))
    op.create_table(
        "counts",
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "what", name=op.f("pk_counts")),
        postgresql_with=_BUSY_TABLE,
    )
    op.create_table(
        "received",
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("machine_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("since", "owner_id", name=op.f("pk_received")),
        postgresql_with=_BUSY_TABLE,
    )
    op.add_column("workers", sa.Column("drain_requested_at", sa.DateTime(timezone=True)))
    op.add_column("workers", sa.Column("processes_limit", sa.BigInteger(), nullable=True))
    op.execute("UPDATE workers SET processes_limit = processes_max")
    op.alter_column("workers", "processes_limit", nullable=False)
    op.create_check_constraint(
        op.f("ck_workers_limit_is_within_bounds"),
        "workers",
        "processes_limit BETWEEN processes_min AND processes_max",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_workers_limit_is_within_bounds"), "workers")
    op.drop_column("workers", "processes_limit")
    op.drop_column("workers", "drain_requested_at")
    op.drop_table("received")
    op.drop_table("counts")
    op.drop_column("feed", "outcome")
