import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from local.process import Process, Program, StartFailed, Step
from local.programs import ROOT, inherited_environment
from local.supervisor import Backoff, Log, Supervisor
from tests.services import eventually

FOR_EVER = "import threading; print('up', flush=True); threading.Event().wait()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + FOR_EVER
WITH_CHILD = (
    "import subprocess, sys;"
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]);"
    "print(child.pid, flush=True); child.wait()"
)
SOON = timedelta(seconds=20)


def python(code: str, name: str = "child", *stop: Step) -> Program:
    return Program(
        name=name,
        command=(sys.executable, "-c", code),
        environment=inherited_environment(),
        directory=ROOT,
        stop=stop or ((signal.SIGTERM, SOON),),
    )


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(output: io.StringIO) -> Iterator[Supervisor]:
    supervisor = Supervisor(Log(output))
    yield supervisor
    supervisor.stop()


def running(supervisor: Supervisor) -> list[Process]:
    return [kept.process for kept in supervisor._kept]


def ended(supervisor: Supervisor) -> bool:
    return running(supervisor)[0].exit_code() is not None


def test_the_pause_doubles_up_to_a_limit() -> None:
    backoff = Backoff(first=timedelta(seconds=1), longest=timedelta(seconds=5))
    assert [backoff.pause(n).total_seconds() for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]
    assert backoff.pause(10_000).total_seconds() == 5


def test_every_line_begins_with_the_name_of_its_writer(
    supervisor: Supervisor, output: io.StringIO
) -> None:
    supervisor.start(python("print('one'); print('two')", "web"))
    eventually(lambda: ended(supervisor))
    supervisor.stop()
    assert output.getvalue().splitlines()[:2] == ["web       | one", "web       | two"]


def test_errors_are_in_the_log_too(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python("import sys; sys.exit('no such thing')", "web"))
    eventually(lambda: "web       | no such thing" in output.getvalue())


def test_a_program_that_ends_is_started_again_after_its_pause(
    supervisor: Supervisor, output: io.StringIO
) -> None:
    supervisor.start(python("raise SystemExit(3)", "web"))
    first = running(supervisor)[0]
    eventually(lambda: ended(supervisor))
    supervisor.turn(100.0)
    assert "web ended with exit code 3; starting it in 0.5 s" in output.getvalue()
    supervisor.turn(100.4)
    assert running(supervisor) == [first]
    supervisor.turn(100.5)
    assert running(supervisor) != [first]


def test_each_failure_in_a_row_doubles_the_pause(
    supervisor: Supervisor, output: io.StringIO
) -> None:
    supervisor.start(python("raise SystemExit(3)"))
    for now in (1.0, 2.0, 4.0):
        eventually(lambda: ended(supervisor))
        supervisor.turn(now)
        supervisor.turn(now + 10)
    pauses = [line.rsplit(" in ")[-1] for line in output.getvalue().splitlines()]
    assert pauses == ["0.5 s", "1 s", "2 s"]


def test_a_program_that_ran_well_is_forgiven(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python("raise SystemExit(3)"))
    for now in (1.0, 1_000.0):
        eventually(lambda: ended(supervisor))
        supervisor.turn(now)
        supervisor.turn(now + 10)
    assert output.getvalue().count("in 0.5 s") == 2


def test_a_program_that_cannot_be_prepared_is_tried_again(
    supervisor: Supervisor, output: io.StringIO
) -> None:
    obstacles = [False, True, False]

    def prepare() -> None:
        if obstacles.pop(0):
            raise StartFailed("in the way")

    program = python("pass")
    supervisor.start(
        Program(
            name="web",
            command=program.command,
            environment=program.environment,
            directory=ROOT,
            prepare=prepare,
        )
    )
    eventually(lambda: ended(supervisor))
    supervisor.turn(1.0)
    supervisor.turn(2.0)
    assert "web did not start: in the way; starting it in 1 s" in output.getvalue()
    supervisor.turn(3.0)
    assert obstacles == []


def test_before_everything_is_up_an_end_is_a_failure(supervisor: Supervisor) -> None:
    supervisor.start(python("raise SystemExit(3)", "web"))
    with pytest.raises(StartFailed, match="web ended with exit code 3"):
        supervisor.wait_until(lambda: False, what="nothing", within=SOON)


def test_waiting_has_an_end(supervisor: Supervisor) -> None:
    with pytest.raises(StartFailed, match="the moon was not ready within 0 s"):
        supervisor.wait_until(lambda: False, what="the moon", within=timedelta(0))


def test_steps_run_side_by_side_and_give_their_lines(
    supervisor: Supervisor, output: io.StringIO, tmp_path: Path
) -> None:
    # Each waits for the other's file, so one after the other they would never end.
    meet = (
        "import pathlib, sys, threading; a, b = map(pathlib.Path, sys.argv[1:]); a.touch()\n"
        "while not b.exists(): threading.Event().wait(0.01)\n"
        "print('met', a.name)"
    )
    files = [str(tmp_path / "one"), str(tmp_path / "two")]
    steps = [python(meet, name) for name in ("first", "second")]
    met = [
        Program(
            name=step.name,
            command=(*step.command, *pair),
            environment=step.environment,
            directory=ROOT,
        )
        for step, pair in zip(steps, (files, files[::-1]), strict=True)
    ]
    assert supervisor.complete(*met) == [["met one"], ["met two"]]
    assert "first     | met one" in output.getvalue()


def test_a_step_that_fails_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(StartFailed, match="migrate failed"):
        supervisor.complete(python("pass", "good"), python("raise SystemExit(1)", "migrate"))


def test_the_last_started_is_stopped_first(supervisor: Supervisor, output: io.StringIO) -> None:
    for name in ("one", "two", "three"):
        supervisor.start(python(FOR_EVER, name))
    eventually(lambda: output.getvalue().count("up") == 3)
    supervisor.stop()
    stops = [line for line in output.getvalue().splitlines() if "stopping" in line]
    assert [line.split()[-1] for line in stops] == ["three", "two", "one"]
    assert [process.exit_code() for process in running(supervisor)] == [-signal.SIGTERM] * 3


def test_what_does_not_want_to_end_is_killed(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python(STUBBORN, "web", (signal.SIGTERM, timedelta(seconds=0.2))))
    eventually(lambda: "up" in output.getvalue())
    supervisor.stop()
    assert running(supervisor)[0].exit_code() == -signal.SIGKILL


def test_children_end_with_their_program(supervisor: Supervisor, output: io.StringIO) -> None:
    supervisor.start(python(WITH_CHILD, "worker"))
    eventually(lambda: "up" in output.getvalue())
    child = int(output.getvalue().split("|")[1].split()[0])
    assert psutil.pid_exists(child)
    supervisor.stop()
    eventually(lambda: not psutil.pid_exists(child))


SUPERVISOR = """
import signal, sys
from datetime import timedelta
from tests.local.test_supervisor import STUBBORN, python
from local.supervisor import Log, StopAsked, Supervisor
supervisor = Supervisor(Log(sys.stdout))
supervisor.listen()
supervisor.start(python(STUBBORN, "web", (signal.SIGTERM, timedelta(seconds=60))))
try:
    supervisor.run()
finally:
    supervisor.stop()
"""


@contextmanager
def supervising(program: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    command = [*before, sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    assert any(words in line for line in iter(process.stdout.readline, ""))


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_kills_what_takes_its_time(first: signal.Signals) -> None:
    # The tests themselves may run under nohup.
    with supervising(SUPERVISOR, "env", "--default-signal=HUP") as process:
        wait_for(process, "up")
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(first)
        wait_for(process, "stopping web")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert not any(child.is_running() for child in children)


def test_under_nohup_the_terminal_may_close() -> None:
    with supervising(SUPERVISOR, "nohup") as process:
        wait_for(process, "up")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        wait_for(process, "stopping everything (SIGTERM)")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_when_nobody_reads_the_log_any_more_everything_stops() -> None:
    """As in ``bin/up | head``."""
    with supervising(SUPERVISOR.replace("STUBBORN", "CHATTERBOX")) as process:
        wait_for(process, "again")
        children = psutil.Process(process.pid).children(recursive=True)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=20) == 0
    assert not any(child.is_running() for child in children)


CHATTERBOX = (
    "import threading\nwhile True: print('again', flush=True); threading.Event().wait(0.01)"
)
