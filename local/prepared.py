"""What the database says is done already, so that a warm start need not ask slower programs.

A yes is the database's own word. A no, or anything unclear, only costs the time of asking the
program that knows.
"""

import re
from pathlib import Path

import psycopg

from local.programs import ROOT

_VERSIONS = ROOT / "migrations" / "versions"
_ANY_REVISION = re.compile(r'^(down_)?revision\b.*= "(\w+)"', re.MULTILINE)


def has_newest_tables(database_url: str) -> bool:
    """Tell whether the newest of the migrations is the last one that was run."""
    query = "SELECT version_num FROM alembic_version"
    applied = _ask(database_url, "alembic_version", query)
    return applied is not None and {applied} == _heads(_VERSIONS)


def has_user(database_url: str, username: str) -> bool:
    """Tell whether there is an account of that name."""
    query = "SELECT 1 FROM users WHERE username = %s"
    return _ask(database_url, "users", query, username) is not None


def _heads(versions: Path) -> set[str]:
    """Return the migrations that no other one follows."""
    found = [
        match for file in versions.glob("*.py") for match in _ANY_REVISION.findall(file.read_text())
    ]
    followed = {revision for down, revision in found if down}
    return {revision for down, revision in found if not down} - followed


def _ask(database_url: str, table: str, query: str, *parameters: str) -> object:
    """Return the one value of the one row, or None if there is no such row or *table*.

    A query of a table that is not there would stand in the server's log as an error.
    """
    address = database_url.replace("postgresql+psycopg:", "postgresql:", 1)
    with psycopg.connect(address, connect_timeout=5) as connection:
        (known,) = connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() or (None,)
        row = connection.execute(query, parameters).fetchone() if known else None
    return None if row is None else row[0]
