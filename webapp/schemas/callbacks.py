"""Callbacks: what became of them, and the secret that signs them."""

from pydantic import AwareDatetime, Field

from scheduler.states import CallbackState, JobStatus
from webapp.schemas.groundwork import Answer


class CallbackTry(Answer):
    """One try at a callback: the status of the answer, or why there was none."""

    number: int
    at: AwareDatetime
    status_code: int | None
    error: str | None
    milliseconds: int


class CallbackAnswer(Answer):
    """What is told about one end of a job."""

    delivery_id: str = Field(description="As in `Fairq-Delivery`, the same at every try.")
    state: CallbackState
    status: JobStatus = Field(description="In which the job ended.")
    created_at: AwareDatetime
    next_try_at: AwareDatetime | None
    delivered_at: AwareDatetime | None
    gave_up_at: AwareDatetime | None
    tries: list[CallbackTry] = Field(description="First to last, as far as they are remembered.")


class CallbackList(Answer):
    """One page of a job's callbacks, newest first."""

    callbacks: list[CallbackAnswer]
    next_cursor: str | None


class CallbackSecret(Answer):
    """What signs the callbacks of an account."""

    secret: str
    created_at: AwareDatetime
    previous_until: AwareDatetime | None = Field(
        description="Until when the secret before signs as well."
    )
