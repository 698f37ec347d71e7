"""Keep schedules, and find the jobs that were made by one.

Besides: why a job was asked to stop, so that one that was replaced does not count as cancelled by a
person. The index on jobs and the constraint are made without keeping anybody waiting.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.concurrently import beside_the_work, make_index, replace_constraint, validate

revision = "0007"
down_revision = "0006"

_REASONS = "ck_jobs_cancelled_jobs_have_a_reason"
_KNOWN = "'cancelled_by_itself', 'cancelled_by_user', 'deadline_passed', 'dependency_failed'"


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("template", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("every_seconds", sa.BigInteger(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("overlap", sa.Text(), nullable=False),
        sa.Column("catch_up", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_job_id", sa.Text(), nullable=True),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error_code", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("skipped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_skipped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 160", name=op.f("ck_schedules_name_length")),
        sa.CheckConstraint(
            "(cron IS NULL) <> (every_seconds IS NULL)",
            name=op.f("ck_schedules_one_way_to_tell_when"),
        ),
        sa.CheckConstraint("every_seconds > 0", name=op.f("ck_schedules_time_passes")),
        sa.CheckConstraint(
            "overlap IN ('queue', 'replace', 'skip')", name=op.f("ck_schedules_overlap_is_known")
        ),
        sa.CheckConstraint(
            "catch_up IN ('all', 'latest', 'none')", name=op.f("ck_schedules_catch_up_is_known")
        ),
        sa.CheckConstraint("due_at >= next_at", name=op.f("ck_schedules_looked_at_when_due")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_schedules_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        postgresql_with={"fillfactor": "80"},
        if_not_exists=True,
    )
    op.create_index(
        "uq_schedules_owner_id_name",
        "schedules",
        ["owner_id", "name"],
        unique=True,
        if_not_exists=True,
    )
    op.create_index("ix_schedules_name", "schedules", ["name"], if_not_exists=True)
    op.create_index(
        "ix_schedules_due_at",
        "schedules",
        ["due_at", "id"],
        postgresql_where=sa.text("NOT paused"),
        if_not_exists=True,
    )
    op.add_column(
        "active", sa.Column("cancel_reason", sa.Text(), nullable=True), if_not_exists=True
    )
    _know_reasons(f"{_KNOWN}, 'replaced_by_schedule'")
    with beside_the_work():
        validate(_REASONS, "jobs")
        make_index(
            "ix_jobs_schedule",
            "jobs",
            ["owner_id", "schedule", "status", "id"],
            postgresql_where=sa.text("schedule IS NOT NULL"),
        )


def downgrade() -> None:
    op.drop_index("ix_jobs_schedule", table_name="jobs")
    op.execute("UPDATE jobs SET reason = 'cancelled_by_user' WHERE reason = 'replaced_by_schedule'")
    _know_reasons(_KNOWN)
    validate(_REASONS, "jobs")
    op.drop_column("active", "cancel_reason")
    op.drop_table("schedules")


def _know_reasons(reasons: str) -> None:
    replace_constraint(
        _REASONS,
        "jobs",
        "CHECK ((status = 'cancelled') = (reason IS NOT NULL)"
        f" AND (reason IS NULL OR reason IN ({reasons})))",
    )
