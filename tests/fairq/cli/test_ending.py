import pytest

from fairq import FairqError, Job, NoAnswer, NotFinished, NotSignedIn, Refused
from fairq.cli import ending
from fairq.cli.ending import Exit


def job(status: str) -> Job:
    return Job(job_id="a", type="simulate", status=status, owner="ann")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["completed", "completed"], Exit.DONE),
        (["completed", "failed", "cancelled"], Exit.FAILED),
        (["completed", "cancelled"], Exit.CANCELLED),
        (["completed", "running"], Exit.NOT_FINISHED),
        (["running", "failed"], Exit.FAILED),
    ],
)
def test_the_worst_end_is_the_exit_code(statuses: list[str], code: Exit) -> None:
    assert ending.exit_code_of(map(job, statuses)) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotSignedIn(), Exit.REFUSED),
        (Refused(403, {}), Exit.REFUSED),
        (Refused(503, {}), Exit.NO_ANSWER),
        (NoAnswer("http://x", OSError("refused")), Exit.NO_ANSWER),
        (NotFinished(job("running")), Exit.NOT_FINISHED),
    ],
)
def test_each_kind_of_error_has_its_code(error: FairqError, code: Exit) -> None:
    assert ending.exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Refused(422, {"code": "unknown_type", "detail": "There is no such type."}),
            "There is no such type; `fairq types` lists what there is",
        ),
        (
            Refused(429, {"code": "rate_limited", "detail": "Too many."}, retry_after=60),
            "Too many; try again in 60 s",
        ),
        (
            Refused(
                422,
                {
                    "code": "validation_failed",
                    "detail": "The body is wrong.",
                    "errors": [
                        {"path": "payload.n", "message": "must be a number"},
                        {"path": "type", "message": "is missing"},
                    ],
                },
            ),
            "The body is wrong. payload.n: must be a number; type: is missing",
        ),
        (
            NoAnswer("http://x", OSError("refused")),
            "http://x does not answer: refused; is the server running, and is the address right?",
        ),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(error: FairqError, said: str) -> None:
    assert ending.explanation(error) == said


def test_a_detail_that_is_the_error_is_said_once() -> None:
    errors = [{"path": "depends_on", "message": "no such job"}]
    refused = Refused(
        422, {"code": "unknown_dependency", "detail": "no such job", "errors": errors}
    )

    assert ending.explanation(refused) == "no such job"
