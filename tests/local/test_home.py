import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from local.home import Home, free_port, is_free
from local.process import StartFailed


def test_a_home_is_made_and_private(tmp_path: Path) -> None:
    path = tmp_path / "some" / "home"
    with Home(path):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_second_start_is_refused_and_told_where_the_first_runs(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        home.announce("http://127.0.0.1:8080/")
        with pytest.raises(StartFailed) as refusal, Home(tmp_path):
            pass
    assert "already running" in str(refusal.value)
    assert f"http://127.0.0.1:8080/ (process {os.getpid()})" in str(refusal.value)


def test_a_home_is_free_again_after_its_holder_was_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, os, signal; from local.home import Home;"
        f"Home(pathlib.Path({str(tmp_path)!r})).__enter__().announce('here');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -9
    assert "here" in (tmp_path / "lock").read_text()
    with Home(tmp_path):
        assert "here" not in (tmp_path / "lock").read_text()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StartFailed, match=r"FAIRQ_HOME cannot be used.*file"), Home(file):
        pass


def test_a_port_is_remembered(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        port = home.port("postgres")
        assert is_free(port)
        assert home.port("valkey") != port
    with Home(tmp_path) as home:
        assert home.port("postgres") == port


def test_a_remembered_port_that_another_took_is_replaced(tmp_path: Path) -> None:
    with Home(tmp_path) as home, socket.socket() as other:
        port = home.port("postgres")
        other.bind(("127.0.0.1", port))
        other.listen()
        moved = home.port("postgres")
        assert moved != port
        assert home.port("postgres") == moved


def test_a_port_that_is_remembered_for_another_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Home(tmp_path) as home:
        port, other = home.port("postgres"), free_port()
        monkeypatch.setattr("local.home._candidates", iter([port, other]))

        assert home.port("valkey") == other


def test_no_port_is_given_twice() -> None:
    given = [free_port() for _ in range(1000)]  # at random, some would be

    assert len(set(given)) == len(given)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    port = free_port()
    assert is_free(port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert not is_free(port)


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        assert not home.has_secret("key")
        secret = home.secret("key")
        assert len(secret) >= 32
        assert home.secret("key") == secret
        assert home.secret("other") != secret
    with Home(tmp_path) as home:
        assert home.secret("key") == secret
    for file in (tmp_path / "secrets").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_forgotten_secret_is_made_anew(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        secret = home.secret("key")
        home.forget_secret("key")
        home.forget_secret("key")
        assert not home.has_secret("key")
        assert home.secret("key") != secret


def test_a_process_started_by_hand_finds_its_environment(tmp_path: Path) -> None:
    awkward = "postgresql://fairq:it's $HOME@127.0.0.1/fairq"
    with Home(tmp_path) as home:
        home.leave_environment({"DATABASE_URL": awkward})
    told = subprocess.run(
        ["sh", "-c", '. ./environment && printf %s "$DATABASE_URL"'],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == awkward
    assert (tmp_path / "environment").stat().st_mode & 0o777 == 0o600
