"""Circles among jobs that are submitted together. Pure."""

from collections.abc import Mapping, Sequence


def find_cycle(parents: Mapping[str, Sequence[str]]) -> list[str] | None:
    """Return a circle, each id waiting for the next, the first one twice; None if there is none.

    *parents* names what each job waits for; names that are not keys have nothing to wait for.
    Jobs that wait for nobody are taken away until none is left (Kahn); whatever remains holds a
    circle, and following its parents runs into it. O(jobs + edges).
    """
    remaining = _after_removing_the_free(parents)
    if not remaining:
        return None
    return _walk_into_circle(parents, remaining)


def _after_removing_the_free(parents: Mapping[str, Sequence[str]]) -> set[str]:
    children: dict[str, list[str]] = {}
    open_parents: dict[str, int] = {}
    for child, waits_for in parents.items():
        inside = [parent for parent in waits_for if parent in parents]
        open_parents[child] = len(inside)
        for parent in inside:
            children.setdefault(parent, []).append(child)
    free = [job for job, count in open_parents.items() if count == 0]
    remaining = set(parents)
    while free:
        job = free.pop()
        remaining.discard(job)
        for child in children.get(job, ()):
            open_parents[child] -= 1
            if open_parents[child] == 0:
                free.append(child)
    return remaining


def _walk_into_circle(parents: Mapping[str, Sequence[str]], remaining: set[str]) -> list[str]:
    job = min(remaining)
    place: dict[str, int] = {}
    path: list[str] = []
    while job not in place:
        place[job] = len(path)
        path.append(job)
        job = next(parent for parent in parents[job] if parent in remaining)
    return [*path[place[job] :], job]
