"""The ground other tests stand on."""

import psycopg
import pytest
import redis

from tests.services import OwnServices, Services, eventually


def count_tables(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_fresh_database_has_tables_and_is_nobody_elses(services: Services) -> None:
    one, two = services.fresh_database(), services.fresh_database()
    assert count_tables(one) == count_tables(two) > 10
    with psycopg.connect(one) as connection:
        connection.execute("CREATE TABLE only_here ()")
    assert count_tables(one) == count_tables(two) + 1


def test_an_empty_database_has_no_tables(services: Services) -> None:
    assert count_tables(services.empty_database()) == 0


def test_services_of_a_tests_own_can_be_killed_and_started_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with OwnServices(tmp_path_factory.mktemp("own")) as services:
        url = services.empty_database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept ()")
        services.kill_postgres()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        services.start_postgres()
        assert count_tables(url) == 1
        services.kill_valkey()
        services.start_valkey()
        services.flush_redis()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    with (
        redis.Redis.from_url(services.redis_url, retry=None) as client,
        pytest.raises(redis.ConnectionError),
    ):
        client.ping()


def test_services_of_which_one_does_not_start_leave_none_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        assert services.is_postgres_running()
        raise OSError("no port")

    services = OwnServices(tmp_path_factory.mktemp("own"))
    monkeypatch.setattr(services, "start_valkey", refuse)

    with pytest.raises(OSError, match="no port"), services:
        pass

    assert not services.is_postgres_running()


def test_what_never_happens_fails_with_what_is_known() -> None:
    with pytest.raises(AssertionError, match="not within 0 s: the log says so"):
        eventually(lambda: False, within=0, saying=lambda: "the log says so")
