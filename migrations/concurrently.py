"""What migrations do beside the work that goes on.

It takes transactions of its own, so all that came before stands when it is stopped, and the
migration is run again from its beginning. Steps must therefore bear being taken twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import op

_LIMITS = ("lock_timeout", "statement_timeout")


@contextmanager
def beside_the_work() -> Iterator[None]:
    """Leave the transaction of the migration; nobody waits for what waits here, for however long."""
    with op.get_context().autocommit_block():
        before = {name: op.get_bind().exec_driver_sql(f"SHOW {name}").scalar() for name in _LIMITS}
        for name in _LIMITS:
            op.execute(f"SET {name} = 0")
        yield
        for name, limit in before.items():
            op.execute(f"SET {name} = '{limit}'")


def make_index(name: str, table: str, columns: list[str], **options: Any) -> None:
    """Make an index anew: one that stopping has left behind may be invalid."""
    drop_index(name, table)
    op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index(name: str, table: str) -> None:
    """Drop an index, should it be there."""
    op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)


def replace_constraint(name: str, table: str, condition: str) -> None:
    """Let a constraint hold for what is written from now on; for what is there, validate it."""
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {condition} NOT VALID")


def validate(name: str, table: str) -> None:
    """Make sure that a constraint holds for what is there."""
    op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
