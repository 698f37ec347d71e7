import importlib
import sys
from types import ModuleType

import pytest
from celery import Celery
from celery.app.defaults import DEFAULTS

from scheduler.settings import Settings
from scheduler.states import JobClass


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, home_settings: Settings) -> ModuleType:
    monkeypatch.setenv("DATABASE_URL", home_settings.database_url)
    monkeypatch.setenv("REDIS_URL", "redis://somewhere:1/2")
    monkeypatch.setenv("FAIRQ_SECRET_KEY", home_settings.secret_key)
    monkeypatch.delitem(sys.modules, "celeryconfig", raising=False)
    return importlib.import_module("celeryconfig")


def settings_of(config: ModuleType) -> dict[str, object]:
    return {
        name: value for name, value in vars(config).items() if name.islower() and name[0] != "_"
    }


def test_every_setting_is_one_celery_knows(config: ModuleType) -> None:
    assert set(settings_of(config)) - set(DEFAULTS) == set()


def test_the_broker_is_the_installations(config: ModuleType) -> None:
    app = Celery("test")
    app.config_from_object(config)

    assert app.conf.broker_url == "redis://somewhere:1/2"


def test_queues_are_served_in_the_order_of_urgency_and_each_is_reached_by_its_own_name(
    config: ModuleType,
) -> None:
    app = Celery("test")
    app.config_from_object(config)
    queues = app.amqp.queues

    assert [queue.name for queue in config.task_queues] == list(JobClass)
    for name in JobClass:
        assert (queues[name].exchange.name, queues[name].routing_key) == (name, name)


def test_nothing_is_taken_early_or_twice(config: ModuleType) -> None:
    assert config.broker_transport_options["queue_order_strategy"] == "priority"
    assert config.broker_transport_options["visibility_timeout"] == 86_400
    assert config.task_acks_late
    assert config.worker_prefetch_multiplier == 1
    assert config.worker_disable_prefetch
    assert not config.task_reject_on_worker_lost
    assert not config.worker_cancel_long_running_tasks_on_connection_loss
