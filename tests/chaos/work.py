"""Registers the job of the chaos suite; workers load this with ``-I tests.chaos.work``."""

from tasks.catalogue import job_type
from tests.chaos.errand import TYPE, Errand, errand

_AGAIN_SOON = {
    "strategy": "fixed",
    "base_delay_seconds": 0.1,
    "jitter": False,
    "max_attempts": 20,
}

job_type(
    TYPE,
    payload=Errand,
    description="Takes time, fails as told, records that it was done.",
    timeout_seconds=60,
    retry_config=_AGAIN_SOON,
)(errand)
