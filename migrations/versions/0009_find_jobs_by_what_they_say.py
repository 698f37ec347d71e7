"""Find jobs by what they say, and by their type, tags and time, however many there are.

What no move changes gets a table of its own, because every move writes all indexes of a row of
``jobs`` anew; the index of tags moves there. Jobs that an older web process takes in between are
found page by page only, so stop those first.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.concurrently import (
    beside_the_work,
    drop_index,
    make_index,
    replace_constraint,
    validate,
)

revision = "0009"
down_revision = "0008"

_FILL = """
INSERT INTO searched (job_id, type, created_at, tags, text)
SELECT id, type, created_at, tags,
       concat_ws(chr(10), job_id, description, array_to_string(tags, chr(10)))
FROM jobs
ON CONFLICT DO NOTHING
"""

# Whoever forgot them meanwhile did not know that they could be found.
_FORGET = "DELETE FROM searched WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = searched.job_id)"

_REFERENCE = "fk_searched_job_id"

_INDEXES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("ix_searched_type", ["type"], {}),
    ("ix_searched_created_at_job_id", ["created_at", "job_id"], {}),
    ("ix_searched_tags", ["tags"], {"postgresql_using": "gin"}),
    (
        "ix_searched_text",
        ["text"],
        {"postgresql_using": "gin", "postgresql_ops": {"text": "gin_trgm_ops"}},
    ),
]


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
        if_not_exists=True,
    )
    # Indexes come after the rows, so they are made many times as fast; the reference comes last,
    # because it keeps everybody from writing jobs until this transaction ends.
    op.execute(_FILL)
    for name, columns, options in _INDEXES:
        op.create_index(name, "searched", columns, if_not_exists=True, **options)
    replace_constraint(_REFERENCE, "searched", "FOREIGN KEY (job_id) REFERENCES jobs (id)")
    with beside_the_work():
        op.execute(_FORGET)
        validate(_REFERENCE, "searched")
        drop_index("ix_jobs_tags", "jobs")
        op.execute("ANALYZE searched")


def downgrade() -> None:
    with beside_the_work():
        make_index("ix_jobs_tags", "jobs", ["tags"], postgresql_using="gin")
    # The extension stays: it may have been there before, for others.
    op.drop_table("searched")
