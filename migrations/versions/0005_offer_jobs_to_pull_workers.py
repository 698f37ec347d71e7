"""Offer jobs to workers that ask for them over HTTP.

A type names everybody who may run its jobs. Lines and reservations know who is to run a job, since
only what Celery runs takes room on the machine.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_BUSY_TABLE = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "1000",
    "autovacuum_vacuum_cost_delay": "0",
}


def upgrade() -> None:
    op.add_column("job_types", sa.Column("executors", postgresql.ARRAY(sa.Text()), nullable=True))
    op.execute("UPDATE job_types SET executors = ARRAY[executor]")
    op.alter_column("job_types", "executors", nullable=False)
    op.drop_column("job_types", "executor")
    op.create_check_constraint(
        op.f("ck_job_types_executors_are_known"),
        "job_types",
        "cardinality(executors) > 0 AND executors <@ ARRAY['celery', 'pull']",
    )
    for table in ("ready", "active"):
        op.add_column(
            table, sa.Column("executor", sa.Text(), server_default="celery", nullable=False)
        )
        op.alter_column(table, "executor", server_default=None)
    op.execute(
        "UPDATE ready SET executor = 'pull'"
        " FROM jobs WHERE jobs.id = ready.job_id AND jobs.executor = 'pull'"
    )
    op.create_index(
        "ix_ready_pull",
        "ready",
        ["job_type", "owner_id"],
        postgresql_where=sa.text("executor = 'pull'"),
    )
    op.alter_column("attempts", "pid", nullable=True)
    op.add_column("attempts", sa.Column("lease", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("lease_seconds", sa.Float(), nullable=True))
    op.create_table(
        "asks",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        sa.Column("types", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(job_id IS NULL) = (attempt IS NULL)", name=op.f("ck_asks_offers_are_whole")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asks")),
        prefixes=["UNLOGGED"],
        postgresql_with=_BUSY_TABLE,
    )


def downgrade() -> None:
    op.drop_table("asks")
    op.drop_column("attempts", "lease_seconds")
    op.drop_column("attempts", "lease")
    op.execute("UPDATE attempts SET pid = 0 WHERE pid IS NULL")
    op.alter_column("attempts", "pid", nullable=False)
    op.drop_index("ix_ready_pull", table_name="ready")
    op.drop_column("active", "executor")
    op.drop_column("ready", "executor")
    op.add_column("job_types", sa.Column("executor", sa.Text(), nullable=True))
    op.execute("UPDATE job_types SET executor = executors[1]")
    op.alter_column("job_types", "executor", nullable=False)
    op.drop_constraint(op.f("ck_job_types_executors_are_known"), "job_types")
    op.drop_column("job_types", "executors")
