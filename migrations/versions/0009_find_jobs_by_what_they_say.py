"""Find jobs by what they say, and by their type, tags and time, however many there are.

What no move changes gets a table of its own, because every move writes all indexes of a row of
``jobs`` anew; the index of tags moves there. Jobs that an older web process takes in between are
found page by page only, so stop those first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

_FILL = """
INSERT INTO searched (job_id, type, created_at, tags, text)
SELECT id, type, created_at, tags,
       concat_ws(chr(10), job_id, description, array_to_string(tags, chr(10)))
FROM jobs
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.create_table(
        "searched",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_searched")),
    )
    # Indexes and reference come after the rows: so they are made many times as fast.
    op.execute(_FILL)
    op.create_foreign_key(op.f("fk_searched_job_id"), "searched", "jobs", ["job_id"], ["id"])
    op.create_index(op.f("ix_searched_type"), "searched", ["type"])
    op.create_index("ix_searched_created_at_job_id", "searched", ["created_at", "job_id"])
    op.create_index("ix_searched_tags", "searched", ["tags"], postgresql_using="gin")
    op.create_index(
        "ix_searched_text",
        "searched",
        ["text"],
        postgresql_using="gin",
        postgresql_ops={"text": "gin_trgm_ops"},
    )
    with op.get_context().autocommit_block():
        op.drop_index("ix_jobs_tags", table_name="jobs", postgresql_concurrently=True)
        op.execute("ANALYZE searched")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_jobs_tags", "jobs", ["tags"], postgresql_using="gin", postgresql_concurrently=True
        )
    # The extension stays: it may have been there before, for others.
    op.drop_table("searched")
