"""The words of a job's life and the one table of its moves."""

import pytest

from scheduler.states import (
    ACTIVE,
    DEFAULT_LEVEL,
    FINISHED,
    GROUPS,
    HIGHEST_LEVEL,
    LOWEST_LEVEL,
    MOVES,
    PENDING,
    UNFINISHED,
    WAITING,
    JobClass,
    JobStatus,
    class_of,
    is_final,
    sources,
)

S = JobStatus


@pytest.mark.parametrize(
    ("level", "job_class"),
    [
        (0, JobClass.CRITICAL),
        (1, JobClass.HIGH),
        (3, JobClass.HIGH),
        (4, JobClass.NORMAL),
        (6, JobClass.NORMAL),
        (7, JobClass.LOW),
        (10, JobClass.LOW),
    ],
)
def test_a_level_belongs_to_the_class_of_its_range(level: int, job_class: JobClass) -> None:
    assert class_of(level) is job_class


def test_a_class_by_name_has_a_level_of_its_own_range() -> None:
    assert {each: class_of(level) for each, level in DEFAULT_LEVEL.items()} == {
        each: each for each in JobClass
    }


def test_levels_never_become_more_urgent_on_the_way_down() -> None:
    order = list(JobClass)
    classes = [order.index(class_of(level)) for level in range(HIGHEST_LEVEL, LOWEST_LEVEL + 1)]

    assert classes == sorted(classes)
    assert set(classes) == set(range(len(order)))


def test_the_table_names_every_status() -> None:
    assert set(MOVES) == set(JobStatus)


@pytest.mark.parametrize("status", JobStatus)
def test_sources_are_the_table_read_backwards(status: JobStatus) -> None:
    assert sources(status) == {source for source in JobStatus if status in MOVES[source]}


def test_every_unfinished_job_can_be_cancelled() -> None:
    assert sources(S.CANCELLED) == UNFINISHED


def test_a_completed_job_stays_completed() -> None:
    assert MOVES[S.COMPLETED] == frozenset()


def test_only_running_again_leaves_a_final_status() -> None:
    left = {(status, target) for status in FINISHED for target in MOVES[status]}

    assert left == {(a, b) for a in (S.FAILED, S.CANCELLED) for b in (S.READY, S.BLOCKED)}


def test_no_status_moves_to_itself() -> None:
    assert not [status for status in JobStatus if status in MOVES[status]]


def test_every_status_can_be_reached_from_where_submissions_begin() -> None:
    reached = {S.SCHEDULED, S.BLOCKED, S.READY}
    while more := {target for status in reached for target in MOVES[status]} - reached:
        reached |= more

    assert reached == set(JobStatus)


def test_the_groups_part_the_statuses() -> None:
    assert {
        "waiting": {S.SCHEDULED, S.BLOCKED, S.READY, S.RETRYING},
        "active": {S.QUEUED, S.RUNNING},
        "finished": {S.COMPLETED, S.FAILED, S.CANCELLED},
    } == {"waiting": WAITING, "active": ACTIVE, "finished": FINISHED}
    assert set(JobStatus) == WAITING | ACTIVE | FINISHED
    assert set(JobStatus) - FINISHED == UNFINISHED


def test_filters_take_the_groups_of_the_contract() -> None:
    assert dict(GROUPS) == {
        "pending": {S.SCHEDULED, S.BLOCKED, S.READY, S.QUEUED},
        "active": {S.QUEUED, S.RUNNING},
        "finished": {S.COMPLETED, S.FAILED, S.CANCELLED},
    }
    assert GROUPS["pending"] is PENDING


@pytest.mark.parametrize("status", JobStatus)
def test_a_final_status_is_one_of_the_finished(status: JobStatus) -> None:
    assert is_final(status) == (status in {S.COMPLETED, S.FAILED, S.CANCELLED})
