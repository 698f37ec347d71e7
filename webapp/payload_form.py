"""A payload written by hand as JSON: what is wrong with it stands beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from scheduler.payloads import Schemas
from webapp import presentation
from webapp.bodies import read_json
from webapp.errors import Problem

CONTROL = "payload"


@dataclass(slots=True)
class PayloadForm:
    """A payload being changed; errors stand under the name of its control."""

    text: str
    errors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Self:
        """Return the form as it is first shown."""
        return cls(presentation.pretty_json(payload))

    def read(self, job_type: str, schemas: Schemas) -> dict[str, Any] | None:
        """Return the payload if it can be handed to a job of that type; None leaves errors."""
        value = self._object()
        if not self.errors:
            for misfit in schemas.misfits(job_type, value):
                where = misfit.path.removeprefix(CONTROL).removeprefix(".")
                self._refuse(f"{where}: {misfit.message}" if where else misfit.message)
        return None if self.errors else value

    def _object(self) -> dict[str, Any]:
        try:
            value = read_json((self.text.strip() or "{}").encode(), CONTROL)
        except Problem as problem:
            is_json = bool(problem.errors)
            self._refuse(problem.detail if is_json else f"This is not JSON: {problem.__cause__}.")
        else:
            if isinstance(value, dict):
                return value
            self._refuse("This has to be a JSON object: { … }.")
        return {}

    def _refuse(self, message: str) -> None:
        self.errors.setdefault(CONTROL, []).append(message)
