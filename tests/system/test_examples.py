"""The programs in ``examples/`` do what they say, with real workers."""

import subprocess
from collections.abc import Mapping

from local.programs import ROOT
from tests.services import Stack, clean_environment
from tests.system.client import Client


def run(name: str, environment: Mapping[str, str]) -> str:
    """Run an example to its end and return what it says; fail if it fails."""
    ended = subprocess.run(
        [str(ROOT / "examples" / name)],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


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
