"""A program that cannot outlive its starter and, started by root, need not be root.

Run as a script it does the work between fork and exec: it takes the identity, asks the kernel
for a signal at its starter's death, and becomes the program. A script rather than a hook in the
forked child, because code between fork and exec deadlocks in a process that has threads.
Knows the standard library only: it runs before and outside any environment.
"""

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

_CLONE_NEWUSER = 0x1000_0000
_PR_SET_PDEATHSIG = 1
_MAPPED_ID = 1000
_NOBODY = "nobody"


class Identity(StrEnum):
    """As whom a program runs."""

    OWN = "own"  # the starter's
    MAPPED = "mapped"  # root outside, an ordinary user in its own eyes
    NOBODY = "nobody"


def leashed(
    command: Sequence[str], *, identity: Identity, death_signal: signal.Signals
) -> list[str]:
    """Return the command that runs *command* on a leash held by the calling process.

    Start it from a thread that lives as long as the program shall: where the kernel offers
    the leash, it is that thread's end that sends *death_signal*.
    """
    script = str(Path(__file__).resolve())
    leash = [identity.value, str(int(death_signal)), str(os.getpid())]
    return [sys.executable, "-I", "-S", script, *leash, *command]


def user_of(identity: Identity) -> tuple[int, int]:
    """Return the uid and gid that own a program's files, seen from outside."""
    if identity is Identity.NOBODY:
        nobody = pwd.getpwnam(_NOBODY)
        return nobody.pw_uid, nobody.pw_gid
    return os.geteuid(), os.getegid()


def _main(arguments: Sequence[str]) -> None:
    identity, death_signal, starter, *command = arguments
    _become(Identity(identity))
    # After the change of identity, which would take the leash off again.
    _tie(int(death_signal), starter=int(starter))
    os.execv(command[0], command)  # noqa: S606 - becoming the program is the purpose


def _become(identity: Identity) -> None:
    if identity is Identity.MAPPED:
        _map_root()
    elif identity is Identity.NOBODY:
        uid, gid = user_of(identity)
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _map_root() -> None:
    """Enter a user namespace in which root's files belong to an ordinary user, us."""
    if _libc().unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses a user namespace")
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{_MAPPED_ID} 0 1")
    (own / "gid_map").write_text(f"{_MAPPED_ID} 0 1")


def _tie(death_signal: int, *, starter: int) -> None:
    prctl = getattr(_libc(), "prctl", None)
    if prctl is None:
        return
    prctl(_PR_SET_PDEATHSIG, death_signal)
    # The starter may have died before the kernel was asked.
    if os.getppid() != starter:
        raise SystemExit("the starter is gone")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
