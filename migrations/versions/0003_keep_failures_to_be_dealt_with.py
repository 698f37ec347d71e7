"""Make failed jobs dead letters that can be grouped, discarded and run again.

Besides: what a running job may ask for in time, attempts that were no attempts, and the feed's word
for jobs that run again. Constraints and indexes are made without keeping anybody waiting.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_DEAD_LETTER = "status = 'failed' AND discarded_at IS NULL"

_CHECKS = {
    "ck_jobs_failed_jobs_have_an_error": (
        "jobs",
        "(status = 'failed') <= (error_type IS NOT NULL AND error_fingerprint IS NOT NULL)",
        "status <> 'failed' OR error_type IS NOT NULL",
    ),
    "ck_jobs_cancelled_jobs_have_a_reason": (
        "jobs",
        (
            "(status = 'cancelled') = (reason IS NOT NULL) AND (reason IS NULL OR reason IN"
            " ('cancelled_by_itself', 'cancelled_by_user', 'deadline_passed', 'dependency_failed'))"
        ),
        (
            "(status = 'cancelled') = (reason IS NOT NULL) AND (reason IS NULL OR reason IN"
            " ('cancelled_by_user', 'deadline_passed', 'dependency_failed'))"
        ),
    ),
    "ck_jobs_only_failed_jobs_are_discarded": (
        "jobs",
        "discarded_at IS NULL OR status = 'failed'",
        None,
    ),
    "ck_attempts_ended_attempts_have_an_outcome": (
        "attempts",
        (
            "(outcome IS NULL) = (finished_at IS NULL) AND (outcome IS NULL OR outcome IN"
            " ('cancelled', 'completed', 'failed', 'interrupted', 'lost', 'snoozed'))"
        ),
        (
            "(outcome IS NULL) = (finished_at IS NULL) AND (outcome IS NULL OR outcome IN"
            " ('cancelled', 'completed', 'failed', 'interrupted', 'lost'))"
        ),
    ),
    "ck_feed_kind_is_known": (
        "feed",
        "kind IN ('ended', 'lined', 'linked', 'released', 'revived', 'terms')",
        "kind IN ('ended', 'lined', 'linked', 'released', 'terms')",
    ),
}
"""By constraint: its table, what it says from now on, and what it said before."""


def upgrade() -> None:
    op.add_column("job_types", sa.Column("max_timeout_seconds", sa.Float(), nullable=True))
    op.add_column("jobs", sa.Column("error_fingerprint", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("discarded_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("feed", sa.Column("root", sa.Text(), nullable=True))
    op.add_column("active", sa.Column("max_timeout_seconds", sa.Float(), nullable=True))
    op.execute("UPDATE active SET max_timeout_seconds = timeout_seconds")
    op.alter_column("active", "max_timeout_seconds", nullable=False)
    # Those that failed before are alike by type and error only.
    op.execute(
        "UPDATE jobs SET error_fingerprint = left(md5(type || ' ' || error_type), 16)"
        " WHERE status = 'failed'"
    )
    for name, (table, now, before) in _CHECKS.items():
        _say(name, table, now, was_there=before is not None)
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_jobs_dead_letters",
            "jobs",
            ["owner_id", "id"],
            postgresql_where=sa.text(_DEAD_LETTER),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_jobs_dead_letters_alike",
            "jobs",
            ["error_fingerprint", "id"],
            postgresql_where=sa.text(_DEAD_LETTER),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_jobs_finished_at",
            "jobs",
            ["finished_at"],
            postgresql_where=sa.text("finished_at IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("ix_jobs_finished_at", table_name="jobs")
    op.drop_index("ix_jobs_dead_letters_alike", table_name="jobs")
    op.drop_index("ix_jobs_dead_letters", table_name="jobs")
    op.execute("UPDATE jobs SET reason = 'cancelled_by_user' WHERE reason = 'cancelled_by_itself'")
    op.execute("UPDATE attempts SET outcome = 'interrupted' WHERE outcome = 'snoozed'")
    op.execute("DELETE FROM feed WHERE kind = 'revived'")
    for name, (table, _, before) in _CHECKS.items():
        _say(name, table, before, was_there=True)
    op.drop_column("active", "max_timeout_seconds")
    op.drop_column("feed", "root")
    op.drop_column("jobs", "discarded_at")
    op.drop_column("jobs", "error_fingerprint")
    op.drop_column("job_types", "max_timeout_seconds")


def _say(name: str, table: str, condition: str | None, *, was_there: bool) -> None:
    """Put a check in the place of what it was before; no check without a condition."""
    if was_there:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    if condition is not None:
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
