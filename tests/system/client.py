"""Talking to a running Fairq the way a script does."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import httpx

from tests.services import ADMIN, Stack, eventually

FINISHED = {"completed", "failed", "cancelled"}
PASSWORD = "a-password-for-tests"

_LOOK_SECONDS = 0.1  # asking in one go would take a whole processor from what is looked at

Body = dict[str, Any]


class Client:
    """One user's scripts: a token of their own, JSON in and out."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.username = username
        self._http = httpx.Client(base_url=url, timeout=30)
        made = self._http.post(
            "/tokens",
            json={"name": "tests", "scopes": ["read", "submit", "work", "admin"]},
            auth=(username, password),
        )
        assert made.status_code == 201, made.text
        self.token: str = made.json()["token"]
        self._http.headers["Authorization"] = f"Bearer {self.token}"
        self._made: list[Client] = []

    @classmethod
    def admin(cls, stack: Stack) -> "Client":
        return cls(stack.url, *ADMIN)

    def close(self) -> None:
        """Close the connections of this client and of those it made."""
        for client in self._made:
            client.close()
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._http.request(method, path, **options)

    def get(self, path: str, **params: Any) -> Any:
        answer = self.call("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def make_user(self, username: str, **fields: Any) -> "Client":
        """Make an account with these fields and return its scripts."""
        body = {"username": username, "password": PASSWORD, "role": "user", **fields}
        answer = self.call("POST", "/users", json=body)
        assert answer.status_code == 201, answer.text
        self._made.append(Client(str(self._http.base_url), username, PASSWORD))
        return self._made[-1]

    def submit(self, type_: str = "simulate", **fields: Any) -> Body:
        answer = self.call("POST", "/jobs", json={"type": type_, **fields})
        assert answer.status_code in {200, 201}, answer.text
        return dict(answer.json())

    def submit_batch(self, jobs: Iterable[Mapping[str, Any]]) -> list[Body]:
        answer = self.call("POST", "/jobs/batch", json={"jobs": list(jobs)})
        assert answer.status_code == 201, answer.text
        return list(answer.json()["jobs"])

    def job(self, job_id: str, **params: Any) -> Body:
        return dict(self.get(f"/jobs/{job_id}", **params))

    def wait_for(self, job_id: str, *statuses: str, within: float = 30, **params: Any) -> Body:
        """Return the job as soon as it is in one of *statuses*."""
        seen: Body = {}

        def arrived() -> bool:
            seen.update(self.job(job_id, **params))
            return seen["status"] in statuses

        eventually(
            arrived,
            within=within,
            every=_LOOK_SECONDS,
            saying=lambda: f"{seen} is not in {statuses}",
        )
        return seen

    def wait_for_all(
        self, jobs: Iterable[Mapping[str, Any]], *, within: float = 60
    ) -> dict[str, Body]:
        """Return the jobs by id as soon as all of them have finished."""
        return {
            job["job_id"]: self.wait_for(
                job["job_id"], *FINISHED, within=within, owner=job["owner"]
            )
            for job in jobs
        }


def at(job: Mapping[str, Any], field: str) -> datetime:
    """Return an instant of an answered job."""
    return datetime.fromisoformat(job[field])


def started_order(jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return job ids in the order in which they started."""
    return [job["job_id"] for job in sorted(jobs, key=lambda job: at(job, "started_at"))]


def overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two finished jobs ran at the same time."""
    return at(one, "started_at") < at(other, "finished_at") and at(other, "started_at") < at(
        one, "finished_at"
    )
