"""Plain Celery tasks that no worker likes, for the tests of real ones."""

import os
import time

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


@app.task(name="odd.vanish")
def vanish() -> None:
    os._exit(7)
