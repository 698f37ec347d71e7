"""What a payload becomes under a patch, and whether it fits the schema of its type. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something that is wrong with a payload; *path* leads there, as in ``payload.rows.3``."""

    path: str
    message: str


class Schemas:
    """The payload schemas of job types, each read once. A type without one takes anything."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any] | None]) -> None:
        self._validators = {
            name: Draft202012Validator(schema) for name, schema in schemas.items() if schema
        }

    def misfit(self, job_type: str, payload: Any) -> Misfit | None:
        """Return what is wrong with *payload* most of all, or None if it fits."""
        validator = self._validators.get(job_type)
        worst = validator and best_match(validator.iter_errors(payload))
        return _misfit(worst) if worst else None

    def misfits(self, job_type: str, payload: Any) -> list[Misfit]:
        """Return everything that is wrong with *payload*."""
        validator = self._validators.get(job_type)
        return [] if validator is None else list(map(_misfit, validator.iter_errors(payload)))


def _misfit(problem: ValidationError) -> Misfit:
    return Misfit(".".join(["payload", *map(str, problem.absolute_path)]), problem.message)


def merge(value: Any, patch: Any) -> Any:
    """Return *value* under a JSON merge patch (RFC 7396); null takes a member away."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(value) if isinstance(value, Mapping) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), change)
    return merged
