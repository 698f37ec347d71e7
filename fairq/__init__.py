"""Client of a Fairq server: submit jobs, follow them, work on them.

::

    from fairq import Client

    with Client("https://fairq.example.org", token) as client:
        job = client.submit("simulate", {"duration_seconds": 2, "result": 42})
        print(client.wait(job).result)
"""

from fairq.aio import AsyncClient
from fairq.client import Client
from fairq.context import Cancelled, Context, DoNotRetry
from fairq.errors import (
    AddressInvalid,
    CycleFound,
    FairqError,
    NoAnswer,
    NotFinished,
    NotSignedIn,
    Refused,
)
from fairq.models import Change, DeadLetter, Dependency, Job, LogLine, Schedule, Stats
from fairq.submission import Submission
from fairq.workflow import Workflow

__all__ = [
    "AddressInvalid",
    "AsyncClient",
    "Cancelled",
    "Change",
    "Client",
    "Context",
    "CycleFound",
    "DeadLetter",
    "Dependency",
    "DoNotRetry",
    "FairqError",
    "Job",
    "LogLine",
    "NoAnswer",
    "NotFinished",
    "NotSignedIn",
    "Refused",
    "Schedule",
    "Stats",
    "Submission",
    "Workflow",
]
