"""A program on a leash dies with whoever started it, however that one dies."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from local.leash import Identity, leashed, user_of
from local.programs import ROOT
from tests.services import eventually

SLEEPER = [sys.executable, "-c", "import threading; threading.Event().wait()"]
STARTER = """
import signal, subprocess, sys, threading
from local.leash import Identity, leashed
command = leashed(sys.argv[1:], identity=Identity.OWN, death_signal=signal.SIGTERM)
print(subprocess.Popen(command).pid, flush=True)
threading.Event().wait()
"""


def test_it_dies_with_a_starter_that_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, *SLEEPER], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        sleeper = psutil.Process(int(starter.stdout.readline()))
        eventually(lambda: sleeper.cmdline() == SLEEPER)
        starter.kill()
        starter.wait()
    eventually(lambda: not psutil.pid_exists(sleeper.pid))


def test_it_does_not_begin_when_the_starter_is_gone() -> None:
    command = leashed(["/bin/echo", "began"], identity=Identity.OWN, death_signal=signal.SIGTERM)
    own_number = command.index(str(os.getpid()))
    command[own_number] = "1"
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode != 0
    assert "began" not in result.stdout
    assert "the starter is gone" in result.stderr


def identities() -> list[Identity]:
    """Only root has several."""
    return list(Identity) if os.geteuid() == 0 else [Identity.OWN]


@pytest.mark.parametrize("identity", identities())
def test_its_files_belong_to_the_user_of_its_identity(identity: Identity) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        file = Path(directory) / "file"
        command = leashed(
            ["/bin/sh", "-c", f"id -u && touch {file}"],
            identity=identity,
            death_signal=signal.SIGTERM,
        )
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        assert (file.stat().st_uid, file.stat().st_gid) == user_of(identity)
    assert (result.stdout.strip() == "0") == (identity is Identity.OWN and os.geteuid() == 0)


COLD_START = """
import os, sys
from pathlib import Path
from tests.services import OwnServices
assert os.geteuid() != 0
with OwnServices(Path(sys.argv[1])) as services:
    services.restart_postgres()
    services.restart_valkey()
    services.flush_redis()
    services.empty_database()
print("served")
"""


def can_be(identity: Identity) -> bool:
    """Tell whether the kernel grants *identity* and it can read this checkout."""
    command = [sys.executable, "-c", "import tests.services"]
    words = leashed(command, identity=identity, death_signal=signal.SIGTERM)
    return subprocess.run(words, check=False, capture_output=True, cwd=ROOT).returncode == 0


def ordinary_users() -> list[Identity]:
    if os.geteuid() != 0:
        return [Identity.OWN]
    return [identity for identity in (Identity.MAPPED, Identity.NOBODY) if can_be(identity)]


@pytest.mark.parametrize("identity", ordinary_users())
def test_an_ordinary_user_can_run_the_services(identity: Identity) -> None:
    with tempfile.TemporaryDirectory(prefix="fairq-home-") as home:
        os.chown(home, *user_of(identity))
        command = [sys.executable, "-c", COLD_START, home]
        result = subprocess.run(
            leashed(command, identity=identity, death_signal=signal.SIGTERM),
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
    assert result.stdout.strip() == "served", result.stderr
