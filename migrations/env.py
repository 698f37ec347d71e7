"""Runs migrations, one at a time over the whole installation."""

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from scheduler.models import Base
from scheduler.settings import database_url

MIGRATION_LOCK = 0x_FA_12_0001


def _migrate(connection: Connection) -> None:
    # Whoever comes second waits here and then finds nothing left to do.
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    # A blocked schema change must not block everybody behind it.
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.execute(text("SET statement_timeout = '10min'"))
    connection.commit()
    context.configure(
        connection=connection, target_metadata=Base.metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


engine = create_engine(database_url(), poolclass=pool.NullPool)
with engine.connect() as connection:
    _migrate(connection)
