"""Which jobs are asked for, in the words of lists: statuses, groups, classes, levels."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from scheduler.job_request import Instant, Name, Tag
from scheduler.states import GROUPS, LOWEST_LEVEL, JobClass, JobStatus
from webapp.schemas.groundwork import OwnerQuery, Page

_STATUS_WORDS = {*JobStatus, *GROUPS}


def _words(given: Any) -> Any:
    return [word for word in given.split(",") if word] if isinstance(given, str) else given


def _status_word(word: str) -> str:
    if word not in _STATUS_WORDS:
        raise ValueError(f"must be one of {', '.join(sorted(_STATUS_WORDS))}")
    return word


def _priority_word(word: str) -> str:
    if word in set(JobClass) or (word.isdecimal() and int(word) <= LOWEST_LEVEL):
        return word
    raise ValueError(f"must be one of {', '.join(JobClass)} or a whole number 0 to 10")


def spelled_out(words: Collection[str]) -> frozenset[JobStatus]:
    """Return the statuses that *words* stand for, groups spelled out."""
    singles = {JobStatus(word) for word in words if word not in GROUPS}
    return frozenset(singles.union(*(GROUPS[word] for word in words if word in GROUPS)))


StatusWord = Annotated[str, AfterValidator(_status_word)]
PriorityWord = Annotated[str, AfterValidator(_priority_word)]


class JobsQuery(Page, OwnerQuery):
    """Which jobs to list."""

    status: Annotated[set[StatusWord], BeforeValidator(_words)] = Field(
        default_factory=set, description="Statuses and groups, separated by commas."
    )
    type: Annotated[set[Name], BeforeValidator(_words)] = Field(
        default_factory=set, description="Job types, separated by commas."
    )
    priority: Annotated[set[PriorityWord], BeforeValidator(_words)] = Field(
        default_factory=set, description="Classes and levels, separated by commas."
    )
    tag: list[Tag] = Field(default_factory=list, description="Repeat it to ask for several.")
    q: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Text in the id, the description or a tag."
    )
    created_after: Instant | None = None
    created_before: Instant | None = None
    sort: Literal["newest", "oldest"] = "newest"
    format: Literal["json", "csv", "jsonl"] | None = Field(
        default=None,
        description="Goes before what the header Accept asks for. A file holds the whole list:"
        " limit and cursor do not go with it.",
    )

    def statuses(self) -> frozenset[JobStatus]:
        """Return the statuses asked for, groups spelled out; none asked for means any."""
        return spelled_out(self.status)
