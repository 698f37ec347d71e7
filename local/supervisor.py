"""Keeps programs running, and ends them in order.

A program that ends is started again after a pause that doubles with every failure up to a
limit. Until ``run`` is called a program that ends is a failure to start: nobody wants to watch
a wrong configuration being tried again and again.
"""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TextIO

from local.process import Process, Program, StartFailed

_LOOK = 0.1
"""Seconds between two looks at the processes."""

_NAME_WIDTH = 9


class StopAsked(Exception):
    """Somebody wants everything stopped."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a program that ended is started again."""

    first: timedelta = timedelta(milliseconds=500)
    longest: timedelta = timedelta(seconds=30)
    healthy_after: timedelta = timedelta(seconds=30)
    """A program that ran this long is forgiven its earlier failures."""

    def pause(self, failures: int) -> timedelta:
        """Return the pause after so many failures in a row: doubling, never above the limit."""
        # Beyond a few doublings the limit is reached, and larger powers overflow.
        doublings = min(failures - 1, 20)
        return min(self.longest, self.first * (1 << doublings))


class Log:
    """One readable log of many processes: every line begins with the name of its writer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def writer(self, name: str) -> Callable[[str], None]:
        """Return what takes the lines of *name*."""
        return lambda line: self.write(name, line)

    def write(self, name: str, line: str) -> None:
        """Print one line. When nobody reads any more, ask this process to stop."""
        with self._lock:
            try:
                print(f"{name:<{_NAME_WIDTH}} | {line}", file=self._stream, flush=True)
            except BrokenPipeError:
                # Later lines, and the interpreter's last flush, go nowhere instead of failing.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
                os.kill(os.getpid(), signal.SIGTERM)


@dataclass(slots=True)
class _Kept:
    """One program that is kept running."""

    program: Program
    process: Process
    started_at: float
    failures: int = 0
    due_at: float | None = None


class Supervisor:
    """Starts programs in order, keeps them running, stops them in reverse order."""

    def __init__(self, log: Log, backoff: Backoff | None = None) -> None:
        self._log = log
        self._backoff = backoff or Backoff()
        self._kept: list[_Kept] = []
        self._steps: list[Process] = []
        # A queue a signal handler may put to; an Event's lock could be held when the signal comes.
        self._asked: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
        self._is_stopping = False

    def listen(self) -> None:
        """Take Ctrl-C, SIGTERM and a closed terminal as the wish to stop; the second one kills."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        # Under nohup the terminal may close.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_signal)

    def start(self, program: Program) -> None:
        """Start *program* and keep it running."""
        process = Process(program, self._log.writer(program.name))
        self._kept.append(_Kept(program, process, started_at=time.monotonic()))

    def wait_until(self, condition: Callable[[], bool], *, what: str, within: timedelta) -> None:
        """Wait for *condition*.

        Raises StartFailed if a program ends or the time is up, StopAsked if that is asked for.
        """
        deadline = time.monotonic() + within.total_seconds()
        while not condition():
            self._check_started()
            if time.monotonic() > deadline:
                raise StartFailed(f"{what} was not ready within {within.total_seconds():.0f} s")
            self._pause()

    def complete(self, *programs: Program) -> list[list[str]]:
        """Run programs that end by themselves, side by side. Return the lines of each.

        Raises StartFailed if one fails, StopAsked if that is asked for.
        """
        outputs = [self._step(program) for program in programs]
        while any(process.exit_code() is None for process in self._steps):
            self._check_started()
            self._pause()
        failed = [step.program.name for step in self._steps if step.kill() != 0]
        self._steps.clear()
        if failed:
            raise StartFailed(f"{' and '.join(failed)} failed; the lines above say why")
        return outputs

    def run(self) -> None:
        """Keep everything running until somebody asks to stop."""
        while True:
            self.turn(time.monotonic())
            try:
                self._pause()
            except StopAsked:
                return

    def turn(self, now: float) -> None:
        """Look at every program once and start those whose pause is over."""
        for kept in self._kept:
            if kept.due_at is None:
                self._notice_end(kept, now)
            elif now >= kept.due_at:
                self._start_again(kept, now)

    def stop(self) -> None:
        """End everything, last started first; asked once more meanwhile, kill it."""
        self._is_stopping = True
        for process in reversed(self._processes()):
            if process.exit_code() is None:
                self._log.write("fairq", f"stopping {process.program.name}")
            process.stop()

    def _processes(self) -> list[Process]:
        return [kept.process for kept in self._kept] + self._steps

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._is_stopping:
            for process in self._processes():
                process.kill_group()
        self._is_stopping = True
        self._asked.put(signal.Signals(number))

    def _pause(self) -> None:
        try:
            asked_by = self._asked.get(timeout=_LOOK)
        except queue.Empty:
            return
        self._log.write("fairq", f"stopping everything ({asked_by.name}); once more to kill")
        raise StopAsked

    def _step(self, program: Program) -> list[str]:
        lines: list[str] = []
        write = self._log.writer(program.name)

        def keep(line: str) -> None:
            lines.append(line)
            write(line)

        self._steps.append(Process(program, keep))
        return lines

    def _check_started(self) -> None:
        for kept in self._kept:
            code = kept.process.exit_code()
            if code is not None:
                name = kept.program.name
                raise StartFailed(f"{name} ended {_how(code)}; the lines above say why")

    def _notice_end(self, kept: _Kept, now: float) -> None:
        code = kept.process.exit_code()
        if code is None:
            return
        if now - kept.started_at > self._backoff.healthy_after.total_seconds():
            kept.failures = 0
        self._schedule(kept, f"ended {_how(code)}", now)

    def _schedule(self, kept: _Kept, what: str, now: float) -> None:
        kept.failures += 1
        pause = self._backoff.pause(kept.failures).total_seconds()
        kept.due_at = now + pause
        self._log.write("fairq", f"{kept.program.name} {what}; starting it in {pause:g} s")

    def _start_again(self, kept: _Kept, now: float) -> None:
        try:
            kept.process = Process(kept.program, self._log.writer(kept.program.name))
        except (StartFailed, OSError) as problem:
            self._schedule(kept, f"did not start: {problem}", now)
            return
        kept.started_at, kept.due_at = now, None


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}"
