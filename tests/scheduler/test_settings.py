from pathlib import Path

import pytest

from scheduler.errors import SettingsInvalid
from scheduler.settings import VARIABLES, Embedding, Settings, missing_services, new_secret

LEAST = {
    "DATABASE_URL": "postgresql://fairq:word@127.0.0.1:5432/fairq",
    "REDIS_URL": "redis://:word@127.0.0.1:6379/0",
    "FAIRQ_SECRET_KEY": "sixteen characters or more",
}


def read(**changes: str) -> Settings:
    return Settings.from_env(LEAST | changes)


def problems(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as invalid:
        Settings.from_env(environment)
    return invalid.value.problems


def test_what_is_not_set_has_its_documented_default() -> None:
    settings = read()
    assert settings.host == "127.0.0.1"
    assert settings.port == 8080
    assert settings.admin_username == "admin"
    assert settings.admin_password is None
    assert (settings.worker_processes_max, settings.worker_processes_min) == (8, 2)
    assert settings.worker_cpu_units == 8
    assert settings.worker_memory_mb == 4096
    assert settings.smtp_url is None
    assert settings.allow_private_http is False
    assert (settings.requests_per_minute, settings.proxies) == (30_000, 0)
    assert settings.cookie_secure is False
    assert settings.log_level == "INFO"
    assert settings.home == Path("var").resolve()


def test_every_problem_is_reported_at_once_by_the_name_of_its_variable() -> None:
    wrong = {
        "DATABASE_URL": "mysql://host/name",
        "REDIS_URL": "http://host",
        "FAIRQ_PORT": "0",
        "FAIRQ_SECRET_KEY": "short",
        "FAIRQ_WORKER_PROCESSES": "2,8",
        "FAIRQ_WORKER_CPU_UNITS": "none",
        "FAIRQ_WORKER_MEMORY_MB": "-1",
        "FAIRQ_SMTP_URL": "mail.example.org",
        "FAIRQ_FLOWER_URL": "javascript:alert(1)",
        "FAIRQ_ALLOW_PRIVATE_HTTP": "perhaps",
        "FAIRQ_REQUESTS_PER_MINUTE": "-1",
        "FAIRQ_PROXIES": "11",
        "FAIRQ_COOKIE_SECURE": "2",
        "FAIRQ_LOG_LEVEL": "LOUD",
    }
    assert {problem.split()[0] for problem in problems(wrong)} == set(wrong)
    assert len(problems(wrong)) == len(wrong)


def test_an_address_that_a_page_shows_holds_no_password() -> None:
    assert read(FAIRQ_FLOWER_URL="https://flower.example.org").flower_url is not None
    assert problems({**LEAST, "FAIRQ_FLOWER_URL": "http://ann:secret@flower:5555"}) == (
        "FAIRQ_FLOWER_URL must not hold a password: the page would show it",
    )


def test_what_has_no_default_must_be_set() -> None:
    assert problems({}) == (
        "DATABASE_URL is not set",
        "REDIS_URL is not set",
        "FAIRQ_SECRET_KEY is not set",
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert read(FAIRQ_PORT="").port == 8080
    assert read(FAIRQ_SMTP_URL="").smtp_url is None
    assert "REDIS_URL is not set" in problems({**LEAST, "REDIS_URL": ""})


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_any_spelling_of_a_postgres_address_is_understood(scheme: str) -> None:
    settings = read(DATABASE_URL=f"{scheme}://fairq:word@host/name")
    assert settings.database_url == "postgresql+psycopg://fairq:word@host/name"


@pytest.mark.parametrize(("raw", "expected"), [("8,2", (8, 2)), ("1,1", (1, 1)), ("64,1", (64, 1))])
def test_processes_are_most_and_fewest(raw: str, expected: tuple[int, int]) -> None:
    settings = read(FAIRQ_WORKER_PROCESSES=raw)
    assert (settings.worker_processes_max, settings.worker_processes_min) == expected


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("FAIRQ_WORKER_PROCESSES", "8"),
        ("FAIRQ_WORKER_PROCESSES", "8,0"),
        ("FAIRQ_WORKER_PROCESSES", "a,b"),
        ("FAIRQ_PORT", "65536"),
        ("FAIRQ_PORT", "80.5"),
        ("FAIRQ_WORKER_CPU_UNITS", "0"),
        ("FAIRQ_WORKER_CPU_UNITS", "inf"),
        ("FAIRQ_WORKER_CPU_UNITS", "nan"),
        ("FAIRQ_WORKER_MEMORY_MB", "0"),
        ("FAIRQ_WORKER_MEMORY_MB", "1.5"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(name: str, raw: str) -> None:
    (problem,) = problems({**LEAST, name: raw})
    assert problem.startswith(name)
    assert raw in problem


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("yes", True), ("YES", True), ("true", True), ("1", True), ("no", False), ("0", False)],
)
def test_yes_and_no_have_several_spellings(raw: str, *, expected: bool) -> None:
    assert read(FAIRQ_COOKIE_SECURE=raw).cookie_secure is expected


def test_settings_do_not_show_their_secrets() -> None:
    settings = read(FAIRQ_ADMIN_PASSWORD="hush-hush-password")
    assert settings.admin_password == "hush-hush-password"
    shown = repr(settings) + str(settings)
    assert "hush-hush-password" not in shown
    assert LEAST["FAIRQ_SECRET_KEY"] not in shown
    assert "word@" not in shown


def test_a_secret_in_a_wrong_address_is_not_repeated() -> None:
    wrong = {**LEAST, "DATABASE_URL": "mysql://user:hush-hush@host/name"}
    assert "hush-hush" not in " ".join(problems(wrong))


def test_a_new_secret_is_long_enough_and_never_the_same() -> None:
    assert read(FAIRQ_SECRET_KEY=new_secret()).secret_key
    assert new_secret() != new_secret()


def test_a_launcher_embeds_what_is_not_named() -> None:
    assert missing_services({}) == ["DATABASE_URL", "REDIS_URL"]
    assert missing_services({"DATABASE_URL": "x", "REDIS_URL": ""}) == ["REDIS_URL"]
    assert missing_services(LEAST) == []


def test_every_setting_has_one_documented_variable() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert all(variable.meaning for variable in VARIABLES)


def test_a_program_that_submits_in_its_own_transactions_needs_no_variable() -> None:
    assert Embedding.from_env({}) == Embedding(redis_url=None, allow_private_http=False)
    given = {"REDIS_URL": "redis://:secret@somewhere/0", "FAIRQ_ALLOW_PRIVATE_HTTP": "yes"}
    embedding = Embedding.from_env(given)
    assert embedding == Embedding(given["REDIS_URL"], allow_private_http=True)
    assert "secret" not in repr(embedding)
    with pytest.raises(SettingsInvalid, match="REDIS_URL must look like redis://"):
        Embedding.from_env({"REDIS_URL": "memory://"})
