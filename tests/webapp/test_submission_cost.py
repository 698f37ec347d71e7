"""Taking a batch in asks the database no more often than taking in one job."""

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import event

from tests.webapp.conftest import MakePerson
from webapp.extensions import db


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    said: list[str] = []

    def note(*details: object) -> None:
        said.append(str(details[2]))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    yield said
    event.remove(engine, "before_cursor_execute", note)


def test_a_batch_costs_the_same_number_of_statements_however_long_it_is(
    person: MakePerson, statements: list[str]
) -> None:
    ann = person("ann")
    ann.get("/me")  # notes the use of the token, which later requests do not
    costs = []

    for count in (2, 20):
        statements.clear()
        answer = ann.post("/jobs/batch", {"jobs": [{"type": "simulate"}] * count})
        assert answer.status_code == 201, answer.text
        costs.append(len(statements))

    assert costs[0] == costs[1], statements
