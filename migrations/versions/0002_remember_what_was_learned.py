"""Keep what the leader learns of durations and estimates, and let the feed tell it of changes.

Lines hold what rules and expectations ask of a job, so that reading them needs no other table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_FEED_KIND = "ck_feed_kind_is_known"


def upgrade() -> None:
    op.create_table(
        "durations",
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("mean", sa.Float(), nullable=False),
        sa.Column("variance", sa.Float(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "variance >= 0 AND count > 0", name=op.f("ck_durations_something_was_learned")
        ),
        sa.PrimaryKeyConstraint("job_type", "owner_id", name=op.f("pk_durations")),
        postgresql_with={
            "fillfactor": "70",
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "estimate_scores",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("job_class", sa.Text(), nullable=False),
        sa.Column("within", sa.BigInteger(), nullable=False),
        sa.Column("early", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("lower", sa.Float(), nullable=False),
        sa.Column("upper", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("day", "method", "job_class", name=op.f("pk_estimate_scores")),
    )
    op.add_column("feed", sa.Column("lasted_seconds", sa.Float(), nullable=True))
    op.add_column("feed", sa.Column("rank", sa.BigInteger(), nullable=True))
    _know_kinds("'ended', 'lined', 'linked', 'released', 'terms'")
    op.add_column(
        "scheduler_lease",
        sa.Column(
            "starts", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
    )
    op.add_column(
        "users",
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "ready", sa.Column("tags", sa.ARRAY(sa.Text()), server_default="{}", nullable=False)
    )
    op.add_column("ready", sa.Column("timeout_seconds", sa.Float(), nullable=True))
    op.execute(
        "UPDATE ready SET tags = jobs.tags, timeout_seconds = jobs.timeout_seconds"
        " FROM jobs WHERE jobs.id = ready.job_id"
    )
    op.alter_column("ready", "timeout_seconds", nullable=False)


def downgrade() -> None:
    op.drop_column("ready", "timeout_seconds")
    op.drop_column("ready", "tags")
    op.drop_column("users", "paused")
    op.drop_column("scheduler_lease", "starts")
    op.execute("DELETE FROM feed WHERE kind NOT IN ('linked', 'ended', 'released')")
    _know_kinds("'linked', 'ended', 'released'")
    op.drop_column("feed", "rank")
    op.drop_column("feed", "lasted_seconds")
    op.drop_table("estimate_scores")
    op.drop_table("durations")


def _know_kinds(kinds: str) -> None:
    op.drop_constraint(op.f(_FEED_KIND), "feed", type_="check")
    op.create_check_constraint(op.f(_FEED_KIND), "feed", f"kind IN ({kinds})")
