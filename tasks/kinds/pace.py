"""Taking the time a payload asks for."""

import time

from tasks.context import Context

_STEPS_PER_SECOND = 4
_MOST_STEPS = 100


def take_time(context: Context, seconds: float, *, steps: int = 0, doing: str = "working") -> None:
    """Wait *seconds* in *steps*, telling the progress after each; ends at once when cancelled.

    Without *steps*, as many as people can tell apart.
    """
    if seconds <= 0 and not steps:
        return
    count = steps or max(1, min(_MOST_STEPS, round(seconds * _STEPS_PER_SECOND)))
    began = time.monotonic()
    for step in range(1, count + 1):
        context.wait(max(0.0, began + seconds * step / count - time.monotonic()))
        context.progress(step / count, f"{doing} ({step} of {count})")
