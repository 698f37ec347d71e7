"""Who submits, how much and what; and what they were answered, written down as it comes.

Orders are a pure function of the seed. Each job has a name of its own, so that one whose answer got
lost is asked for again and must be answered as the same job.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from random import Random
from typing import Any

import httpx

from scheduler.states import JobClass
from tests.chaos.errand import TYPE

OWNERS = ("ada", "ben", "cleo", "dan")
_SENDERS = 12
_PATIENCE = httpx.Timeout(6.0, connect=2.0)
_CONNECTIONS = httpx.Limits(max_connections=_SENDERS)
_PAUSE_SECONDS = 0.25
_AWAY = {502, 503, 504}
_BATCH = 4
_REACH = 40  # how far back a job may name another one
_MOST_DRAWS = 2**32

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """One request: at a time after the beginning, by an owner; *needs* were accepted before."""

    at: float
    owner: str
    jobs: tuple[Body, ...] = ()
    cancels: str | None = None
    needs: tuple[str, ...] = ()


def orders(seed: int, seconds: float, rate: float) -> Iterator[Order]:
    """Make up the orders of a run: *rate* jobs a second, in classes, sizes and shapes by chance."""
    chance = Random(f"orders {seed}")  # noqa: S311 - makes work, hides nothing
    names: dict[str, list[str]] = {owner: [] for owner in OWNERS}
    now, number = 0.0, 0
    while now < seconds:
        owner = chance.choice(OWNERS)
        known, shape = names[owner][-_REACH:], chance.random()
        count = _BATCH if shape < 0.05 else 1
        own = [f"{seed}-{number + place}" for place in range(count)]
        if known and shape > 0.96:
            yield Order(now, owner, cancels=chance.choice(known), needs=())
            continue
        jobs = tuple(_job(chance, name) for name in own)
        needs = tuple(chance.sample(known, 1)) if known and 0.05 <= shape < 0.15 else ()
        yield Order(now, owner, _linked(jobs, needs), needs=needs)
        names[owner] += own
        number += count
        now += count * chance.expovariate(rate)


def _linked(jobs: Sequence[Body], needs: Sequence[str]) -> tuple[Body, ...]:
    """Let the first wait for *needs*, and each of the others for the first."""
    first, *others = jobs
    wanted = [{"job_id": name, "when": "finished"} for name in needs]
    return (
        {**first, "depends_on": wanted} if wanted else first,
        *({**job, "depends_on": [first["job_id"]]} for job in others),
    )


def _job(chance: Random, name: str) -> Body:
    payload: Body = {"duration_seconds": _duration(chance), "records": chance.random() < 0.8}
    job: Body = {"job_id": name, "type": TYPE, "payload": payload}
    job["priority"] = chance.choice(list(map(str, JobClass)))
    draw = chance.random()
    if draw < 0.06:
        payload["fail_attempts"] = chance.choice((1, 1, 2))
    elif draw < 0.08:
        payload["fail_attempts"] = 99
        job["retry_config"] = {"max_attempts": 2}
    elif draw < 0.11:
        job["delay_seconds"] = round(chance.uniform(0.5, 3), 2)
    elif draw < 0.16:
        job["resource_requirements"] = {"cpu_units": chance.choice((0.5, 2))}
    return job


def _duration(chance: Random) -> float:
    longest = chance.choices((0.0, 0.3, 1.2, 4.0), weights=(35, 50, 12, 3))[0]
    return round(chance.uniform(longest / 6, longest), 3)


@dataclass
class Answers:
    """What was answered. Written to a file as it comes; safe between threads."""

    path: Path
    accepted: set[tuple[str, str]] = field(default_factory=set)
    cancelled: set[tuple[str, str]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, order: Order, answer: httpx.Response) -> None:
        """Keep what was promised with a 2xx."""
        names = [job["job_id"] for job in order.jobs] or [order.cancels]
        line = {"owner": order.owner, "status": answer.status_code, "jobs": names}
        with self._lock:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            kept = self.cancelled if order.cancels else self.accepted
            kept |= {(order.owner, str(name)) for name in names}

    def refuse(self, order: Order, answer: httpx.Response) -> None:
        """Keep an answer that nobody should have got."""
        asked = order.cancels or [job["job_id"] for job in order.jobs]
        with self._lock:
            self.wrong.append(f"{asked} of {order.owner}: {answer.status_code} {answer.text[:500]}")

    def count(self, what: str) -> None:
        with self._lock:
            self.statuses[what] += 1

    def has(self, owner: str, names: Sequence[str]) -> bool:
        with self._lock:
            return all((owner, name) in self.accepted for name in names)


class Load:
    """Sends orders, each until it is answered."""

    def __init__(self, url: str, tokens: Mapping[str, str], answers: Answers) -> None:
        self.tokens = tokens
        self._answers = answers
        # Of several threads that take from a SimpleQueue, one may wait for ever past its timeout.
        self._waiting: Queue[Order] = Queue()
        self._no_more = threading.Event()
        self._given_up = threading.Event()
        self._client = httpx.Client(base_url=url, timeout=_PATIENCE, limits=_CONNECTIONS)
        self._threads = [
            threading.Thread(target=self._send_all, daemon=True) for _ in range(_SENDERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def play(self, planned: Iterator[Order], stop: threading.Event) -> None:
        """Hand out orders at their times. Returns when the last one has been."""
        began = time.monotonic()
        for order in planned:
            if stop.wait(max(0.0, began + order.at - time.monotonic())):
                return
            self.put(order)

    def put(self, order: Order) -> None:
        self._waiting.put(order)

    def finish(self, patience: float) -> bool:
        """Send what is left; False if some of it was not answered in time."""
        self._no_more.set()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        answered = not any(thread.is_alive() for thread in self._threads)
        self._given_up.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        return answered

    def _send_all(self) -> None:
        while not self._given_up.is_set():
            try:
                self._send(self._waiting.get(timeout=_PAUSE_SECONDS))
            except Empty:
                if self._no_more.is_set():
                    return

    def _send(self, order: Order) -> None:
        """Ask until there is an answer that says more than to try again."""
        while not self._given_up.is_set():
            needs = (*order.needs, *([order.cancels] if order.cancels else []))
            if self._answers.has(order.owner, needs) and self._is_answered(order):
                return
            self._given_up.wait(_PAUSE_SECONDS)

    def _is_answered(self, order: Order) -> bool:
        try:
            answer = self._ask(order)
        except httpx.TransportError as problem:
            self._answers.count(type(problem).__name__)
            return False
        self._answers.count(str(answer.status_code))
        if answer.status_code in _AWAY:
            return False
        if answer.is_success:
            self._answers.take(order, answer)
        elif not (order.cancels and answer.status_code == httpx.codes.CONFLICT):  # had ended
            self._answers.refuse(order, answer)
        return True

    def _ask(self, order: Order) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[order.owner]}"}
        if order.cancels:
            return self._client.patch(f"/jobs/{order.cancels}/cancel", headers=headers)
        if len(order.jobs) == 1:
            return self._client.post("/jobs", json=order.jobs[0], headers=headers)
        return self._client.post("/jobs/batch", json={"jobs": order.jobs}, headers=headers)
