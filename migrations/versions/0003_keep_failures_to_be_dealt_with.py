"""Make failed jobs dead letters that can be grouped, discarded and run again.

Besides: what a running job may ask for in time, attempts that were no attempts, and the feed's word
for jobs that run again. Constraints and indexes are made without keeping anybody waiting.
"""

import sqlalchemy as sa
from alembic import op

from migrations.concurrently import beside_the_work, make_index, replace_constraint, validate

revision = "0003"
down_revision = "0002"

_DEAD_LETTER = "status = 'failed' AND discarded_at IS NULL"

_COLUMNS = [
    ("job_types", sa.Column("max_timeout_seconds", sa.Float(), nullable=True)),
    ("jobs", sa.Column("error_fingerprint", sa.Text(), nullable=True)),
    ("jobs", sa.Column("discarded_at", sa.DateTime(timezone=True), nullable=True)),
    ("feed", sa.Column("root", sa.Text(), nullable=True)),
    ("active", sa.Column("max_timeout_seconds", sa.Float(), nullable=True)),
]

_INDEXES = [
    ("ix_jobs_dead_letters", ["owner_id", "id"], _DEAD_LETTER),
    ("ix_jobs_dead_letters_alike", ["error_fingerprint", "id"], _DEAD_LETTER),
    ("ix_jobs_finished_at", ["finished_at"], "finished_at IS NOT NULL"),
]

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
    for table, column in _COLUMNS:
        op.add_column(table, column.copy(), if_not_exists=True)
    op.execute(
        "UPDATE active SET max_timeout_seconds = timeout_seconds WHERE max_timeout_seconds IS NULL"
    )
    op.alter_column("active", "max_timeout_seconds", nullable=False)
    for name, (table, now, _) in _CHECKS.items():
        replace_constraint(name, table, f"CHECK ({now})")
    with beside_the_work():
        # Those that failed before are alike by type and error only.
        op.execute(
            "UPDATE jobs SET error_fingerprint = left(md5(type || ' ' || error_type), 16)"
            " WHERE status = 'failed' AND error_fingerprint IS NULL"
        )
        for name, (table, _, _) in _CHECKS.items():
            validate(name, table)
        for name, columns, condition in _INDEXES:
            make_index(name, "jobs", columns, postgresql_where=sa.text(condition))


def downgrade() -> None:
    for name, _, _ in _INDEXES:
        op.drop_index(name, table_name="jobs")
    op.execute("UPDATE jobs SET reason = 'cancelled_by_user' WHERE reason = 'cancelled_by_itself'")
    op.execute("UPDATE attempts SET outcome = 'interrupted' WHERE outcome = 'snoozed'")
    op.execute("DELETE FROM feed WHERE kind = 'revived'")
    for name, (table, _, before) in _CHECKS.items():
        if before is None:
            op.drop_constraint(name, table)
        else:
            replace_constraint(name, table, f"CHECK ({before})")
            validate(name, table)
    for table, column in reversed(_COLUMNS):
        op.drop_column(table, column.name)
