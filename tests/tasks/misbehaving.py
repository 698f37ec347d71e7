"""Plain Celery tasks that no worker likes, for the tests of real ones."""

import ctypes
import gc
import os
import signal
import stat
import sys
import time
from contextlib import suppress
from typing import Any, Never

import psycopg

from tasks.app import app


@app.task(name="odd.add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="odd.sleep_in_one_call")
def sleep_in_one_call() -> None:
    time.sleep(600)  # noqa: TID251 - one call in C, which is the point


@app.task(name="odd.loop_in_python")
def loop_in_python() -> None:
    while True:
        pass


@app.task(name="odd.loop_in_c")
def loop_in_c() -> int:
    return sum(range(10**12))


@app.task(name="odd.swallow_the_limit")
def swallow_the_limit() -> None:
    while True:
        try:
            loop_in_python()
        except BaseException:  # noqa: BLE001, S112 - a task that does not hear
            continue


# Poison


@app.task(name="odd.vanish")
def vanish() -> None:
    os._exit(7)


@app.task(name="odd.kill_itself")
def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="odd.segfault")
def segfault() -> None:
    ctypes.string_at(0)


@app.task(name="odd.run_out_of_memory")
def run_out_of_memory() -> None:
    held = []
    while True:
        held.append(bytearray(50 * 2**20))


@app.task(name="odd.ask_for_10_gb")
def ask_for_10_gb() -> int:
    return len(bytearray(10 * 2**30))


@app.task(name="odd.close_connections")
def close_connections() -> None:
    for each in gc.get_objects():
        if isinstance(each, psycopg.Connection):
            each.close()
    raise ValueError("closed every connection")


@app.task(name="odd.close_sockets")
def close_sockets() -> None:
    for number in range(3, 256):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.close(number)
    raise ValueError("closed every socket")


@app.task(name="odd.exit")
def leave() -> None:
    sys.exit("enough")


class Odd(BaseException):
    """Something that no handler of exceptions expects."""


@app.task(name="odd.raise_base_exception")
def raise_base_exception() -> None:
    raise Odd("not an exception")


class Unpicklable(Exception):
    """An error that cannot be sent anywhere, and does not even tell what it is."""

    def __init__(self, one: object, _other: object) -> None:
        super().__init__(one)
        self.inside = lambda: None

    def __reduce__(self) -> Never:
        raise TypeError("not to be pickled")

    def __str__(self) -> str:
        raise RuntimeError("not to be told")


@app.task(name="odd.raise_unpicklable")
def raise_unpicklable() -> None:
    raise Unpicklable(object(), object())


@app.task(name="odd.raise_huge")
def raise_huge() -> None:
    raise ValueError("x" * 50 * 2**20)


@app.task(name="odd.return_unpicklable")
def return_unpicklable() -> Any:
    return lambda: None


@app.task(name="odd.return_huge")
def return_huge() -> str:
    return "x" * 20 * 2**20
