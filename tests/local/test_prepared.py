from pathlib import Path

import pytest

from local import prepared
from tests.services import ADMIN, Services


def test_a_migrated_database_has_the_newest_tables(services: Services) -> None:
    assert prepared.has_newest_tables(services.fresh_database())


def test_an_empty_database_has_neither_tables_nor_users(services: Services) -> None:
    url = services.empty_database()
    assert not prepared.has_newest_tables(url)
    assert not prepared.has_user(url, ADMIN[0])


def test_a_user_is_known_by_name(services: Services) -> None:
    url = services.prepared_database()
    assert prepared.has_user(url, ADMIN[0])
    assert not prepared.has_user(url, "somebody-else")


def test_any_spelling_of_the_address_is_understood(services: Services) -> None:
    url = services.fresh_database().replace("postgresql:", "postgresql+psycopg:")
    assert prepared.has_newest_tables(url)


def test_the_newest_migration_is_the_one_that_none_follows(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text('revision = "0001"\ndown_revision = None\n')
    (tmp_path / "two.py").write_text('revision: str = "0002"\ndown_revision: str = "0001"\n')
    assert prepared._heads(tmp_path) == {"0002"}


def test_a_database_behind_the_newest_migration_is_not_up_to_date(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in prepared._VERSIONS.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    (head,) = prepared._heads(tmp_path)
    (tmp_path / "newer.py").write_text(f'revision = "newer"\ndown_revision = "{head}"\n')
    monkeypatch.setattr(prepared, "_VERSIONS", tmp_path)
    assert not prepared.has_newest_tables(services.fresh_database())
