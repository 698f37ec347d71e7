"""Ends a service that an earlier launcher left running in the same directory.

The caller holds the lock on the installation, so a service found there has lost its launcher.
"""

import signal
from datetime import timedelta
from pathlib import Path

import psutil

_PATIENCE = timedelta(seconds=15)


def end_leftover(pid_file: Path, *, directory: Path, stop_signal: signal.Signals) -> None:
    """Stop the process named in *pid_file* if it works in *directory*, and wait for its end.

    A number that meanwhile belongs to another process is forgotten, because the service
    would take that process for itself and refuse to start.
    """
    process = _named_in(pid_file)
    if process is None:
        return
    if not _works_in(process, directory):
        pid_file.unlink(missing_ok=True)
        return
    process.send_signal(stop_signal)
    _wait(process)


def _named_in(pid_file: Path) -> psutil.Process | None:
    if not pid_file.exists():
        return None
    first_line = pid_file.read_text().partition("\n")[0].strip()
    if not first_line.isdecimal() or not psutil.pid_exists(int(first_line)):
        return None
    return psutil.Process(int(first_line))


def _works_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return Path(process.cwd()) == directory.resolve()
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


def _wait(process: psutil.Process) -> None:
    try:
        process.wait(_PATIENCE.total_seconds())
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_PATIENCE.total_seconds())
