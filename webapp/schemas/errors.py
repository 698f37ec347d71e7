"""Problem details: what every refusal looks like."""

from pydantic import BaseModel, Field

from webapp.schemas.groundwork import Answer


class FieldProblem(Answer):
    """What is wrong with one field."""

    path: str
    message: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[FieldProblem] = Field(default_factory=list)
