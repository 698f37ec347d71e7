"""One program and the process that runs it: start, output, end."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from local.leash import Identity, leashed

Write = Callable[[str], None]
"""Takes one line of a process's output, without its end."""

Step = tuple[signal.Signals, timedelta]
"""A signal that asks a process to end, and how long to wait for it."""

_LAST_WORDS = timedelta(seconds=2)
"""How long the output of an ended process is waited for; a grandchild may hold it open."""


class StartFailed(Exception):
    """Something could not be started; the message is for the person at the terminal."""


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, and how it is asked to end. After the last step of *stop* it is killed."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    stop: tuple[Step, ...] = ((signal.SIGTERM, timedelta(seconds=10)),)
    death_signal: signal.Signals = signal.SIGTERM
    identity: Identity = Identity.OWN
    prepare: Callable[[], None] = _nothing
    """Called before every start."""


class Process:
    """A program that was started. Its process group ends with it."""

    def __init__(self, program: Program, write: Write) -> None:
        """Start *program*; its output, errors included, goes to *write* line by line."""
        program.prepare()
        self.program = program
        self._popen = subprocess.Popen(
            leashed(program.command, identity=program.identity, death_signal=program.death_signal),
            cwd=program.directory,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A Ctrl-C at the terminal reaches the launcher alone, which ends its programs in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(write,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """Return how the process ended, or None while it runs; negative is a signal."""
        code = self._popen.poll()
        if code is not None:
            self.kill_group()
        return code

    def stop(self) -> int:
        """Ask the process to end, step by step, then kill it. Return its exit code."""
        for asked_by, patience in self.program.stop:
            if self._ended_after(asked_by, patience):
                break
        return self.kill()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, unless it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> int:
        """End the process and its whole group at once. Return its exit code."""
        self.kill_group()
        code = self._popen.wait()
        self._reader.join(timeout=_LAST_WORDS.total_seconds())
        return code

    def kill_group(self) -> None:
        """End whatever is left of the process and its children, without waiting."""
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody is left in it, which is what was wanted

    def _ended_after(self, asked_by: signal.Signals, patience: timedelta) -> bool:
        self._popen.send_signal(asked_by)
        try:
            self._popen.wait(patience.total_seconds())
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read(self, write: Write) -> None:
        output = self._popen.stdout
        if output is None:
            raise StartFailed(f"{self.program.name} has no output to read")
        with output:
            for line in output:
                write(line.decode(errors="replace").rstrip())
