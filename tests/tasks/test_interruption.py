"""With real signals in this very thread, so the clock of the tests is kept by another one."""

import os
import signal
import threading
import time
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from tasks.context import Cancelled
from tasks.interruption import Interruptible

pytestmark = pytest.mark.timeout(60, method="thread")

LONG = timedelta(seconds=30)
SHORT = timedelta(seconds=0.05)


def spin() -> None:
    while True:
        pass


def ask_soon(block: Interruptible) -> None:
    threading.Timer(0.05, block.ask, [Cancelled()]).start()


def test_a_block_of_python_is_interrupted() -> None:
    block = Interruptible(LONG)
    ask_soon(block)

    with pytest.raises(Cancelled), block:
        spin()


def test_a_block_that_is_given_time_ends_after_that() -> None:
    block = Interruptible(SHORT)

    def ask_and_spin() -> None:
        block.allow(0.4)
        assert 0.2 < block.left() <= 0.4
        spin()

    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded) as told, block:
        ask_and_spin()

    assert time.monotonic() - began >= 0.4
    assert told.value.args[0] == pytest.approx(0.4, abs=0.1)


def test_a_sleep_in_one_call_is_interrupted() -> None:
    block = Interruptible(LONG)
    ask_soon(block)
    began = time.monotonic()

    with pytest.raises(Cancelled), block:
        time.sleep(20)  # noqa: TID251 - what is tested is that it ends

    assert time.monotonic() - began < 5


def test_a_wait_for_a_lock_is_interrupted() -> None:
    block = Interruptible(LONG)
    ask_soon(block)

    with pytest.raises(Cancelled), block:
        threading.Event().wait(20)


def test_a_block_ends_after_its_time() -> None:
    with pytest.raises(SoftTimeLimitExceeded), Interruptible(SHORT):
        threading.Event().wait(20)


def test_nothing_is_raised_once_the_block_is_over() -> None:
    block = Interruptible(SHORT)
    with block:
        pass

    block.ask(Cancelled())
    threading.Event().wait(0.1)


def test_a_late_signal_does_not_hit_the_next_block() -> None:
    first, second = Interruptible(LONG), Interruptible(LONG)
    with first:
        pass
    with second:
        first.ask(Cancelled())
        signal.raise_signal(signal.SIGUSR2)


def test_the_parents_soft_limit_is_ignored() -> None:
    with Interruptible(LONG):
        os.kill(os.getpid(), signal.SIGUSR1)


def test_only_one_exception_is_raised_into_a_block() -> None:
    block = Interruptible(SHORT)

    def wait_and_be_asked_meanwhile() -> None:
        try:
            threading.Event().wait(20)
        finally:
            block.ask(Cancelled())
            signal.raise_signal(signal.SIGUSR2)

    with pytest.raises(SoftTimeLimitExceeded), block:
        wait_and_be_asked_meanwhile()


def test_the_clock_of_a_block_ends_with_it() -> None:
    with Interruptible(LONG):
        pass

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
