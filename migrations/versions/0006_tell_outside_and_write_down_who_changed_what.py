"""Keep callbacks until they are delivered, and a log of what operators and administrators change.

New tables only; nothing that runs is held up.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "callbacks",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "delivery_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("outcome", JSONB(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=True),
        sa.Column("taken_until", _TIME, nullable=True),
        sa.Column("tries", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tries_forgiven", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("delivered_at", _TIME, nullable=True),
        sa.Column("gave_up_at", _TIME, nullable=True),
        sa.CheckConstraint(
            "num_nonnulls(due_at, delivered_at, gave_up_at) = 1",
            name=op.f("ck_callbacks_one_thing_is_true_of_it"),
        ),
        sa.CheckConstraint(
            "taken_until IS NULL OR due_at IS NOT NULL",
            name=op.f("ck_callbacks_only_what_is_due_is_taken"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_callbacks_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callbacks")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_index("ix_callbacks_job_id_id", "callbacks", ["job_id", "id"])
    op.create_index(
        "ix_callbacks_due",
        "callbacks",
        ["owner_id", "due_at", "id"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_callbacks_taken",
        "callbacks",
        ["owner_id"],
        postgresql_where=sa.text("taken_until IS NOT NULL"),
    )
    op.create_table(
        "callback_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("callback_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("status_code", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("milliseconds", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(status_code, error) = 1",
            name=op.f("ck_callback_deliveries_there_was_an_answer_or_an_error"),
        ),
        sa.ForeignKeyConstraint(
            ["callback_id"], ["callbacks.id"], name=op.f("fk_callback_deliveries_callback_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callback_deliveries")),
    )
    op.create_index(
        "ix_callback_deliveries_callback_id_id", "callback_deliveries", ["callback_id", "id"]
    )
    op.create_table(
        "callback_secrets",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("previous", sa.Text(), nullable=True),
        sa.Column("previous_until", _TIME, nullable=True),
        sa.CheckConstraint(
            "(previous IS NULL) = (previous_until IS NULL)",
            name=op.f("ck_callback_secrets_a_previous_one_has_an_end"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_callback_secrets_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_callback_secrets")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name=op.f("fk_audit_log_actor_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_at_id", "audit_log", ["at", "id"])
    op.create_index("ix_audit_log_actor", "audit_log", [sa.text("lower(actor)"), "at", "id"])
    op.create_index("ix_audit_log_action", "audit_log", ["action", "at", "id"])
    op.create_index("ix_audit_log_target", "audit_log", ["target", "at", "id"])


def downgrade() -> None:
    op.drop_table("audit_log")
    op.drop_table("callback_secrets")
    op.drop_table("callback_deliveries")
    op.drop_table("callbacks")
