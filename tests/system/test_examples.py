"""The programs in ``examples/`` do what they say, with real workers."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

from local.programs import ROOT
from tests.services import Stack, clean_environment
from tests.system.client import Client, at

PROJECT = ROOT / "examples" / "celery_project"


def run(name: str, environment: Mapping[str, str]) -> str:
    """Run an example to its end and return what it says; fail if it fails."""
    ended = attempt([str(ROOT / "examples" / name)], environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def attempt(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_workflow_is_submitted_followed_and_worked_on_with_curl(
    stack: Stack, admin: Client
) -> None:
    stack.start_worker()
    person = admin.make_user("ann")

    said = run("workflow.sh", {"FAIRQ_URL": stack.url, "FAIRQ_TOKEN": person.token})

    (label,) = [job for job in person.get("/jobs")["jobs"] if job["type"] == "label-by-hand"]
    assert (label["status"], label["result"]) == ("completed", {"label": "cat"})
    assert label["worker"] == "by-hand"
    lines = said.splitlines()
    assert f"  {label['job_id']} is running" in lines
    assert lines[-1].endswith("is completed")
    logged = person.get(f"/jobs/{label['job_id']}/logs")["logs"]
    assert [line["message"] for line in logged] == ["this is a cat"]


def test_a_celery_project_keeps_its_tasks_and_submits_them_in_its_own_transactions(
    stack: Stack, admin: Client
) -> None:
    shop = admin.make_user("shop")
    environment = {
        "SHOP_DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.environment["REDIS_URL"],
        "PYTHONPATH": f"{ROOT}:{PROJECT}",
    }
    stack.start_worker(FAIRQ_CELERY_APP="shop.celery", **environment)
    command = [sys.executable, str(PROJECT / "place_order.py")]

    placed = attempt([*command, "piano", "900"], environment)
    refused = attempt([*command, "lamp", "-1"], environment)

    assert placed.stdout == "order 1 is taken\n", placed.stderr
    assert "nobody is paid for buying" in refused.stderr
    done = shop.wait_for_all(shop.get("/jobs")["jobs"])
    assert {job["type"]: (job["status"], job["result"]) for job in done.values()} == {
        "shop.tasks.charge": ("completed", {"charged": 900}),
        "shop.tasks.pack": ("completed", {"packed": "piano"}),
        "shop.tasks.send_receipt": ("completed", "receipt of order 1"),
    }
    charge, pack = done["order-1-charge"], done["order-1-pack"]
    assert at(charge, "finished_at") <= at(pack, "started_at")
    assert (charge["priority"], charge["owner"]) == ("high", "shop")

    again = shop.submit("shop.tasks.charge", payload={"order_id": 1}, depends_on=[pack["job_id"]])
    assert shop.wait_for(again["job_id"], "completed")["result"] == {"charged": 900}
