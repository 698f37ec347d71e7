"""Order dead letters by when they failed, not by when their jobs were submitted.

An old job that fails today is today's news. Failures of an owner, of one kind, and of one kind of
an owner are each found without looking at others. Made and dropped without keeping anybody waiting.
"""

import sqlalchemy as sa

from migrations.concurrently import beside_the_work, drop_index, make_index

revision = "0004"
down_revision = "0003"

_DEAD_LETTER = "status = 'failed' AND discarded_at IS NULL"

_NOW = {
    "ix_jobs_dead_letters_of_all": ["finished_at", "id"],
    "ix_jobs_dead_letters_of_all_alike": ["error_fingerprint", "finished_at", "id"],
    "ix_jobs_dead_letters_of_owner": ["owner_id", "finished_at", "id"],
    "ix_jobs_dead_letters_of_owner_alike": ["owner_id", "error_fingerprint", "finished_at", "id"],
}
_BEFORE = {
    "ix_jobs_dead_letters": ["owner_id", "id"],
    "ix_jobs_dead_letters_alike": ["error_fingerprint", "id"],
}


def upgrade() -> None:
    _exchange(_BEFORE, _NOW)


def downgrade() -> None:
    _exchange(_NOW, _BEFORE)


def _exchange(old: dict[str, list[str]], new: dict[str, list[str]]) -> None:
    with beside_the_work():
        for name, columns in new.items():
            make_index(name, "jobs", columns, postgresql_where=sa.text(_DEAD_LETTER))
        for name in old:
            drop_index(name, "jobs")
