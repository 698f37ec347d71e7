"""Letting a Celery worker follow what operators want of it."""

import logging
from typing import Any

from scheduler.store.fleet import Wishes

log = logging.getLogger(__name__)


def steer(worker: Any, wishes: Wishes) -> None:
    """Take work or none, with as many processes as are wanted at most.

    For the worker's event loop, which must not end by it. A process that runs a job is left
    alone, so fewer may take more than one call.
    """
    try:
        _take_work(worker, wishes)
        _resize(worker, wishes.processes)
    except Exception:
        log.exception("the worker was not steered")


def _take_work(worker: Any, wishes: Wishes) -> None:
    if worker.consumer.takes_work == wishes.draining:
        worker.consumer.takes_work = not wishes.draining
        log.info("drain" if wishes.draining else "take work")


def _resize(worker: Any, most: int) -> None:
    scaler = worker.autoscaler
    if scaler is None or (scaler.max_concurrency == most and scaler.processes <= most):
        return
    worker.max_concurrency = most  # also the bound of the messages that are held at a time
    scaler.update(max=most)
