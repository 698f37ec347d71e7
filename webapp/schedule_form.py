"""A schedule being made or changed by form: what is wrong with it stands at its field."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic_core import from_json

from scheduler.models import Schedule
from scheduler.states import CatchUp, Overlap
from webapp import presentation
from webapp.answers import json_body
from webapp.bodies import parse_body
from webapp.errors import FieldError, Problem
from webapp.schemas.schedules import SchedulePatch, ScheduleRequest

_PLAIN = ("name", "cron", "timezone", "overlap", "catch_up")
_CONTROLS = (*_PLAIN, "every_seconds", "template")
_KEPT = {"template", "timezone", "overlap", "catch_up"}

_WHOLE_NUMBER = re.compile(r"[0-9]{1,12}")


@dataclass(slots=True)
class ScheduleForm:
    """A schedule being filled in; errors stand under the name of their control, or ''."""

    values: Mapping[str, str]
    errors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def empty(cls, job_type: str) -> Self:
        """Return the form of a new schedule, as it is first shown."""
        model = ScheduleRequest.model_fields
        template = {"type": job_type, "payload": {}}
        chosen = {name: str(model[name].default) for name in ("timezone", "overlap", "catch_up")}
        return cls(
            dict.fromkeys(_CONTROLS, "") | chosen | {"template": presentation.pretty_json(template)}
        )

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Return the form that changes *schedule*, as it is first shown."""
        return cls(
            {name: str(getattr(schedule, name) or "") for name in _CONTROLS}
            | {"template": presentation.pretty_json(schedule.template)}
        )

    @classmethod
    def filled(cls, given: Mapping[str, str], **known: str) -> Self:
        """Return the form as it was sent; what is *known* already is no field of it."""
        return cls({name: given.get(name, "").strip() for name in _CONTROLS} | known)

    def request(self) -> ScheduleRequest | None:
        """Return what is asked for, checked as on the JSON side; None leaves errors behind."""
        seconds = self.values["every_seconds"]
        body: dict[str, Any] = {name: self.values[name] for name in _PLAIN if self.values[name]}
        body["template"] = self._template()
        if seconds:
            body["every_seconds"] = int(seconds) if _WHOLE_NUMBER.fullmatch(seconds) else seconds
        if self.errors:
            return None
        try:
            return parse_body(ScheduleRequest, json_body(body))
        except Problem as problem:
            self.take(problem)
            return None

    def patch(self) -> SchedulePatch | None:
        """Return what the form of a schedule that is there changes; None leaves errors behind."""
        wanted = self.request()
        if wanted is None:
            return None
        told = "every_seconds" if wanted.cron is None else "cron"
        return SchedulePatch.model_validate({one: getattr(wanted, one) for one in {*_KEPT, told}})

    def take(self, problem: Problem) -> None:
        """Put what a problem says beside the controls."""
        for error in problem.errors or (FieldError("", problem.detail),):
            self.refuse(error.path, error.message)

    def refuse(self, path: str, message: str) -> None:
        """Put what is wrong beside the control it came from."""
        control, _, inside = path.partition(".")
        if control not in _CONTROLS:
            control, inside = "", path
        text = f"{inside}: {message}" if inside else message
        self.errors.setdefault(control, []).append(text)

    @property
    def overlaps(self) -> list[tuple[str, str]]:
        """What a tick may do while an earlier job is unfinished, in words."""
        return [
            (Overlap.SKIP, "Makes no job"),
            (Overlap.QUEUE, "Makes its job all the same"),
            (Overlap.REPLACE, "Cancels the earlier one"),
        ]

    @property
    def catch_ups(self) -> list[tuple[str, str]]:
        """Which of the ticks that were missed make jobs, in words."""
        return [
            (CatchUp.NONE, "None of them"),
            (CatchUp.LATEST, "The latest"),
            (CatchUp.ALL, "All of them, in their order"),
        ]

    def _template(self) -> Any:
        try:
            return from_json(self.values["template"] or "{}", allow_inf_nan=False)
        except ValueError as problem:
            self.refuse("template", f"This is not JSON: {problem}.")
            return {}
