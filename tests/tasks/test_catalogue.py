import pytest
from pydantic import BaseModel, ValidationError

from scheduler import retry
from scheduler.states import Executor
from tasks.catalogue import Catalogue, JobKind, Payload, Timed, job_type, pull_type


class Greeting(Timed):
    name: str = "world"


def greet(_context: object, payload: Greeting) -> str:
    return f"hello, {payload.name}"


def test_a_registered_handler_is_found_by_its_name_and_stays_a_function() -> None:
    catalogue = Catalogue()

    handler = job_type("greet", payload=Greeting, catalogue=catalogue, timeout_seconds=5)(greet)

    kind = catalogue.get("greet")
    assert kind is not None
    assert kind.handler is greet is handler
    assert kind.timeout_seconds == 5
    assert catalogue.get("other") is None


def test_a_type_for_pull_workers_has_a_payload_and_nothing_to_run() -> None:
    catalogue = Catalogue()

    pull_type("scan", payload=Greeting, catalogue=catalogue, timeout_seconds=5)

    kind = catalogue.get("scan")
    assert kind is not None
    assert (kind.executors, kind.timeout_seconds) == ((Executor.PULL,), 5)
    assert kind.payload_schema["title"] == "Greeting"
    with pytest.raises(LookupError, match="pull workers"):
        kind.handler(None, Greeting())


def test_two_types_of_one_name_are_refused() -> None:
    catalogue = Catalogue()
    job_type("greet", payload=Greeting, catalogue=catalogue)(greet)

    with pytest.raises(ValueError, match="two job types named greet"):
        job_type("greet", payload=Greeting, catalogue=catalogue)(greet)


def test_kinds_come_in_the_order_of_their_names() -> None:
    catalogue = Catalogue()
    for name in ("b", "c", "a"):
        catalogue.add(JobKind(name=name, payload=Greeting, handler=greet))

    assert [kind.name for kind in catalogue] == ["a", "b", "c"]
    assert len(catalogue) == 3


def test_the_schema_refuses_unknown_fields() -> None:
    schema = JobKind(name="greet", payload=Greeting, handler=greet).payload_schema

    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"name", "duration_seconds"}


def test_a_payload_that_takes_unknown_fields_is_refused() -> None:
    class Loose(BaseModel):
        name: str = ""

    with pytest.raises(ValueError, match="refuse unknown fields"):
        JobKind(name="loose", payload=Loose, handler=greet)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 10**9])
def test_a_duration_is_a_sensible_number(value: float) -> None:
    with pytest.raises(ValidationError):
        Timed(duration_seconds=value)


def test_retry_settings_that_are_not_named_are_the_usual_ones() -> None:
    kind = JobKind(name="greet", payload=Greeting, handler=greet, retry_config={"max_attempts": 9})

    assert kind.full_retry_config == {**retry.DEFAULTS, "max_attempts": 9}


@pytest.mark.parametrize(
    ("defaults", "complaint"),
    [
        ({"retry_config": {"attempts": 3}}, "unknown retry settings"),
        ({"cpu_units": 0}, "above 0"),
        ({"timeout_seconds": -1}, "above 0"),
        ({"memory_mb": 0}, "above 0"),
        ({"executors": ()}, "somebody has to run"),
    ],
)
def test_senseless_defaults_are_refused(defaults: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        JobKind(name="greet", payload=Payload, handler=greet, **defaults)  # type: ignore[arg-type]
