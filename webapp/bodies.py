"""Reading what clients send over HTTP: whatever is wrong with it is a problem."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import MultiDict

from scheduler import bodies
from scheduler.errors import Malformed
from webapp.errors import FieldError, Problem

M = TypeVar("M", bound=BaseModel)


def parse_body(model: type[M], raw: bytes) -> M:
    """Read a JSON body as *model*. Raises a 422 problem that names every wrong field."""
    with _as_problem():
        return bodies.parse_body(model, raw)


def parse_query(model: type[M], args: MultiDict[str, str]) -> M:
    """Read a query string as *model*; a name given several times makes a list of a list field."""
    values: dict[str, Any] = {}
    for name, given in args.lists():
        field = model.model_fields.get(name)
        takes_list = field is not None and "list" in str(field.annotation)
        values[name] = given if takes_list else given[-1]
    with _as_problem():
        bodies.check_values(values)
        try:
            return model.model_validate(values, strict=False)
        except ValidationError as refusal:
            raise bodies.malformed(refusal) from refusal


def read_json(raw: bytes, path: str = "") -> Any:
    """Read JSON that can be kept, and walked. Raises a 422 problem."""
    with _as_problem():
        return bodies.read_json(raw, path)


@contextmanager
def _as_problem() -> Iterator[None]:
    try:
        yield
    except Malformed as refusal:
        errors = tuple(FieldError(wrong.path, wrong.message) for wrong in refusal.wrong)
        raise Problem(refusal.code, str(refusal), errors) from refusal
