"""The submit form: fields from a type's JSON schema, and the request that filled fields make."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from werkzeug.datastructures import MultiDict

from scheduler.job_request import JobRequest
from scheduler.models import JobType
from scheduler.payloads import Schemas
from scheduler.states import (
    DEFAULT_LEVEL,
    HIGHEST_LEVEL,
    LOWEST_LEVEL,
    Condition,
    JobClass,
    class_of,
)
from webapp import presentation
from webapp.bodies import parse_body, read_json
from webapp.errors import FieldError, Problem

Schema = Mapping[str, Any]

_PLAIN = ("description", "job_id", "executor", "callback_url")
_NUMBERS = ("timeout_seconds", "delay_seconds", "estimated_seconds")
_NEEDS = ("cpu_units", "memory_mb")
_RETRY_NUMBERS = ("max_attempts", "base_delay_seconds", "backoff_multiplier", "max_delay_seconds")

_CONTROLS = (
    "payload",
    "priority",
    *_NEEDS,
    "depends_on",
    "run_at",
    "zone_minutes",
    *_NUMBERS,
    *_RETRY_NUMBERS,
    "strategy",
    "jitter",
    "tags",
    *_PLAIN,
)
"""Every field of the form beside those of the payload."""

_LARGE = {"lines", "json"}

_CAPITALS = {word.lower(): word for word in ("URL", "ID", "JSON", "CPU", "MB", "HTTP", "CSV")}

_KINDS = {"integer": "number", "number": "number", "boolean": "boolean", "string": "text"}


@dataclass(frozen=True, slots=True)
class PayloadField:
    """One member of the payload as the form asks for it."""

    name: str
    kind: str  # text, number, boolean, choice, lines or json
    label: str
    hint: str
    required: bool
    placeholder: str
    choices: Sequence[str]
    value: str


@dataclass(slots=True)
class JobForm:
    """A submission being filled in; errors stand under the name of their control, or ''."""

    type: JobType
    values: dict[str, str]
    fields: Sequence[PayloadField]
    mode: str
    errors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def empty(cls, kind: JobType) -> Self:
        """Return the form as it is first shown."""
        values = dict.fromkeys(_CONTROLS, "") | {
            "payload": "{}",
            "priority": str(DEFAULT_LEVEL[JobClass.NORMAL]),
        }
        fields = payload_fields(kind.payload_schema, {})
        return cls(kind, values, fields, "form" if fields else "json")

    @classmethod
    def like(cls, kind: JobType, model: Mapping[str, Any]) -> Self:
        """Return the form filled to submit another job like *model*, a submission."""
        form = cls.empty(kind)
        retry, needs = model["retry_config"], model["resource_requirements"]
        form.values |= {
            "payload": presentation.pretty_json(model["payload"]),
            "priority": str(model["priority"]),
            **{name: _written(needs[name]) for name in _NEEDS},
            **{name: _written(retry[name]) for name in _RETRY_NUMBERS},
            **{name: _written(model[name]) for name in _NUMBERS if name in model},
            **{name: model[name] for name in _PLAIN if name in model},
            "strategy": retry["strategy"],
            "jitter": json.dumps(retry["jitter"]),
            "depends_on": "\n".join(map(_dependency_line, model.get("depends_on", ()))),
            "tags": ", ".join(model.get("tags", ())),
        }
        form.fields = payload_fields(kind.payload_schema, model["payload"])
        known = {one.name for one in form.fields}
        if not known.issuperset(model["payload"]):
            form.mode = "json"
        return form

    @classmethod
    def filled(cls, kind: JobType, given: MultiDict[str, str]) -> Self:
        """Return the form as it was sent."""
        values = {name: given.get(name, "").strip() for name in _CONTROLS}
        prefix = "payload."
        texts = {
            name.removeprefix(prefix): text.replace("\r\n", "\n")
            for name, text in given.items()
            if name.startswith(prefix)
        }
        fields = payload_fields(kind.payload_schema, None, texts)
        by_form = bool(fields) and given.get("mode") == "form"
        return cls(kind, values, fields, "form" if by_form else "json")

    def request(self) -> JobRequest | None:
        """Return what is asked for, checked as on the JSON side; None leaves errors behind."""
        body = self._body()
        self._check_payload(body["payload"])
        try:
            wanted = parse_body(JobRequest, json.dumps(body).encode())
        except Problem as problem:
            for error in problem.errors or (FieldError("", problem.detail),):
                self.refuse(error.path, error.message)
            return None
        return None if self.errors else wanted

    def refuse(self, path: str, message: str) -> None:
        """Put what is wrong with the request beside the control it came from."""
        control = self._control_of(path)
        text = message if control or not path else f"{path}: {message}"
        self.errors.setdefault(control, []).append(text)

    @property
    def priorities(self) -> list[tuple[str, str]]:
        """Every level with the name of its class."""
        levels = range(HIGHEST_LEVEL, LOWEST_LEVEL + 1)
        return [(str(level), f"{level} · {class_of(level)}") for level in levels]

    def is_used(self, *controls: str) -> bool:
        """Tell whether any of *controls* holds something or is wrong."""
        return any(self.values[name] or name in self.errors for name in controls)

    def _body(self) -> dict[str, Any]:
        values = self.values
        body: dict[str, Any] = {"type": self.type.name, "payload": self._payload()}
        body |= {name: values[name] for name in _PLAIN if values[name]}
        body |= {name: _number(values[name]) for name in _NUMBERS if values[name]}
        needs = {name: _number(values[name]) for name in _NEEDS if values[name]}
        retry = {name: _number(values[name]) for name in _RETRY_NUMBERS if values[name]}
        retry |= {"strategy": values["strategy"]} if values["strategy"] else {}
        retry |= {"jitter": values["jitter"] == "true"} if values["jitter"] else {}
        optional = {
            "priority": _number(values["priority"]) if values["priority"] else None,
            "resource_requirements": needs,
            "retry_config": retry,
            "tags": [tag.strip() for tag in values["tags"].split(",") if tag.strip()],
            "depends_on": [
                _dependency(line) for line in values["depends_on"].split("\n") if line.strip()
            ],
            "run_at": self._run_at(),
        }
        return body | {
            name: value for name, value in optional.items() if value not in ({}, [], None)
        }

    def _check_payload(self, payload: Any) -> None:
        """Name everything that is wrong with the payload; the engine names the worst only."""
        if "payload" in self.errors:
            return
        schemas = Schemas({self.type.name: self.type.payload_schema})
        for misfit in schemas.misfits(self.type.name, payload):
            if self._control_of(misfit.path) not in self.errors:
                self.refuse(misfit.path, misfit.message)

    def _payload(self) -> Any:
        if self.mode == "json":
            return self._json("payload", self.values["payload"] or "{}")
        payload = {}
        for one in self.fields:
            if one.kind != "boolean" and not one.value.strip():
                if one.required:
                    self.refuse(f"payload.{one.name}", "This is needed.")
                continue
            payload[one.name] = self._member(one)
        return payload

    def _member(self, one: PayloadField) -> Any:
        if one.kind == "json":
            return self._json(f"payload.{one.name}", one.value)
        return _READERS[one.kind](one, self.type.payload_schema or {})

    def _json(self, control: str, text: str) -> Any:
        try:
            return read_json(text.encode(), control)
        except Problem as problem:
            said = problem.errors[0].message if problem.errors else None
            self.refuse(control, said or f"This is not JSON: {problem.__cause__}.")
            return {}

    def _run_at(self) -> str | None:
        if not self.values["run_at"]:
            return None
        try:
            local = datetime.fromisoformat(self.values["run_at"])
            behind = timedelta(minutes=int(self.values["zone_minutes"] or 0))
            return (local.replace(tzinfo=UTC) + behind).isoformat()
        except (ValueError, OverflowError):
            self.refuse("run_at", "This is not a date and time.")
            return None

    def _control_of(self, path: str) -> str:
        """Return the visible control for a path of the request, or '' for the form as a whole."""
        first, _, rest = path.partition(".")
        second = rest.partition(".")[0]
        if first == "payload" and self.mode == "form":
            return f"payload.{second}" if second in {one.name for one in self.fields} else ""
        if first in {"resource_requirements", "retry_config"}:
            return second if second in _CONTROLS else _NEEDS[0]
        return first if first in _CONTROLS else ""


def payload_fields(
    schema: Schema | None,
    payload: Mapping[str, Any] | None,
    texts: Mapping[str, str] | None = None,
) -> list[PayloadField]:
    """Return the fields a schema asks for, filled from *payload* or else from *texts*."""
    if not schema or not isinstance(schema.get("properties"), Mapping):
        return []
    required = schema.get("required", ())
    made = []
    for name, raw in schema["properties"].items():
        member = resolve(raw, schema)
        kind = _kind(member)
        value = (texts or {}).get(name, "") if payload is None else _text(payload.get(name), kind)
        is_left_out = payload is not None and name not in payload
        if is_left_out and kind == "boolean" and member.get("default") is True:
            value = "true"
        made.append(_field(name, member, kind, value, required=name in required))
    # Postgres keeps no order of keys; what has to be filled in comes first, what is large last.
    return sorted(made, key=lambda one: (not one.required, one.kind in _LARGE))


def resolve(member: Any, schema: Schema) -> Schema:
    """Return what a member's schema comes down to: references followed, null left out."""
    if not isinstance(member, Mapping):
        return {}
    if "$ref" in member:
        name = str(member["$ref"]).rpartition("/")[2]
        return {**schema.get("$defs", {}).get(name, {}), **_without(member, "$ref")}
    branches = [one for one in member.get("anyOf", ()) if one.get("type") != "null"]
    if len(branches) == 1:
        return {**resolve(branches[0], schema), **_without(member, "anyOf")}
    return member


def _without(member: Schema, name: str) -> dict[str, Any]:
    return {key: value for key, value in member.items() if key != name}


def _kind(member: Schema) -> str:
    if _choices(member):
        return "choice"
    if member.get("type") == "array" and member.get("items", {}).get("type") == "string":
        return "lines"
    return _KINDS.get(str(member.get("type")), "json")


def _choices(member: Schema) -> list[Any]:
    return list(member.get("enum", ()))


def _field(name: str, member: Schema, kind: str, value: str, *, required: bool) -> PayloadField:
    default = member.get("default")
    return PayloadField(
        name=name,
        kind=kind,
        label=_label(name),
        hint=" ".join(_hints(member, kind)),
        required=required,
        placeholder="" if default is None else _text(default, kind),
        choices=[str(choice) for choice in _choices(member)],
        value=value,
    )


def _label(name: str) -> str:
    words = [_CAPITALS.get(word, word) for word in name.split("_")]
    label = " ".join(words)
    return label[:1].upper() + label[1:]


def _hints(member: Schema, kind: str) -> Iterable[str]:
    if member.get("description"):
        yield str(member["description"])
    low, high = (member.get(name) for name in ("minimum", "maximum"))
    if low is not None and high is not None:
        yield f"From {_written(low)} to {_written(high)}."
    if kind == "lines":
        yield "One a line."
    if kind == "json":
        yield "As JSON."


def _text(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if kind == "lines" and isinstance(value, list):
        return "\n".join(str(one) for one in value)
    return value if isinstance(value, str) and kind != "json" else json.dumps(value)


def _written(number: float) -> str:
    """Write a number as a person would type it, every digit of it."""
    return repr(number).removesuffix(".0")


def _number(text: str) -> int | float | str:
    """Return the number a text says; one that says none stays, to be refused where all else is.

    JSON has neither infinity nor what is not a number.
    """
    for read in (int, float):
        try:
            said = read(text)
        except ValueError:
            continue
        if abs(said) < math.inf:
            return said
    return text


def _choice(one: PayloadField, schema: Schema) -> Any:
    members = _choices(resolve(schema["properties"][one.name], schema))
    return next((choice for choice in members if str(choice) == one.value), one.value)


_READERS = {
    "text": lambda one, _: one.value,
    "number": lambda one, _: _number(one.value.strip()),
    "boolean": lambda one, _: one.value == "true",
    "lines": lambda one, _: [line.strip() for line in one.value.split("\n") if line.strip()],
    "choice": _choice,
}


def _dependency(line: str) -> str | dict[str, str]:
    """Read one line: a job id, and behind it when it counts, if not when completed."""
    job_id, _, when = line.strip().rpartition(" ")
    if job_id and when in {*Condition}:
        return {"job_id": job_id.strip(), "when": when}
    return line.strip()


def _dependency_line(given: str | Mapping[str, str]) -> str:
    return given if isinstance(given, str) else f"{given['job_id']} {given['when']}"
