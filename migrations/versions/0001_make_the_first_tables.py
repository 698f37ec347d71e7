"""Make the first tables.

One row of scheduler_lease and one policy version are there from the start, so that every
later statement may count on them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "feed",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("cpu_units", sa.Numeric(precision=10, scale=3), nullable=True),
        sa.Column("memory_mb", sa.BigInteger(), nullable=True),
        sa.Column("charge", sa.Float(), nullable=True),
        sa.Column("express", sa.Boolean(), nullable=True),
        sa.Column("used_seconds", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('linked', 'ended', 'released')", name=op.f("ck_feed_kind_is_known")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_feed")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cap_cpu_units", sa.Numeric(precision=10, scale=3), nullable=True),
        sa.Column("cap_memory_mb", sa.BigInteger(), nullable=True),
        sa.Column("cap_running_jobs", sa.BigInteger(), nullable=True),
        sa.Column("cap_backlog", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("weight > 0", name=op.f("ck_groups_weight_is_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_groups_name")),
    )
    op.create_table(
        "job_types",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("payload_schema", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("cpu_units", sa.Numeric(precision=10, scale=3), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=False),
        sa.Column("retry_config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("executor", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_types")),
    )
    op.create_table(
        "scheduler_lease",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("backend_pid", sa.BigInteger(), nullable=True),
        sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "clock", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column(
            "reservation", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_scheduler_lease_there_is_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scheduler_lease")),
        postgresql_with={
            "fillfactor": "20",
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("processes_min", sa.BigInteger(), nullable=False),
        sa.Column("processes_max", sa.BigInteger(), nullable=False),
        sa.Column("processes", sa.BigInteger(), nullable=False),
        sa.Column("cpu_units", sa.Numeric(precision=10, scale=3), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('online', 'draining', 'stopped')", name=op.f("ck_workers_state_is_known")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=True),
        sa.Column("weight", sa.Float(), server_default="1", nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("session_version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cap_cpu_units", sa.Numeric(precision=10, scale=3), nullable=True),
        sa.Column("cap_memory_mb", sa.BigInteger(), nullable=True),
        sa.Column("cap_running_jobs", sa.BigInteger(), nullable=True),
        sa.Column("cap_backlog", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "role IN ('admin', 'operator', 'user', 'viewer')", name=op.f("ck_users_role_is_known")
        ),
        sa.CheckConstraint("weight > 0", name=op.f("ck_users_weight_is_positive")),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name=op.f("fk_users_group_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(
        "uq_users_username", "users", [sa.literal_column("lower(username)")], unique=True
    )
    op.create_index("ix_users_group_id", "users", ["group_id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("reason_job_id", sa.Text(), nullable=True),
        sa.Column("job_class", sa.Text(), nullable=False),
        sa.Column("priority_level", sa.SmallInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("cpu_units", sa.Numeric(precision=10, scale=3), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("retry_config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=False),
        sa.Column("estimated_seconds", sa.Float(), nullable=True),
        sa.Column("executor", sa.Text(), nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("start_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("schedule", sa.Text(), nullable=True),
        sa.Column("rank_offset", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("open_dependencies", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempt", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts_forgiven", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("crashes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("progress_fraction", sa.Float(), nullable=True),
        sa.Column("progress_message", sa.Text(), nullable=True),
        sa.Column(
            "result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(status = 'cancelled') = (reason IS NOT NULL) AND (reason IS NULL OR reason IN ('cancelled_by_user', 'deadline_passed', 'dependency_failed'))",
            name=op.f("ck_jobs_cancelled_jobs_have_a_reason"),
        ),
        sa.CheckConstraint(
            "(status = 'running') <= (worker IS NOT NULL AND started_at IS NOT NULL)",
            name=op.f("ck_jobs_running_jobs_have_a_worker"),
        ),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished_jobs_have_an_end"),
        ),
        sa.CheckConstraint(
            "NOT (status IN ('queued', 'running')) OR (queued_at IS NOT NULL AND attempt > 0)",
            name=op.f("ck_jobs_active_jobs_have_an_attempt"),
        ),
        sa.CheckConstraint(
            "NOT (status IN ('retrying', 'scheduled')) OR due_at IS NOT NULL",
            name=op.f("ck_jobs_timed_jobs_have_a_time"),
        ),
        sa.CheckConstraint(
            "executor IN ('celery', 'pull')", name=op.f("ck_jobs_executor_is_known")
        ),
        sa.CheckConstraint(
            "job_class IN ('critical', 'high', 'low', 'normal')",
            name=op.f("ck_jobs_class_is_known"),
        ),
        sa.CheckConstraint(
            "open_dependencies >= 0 AND (open_dependencies = 0 OR NOT (status IN ('queued', 'ready', 'running')))",
            name=op.f("ck_jobs_startable_jobs_wait_for_nobody"),
        ),
        sa.CheckConstraint(
            "status <> 'failed' OR error_type IS NOT NULL",
            name=op.f("ck_jobs_failed_jobs_have_an_error"),
        ),
        sa.CheckConstraint(
            "status IN ('blocked', 'cancelled', 'completed', 'failed', 'queued', 'ready', 'retrying', 'running', 'scheduled')",
            name=op.f("ck_jobs_status_is_known"),
        ),
        sa.CheckConstraint(
            "cpu_units > 0 AND memory_mb > 0 AND timeout_seconds > 0",
            name=op.f("ck_jobs_sizes_are_positive"),
        ),
        sa.CheckConstraint("length(job_id) BETWEEN 1 AND 200", name=op.f("ck_jobs_job_id_length")),
        sa.CheckConstraint("priority_level BETWEEN 0 AND 10", name=op.f("ck_jobs_level_in_range")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_jobs_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        postgresql_with={
            "fillfactor": "85",
            "autovacuum_vacuum_scale_factor": "0.05",
            "autovacuum_analyze_scale_factor": "0.05",
        },
    )
    op.create_index("ix_jobs_job_id", "jobs", ["job_id"], unique=False)
    op.create_index("ix_jobs_owner_id_id", "jobs", ["owner_id", "id"], unique=False)
    op.create_index(
        "ix_jobs_owner_id_status_id", "jobs", ["owner_id", "status", "id"], unique=False
    )
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"], unique=False)
    op.create_index("ix_jobs_tags", "jobs", ["tags"], unique=False, postgresql_using="gin")
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["owner_id", "id"],
        unique=False,
        postgresql_where=sa.text(
            "status IN ('blocked', 'queued', 'ready', 'retrying', 'running', 'scheduled')"
        ),
    )
    op.create_index(
        "uq_jobs_owner_id_idempotency_key",
        "jobs",
        ["owner_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index("uq_jobs_owner_id_job_id", "jobs", ["owner_id", "job_id"], unique=True)
    op.create_table(
        "meters",
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("meter", sa.Float(), server_default="0", nullable=False),
        sa.Column("express_meter", sa.Float(), server_default="0", nullable=False),
        sa.Column("tag", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_meters_owner_id")),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_meters")),
        postgresql_with={
            "fillfactor": "70",
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "policy_versions",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("cap_cpu_units", sa.Numeric(precision=10, scale=3), nullable=True),
        sa.Column("cap_memory_mb", sa.BigInteger(), nullable=True),
        sa.Column("rules", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("types", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("classes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_policy_versions_created_by")
        ),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_policy_versions")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_tokens_secret_hash")),
    )
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"], unique=False)
    op.create_table(
        "active",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("job_class", sa.Text(), nullable=False),
        sa.Column("cpu_units", sa.Numeric(precision=10, scale=3), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("expected_seconds", sa.Float(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=False),
        sa.Column("charge", sa.Float(), nullable=False),
        sa.Column("express", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(claimed_at IS NULL) = (worker IS NULL) AND (claimed_at IS NULL) = (lease_until IS NULL)",
            name=op.f("ck_active_claims_are_whole"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_active_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_active")),
        postgresql_with={
            "fillfactor": "50",
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("peak_memory_mb", sa.Float(), nullable=True),
        sa.Column("cpu_seconds", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "(outcome IS NULL) = (finished_at IS NULL) AND (outcome IS NULL OR outcome IN ('cancelled', 'completed', 'failed', 'interrupted', 'lost'))",
            name=op.f("ck_attempts_ended_attempts_have_an_outcome"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_attempts")),
    )
    op.create_table(
        "dependencies",
        sa.Column("child_id", sa.BigInteger(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("met", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint(
            "condition IN ('completed', 'failed', 'finished')",
            name=op.f("ck_dependencies_condition_is_known"),
        ),
        sa.CheckConstraint(
            "child_id <> parent_id", name=op.f("ck_dependencies_nobody_waits_for_itself")
        ),
        sa.ForeignKeyConstraint(["child_id"], ["jobs.id"], name=op.f("fk_dependencies_child_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name=op.f("fk_dependencies_parent_id")),
        sa.PrimaryKeyConstraint("child_id", "parent_id", name=op.f("pk_dependencies")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "ix_dependencies_parent_id_child_id",
        "dependencies",
        ["parent_id", "child_id"],
        unique=False,
    )
    op.create_table(
        "job_events",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column(
            "data", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.CheckConstraint(
            "status IN ('blocked', 'cancelled', 'completed', 'failed', 'queued', 'ready', 'retrying', 'running', 'scheduled')",
            name=op.f("ck_job_events_status_is_known"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_job_events")),
    )
    op.create_index("ix_job_events_job_id_seq", "job_events", ["job_id", "seq"], unique=False)
    op.create_index("ix_job_events_owner_id_seq", "job_events", ["owner_id", "seq"], unique=False)
    op.create_table(
        "job_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_logs_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_logs")),
    )
    op.create_index("ix_job_logs_job_id_id", "job_logs", ["job_id", "id"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_outbox_job_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_outbox")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "ready",
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("job_class", sa.Text(), nullable=False),
        sa.Column("cpu_units", sa.Numeric(precision=10, scale=3), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("expected_seconds", sa.Float(), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_ready_job_id")),
        sa.PrimaryKeyConstraint("owner_id", "rank", "job_id", name=op.f("pk_ready")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_table(
        "timers",
        sa.Column("fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('due', 'deadline')", name=op.f("ck_timers_kind_is_known")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_timers_job_id")),
        sa.PrimaryKeyConstraint("fire_at", "job_id", "kind", name=op.f("pk_timers")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.execute("INSERT INTO scheduler_lease (id, epoch) VALUES (1, 0)")
    op.execute(
        "INSERT INTO policy_versions (version, rules, types, classes, created_at)"
        " VALUES (1, '[]', '{}', '{}', now())"
    )


def downgrade() -> None:
    op.drop_table("timers")
    op.drop_table("ready")
    op.drop_table("outbox")
    op.drop_index("ix_job_logs_job_id_id", table_name="job_logs")
    op.drop_table("job_logs")
    op.drop_index("ix_job_events_owner_id_seq", table_name="job_events")
    op.drop_index("ix_job_events_job_id_seq", table_name="job_events")
    op.drop_table("job_events")
    op.drop_index("ix_dependencies_parent_id_child_id", table_name="dependencies")
    op.drop_table("dependencies")
    op.drop_table("attempts")
    op.drop_table("active")
    op.drop_index(op.f("ix_tokens_user_id"), table_name="tokens")
    op.drop_table("tokens")
    op.drop_table("policy_versions")
    op.drop_table("meters")
    op.drop_index("uq_jobs_owner_id_job_id", table_name="jobs")
    op.drop_index(
        "uq_jobs_owner_id_idempotency_key",
        table_name="jobs",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index(
        "ix_jobs_unfinished",
        table_name="jobs",
        postgresql_where=sa.text(
            "status IN ('blocked', 'queued', 'ready', 'retrying', 'running', 'scheduled')"
        ),
    )
    op.drop_index("ix_jobs_tags", table_name="jobs", postgresql_using="gin")
    op.drop_index("ix_jobs_status_id", table_name="jobs")
    op.drop_index("ix_jobs_owner_id_status_id", table_name="jobs")
    op.drop_index("ix_jobs_owner_id_id", table_name="jobs")
    op.drop_index("ix_jobs_job_id", table_name="jobs")
    op.drop_table("jobs")
    op.drop_index("ix_users_group_id", table_name="users")
    op.drop_index("uq_users_username", table_name="users")
    op.drop_table("users")
    op.drop_table("workers")
    op.drop_table("scheduler_lease")
    op.drop_table("job_types")
    op.drop_table("groups")
    op.drop_table("feed")
