"""Workers that are not Celery's, against real processes."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.services import Stack, eventually
from tests.system.client import Body, Client

CALLERS, PEOPLE, EACH = 50, 5, 200
ASKED: Body = {"worker": "w", "wait_seconds": 3, "lease_seconds": 3600}
SCAN: Body = {"type": "scan", "executor": "pull", "estimated_seconds": 3600}


def test_fifty_callers_take_a_thousand_jobs_each_once_and_in_fair_order(
    stack: Stack, admin: Client
) -> None:
    for number in range(PEOPLE):
        who = admin.make_user(f"u{number}")
        who.submit_batch([{**SCAN, "job_id": f"{number}-{n}"} for n in range(EACH)])
    eventually(lambda: knows_all(stack))  # or the last of them would begin behind the others

    def take_all(_: int) -> list[str]:
        taken: list[str] = []
        while True:
            answer = admin.call("POST", "/jobs/next", json=ASKED)
            if answer.status_code == 204:
                return taken
            assert answer.status_code == 200, answer.text
            taken.append(answer.json()["job_id"])

    with ThreadPoolExecutor(CALLERS) as pool:
        taken = [name for each in pool.map(take_all, range(CALLERS)) for name in each]

    assert Counter(taken).most_common(1)[0][1] == 1
    assert len(taken) == PEOPLE * EACH
    order = admitted(stack)
    assert sorted(order) == sorted(taken)
    so_far: Counter[str] = Counter({str(number): 0 for number in range(PEOPLE)})
    for name in order:
        so_far[name.partition("-")[0]] += 1
        assert max(so_far.values()) - min(so_far.values()) <= 1
    for number in range(PEOPLE):
        own = [int(name.partition("-")[2]) for name in order if name.startswith(f"{number}-")]
        assert own == sorted(own)


def knows_all(stack: Stack) -> bool:
    """Tell whether the leader has taken in everything that it was told."""
    with psycopg.connect(stack.database_url) as connection:
        return connection.execute("SELECT FROM feed LIMIT 1").fetchone() is None


def admitted(stack: Stack) -> list[str]:
    """Return the jobs in the order in which they were admitted."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "SELECT jobs.job_id FROM job_events JOIN jobs ON jobs.id = job_events.job_id"
            " WHERE verb = 'admit' ORDER BY seq"
        ).fetchall()
    return [name for (name,) in rows]
