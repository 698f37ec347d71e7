"""Many jobs at a time, against real processes."""

from tests.services import Stack
from tests.system.client import Client

MANY = 500


def test_all_that_match_are_cancelled_in_the_background_and_others_run(
    stack: Stack, admin: Client
) -> None:
    ann, bob = admin.make_user("ann"), admin.make_user("bob")
    later = {"type": "simulate", "delay_seconds": 3600}
    ann.submit_batch([{**later, "job_id": f"old-{n}", "tags": ["old"]} for n in range(MANY)])
    ann.submit(job_id="kept", delay_seconds=3600)
    bob.submit(job_id="his", delay_seconds=3600, tags=["old"])
    stack.start_worker()
    body = {"action": "cancel", "filter": {"tag": "old"}}
    ann.submit(job_id="first", payload={"duration_seconds": 0})
    ann.wait_for("first", "completed")

    counted = ann.call("POST", "/jobs/bulk", json={**body, "dry_run": True}).json()
    accepted = ann.call("POST", "/jobs/bulk", json=body)

    assert (counted["count"], counted["job_id"]) == (MANY, None)
    assert accepted.status_code == 202, accepted.text
    ended = ann.wait_for(accepted.json()["job_id"], "completed", "failed")
    assert ended["result"] == {"action": "cancel", "done": MANY, "skipped": {}}
    assert ended["progress"]["fraction"] == 1
    assert ann.job("old-499")["reason"] == "cancelled_by_user"
    assert (ann.job("kept")["status"], bob.job("his")["status"]) == ("scheduled", "scheduled")
