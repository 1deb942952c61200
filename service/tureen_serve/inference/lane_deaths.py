"""Find what makes it useless to go on in this process."""

from collections.abc import Iterable

from tureen_serve.inference.lane import Lane


def find_death(lanes: Iterable[Lane], stuck_seconds: float, load_seconds: float = 0.0) -> str | None:
    """Say why the process must end: a lane can never run again in it, or a load of a model is stuck.

    Args:
        stuck_seconds: how long a forward pass or a load may take.
        load_seconds: how long the load of a model has run; 0 if none runs.
    """
    busy = [("the load of a model", "it", load_seconds)]
    for lane in lanes:
        if lane.death:
            return lane.death
        busy.append((lane.name, "a forward pass", lane.busy_seconds))
    for name, what, seconds in busy:
        if seconds > stuck_seconds:
            limit = f"the longest allowed is {stuck_seconds:g} s (`limits.stuck_seconds`)"
            return f"{name} is stuck: {what} has run for {seconds:.1f} s, and {limit}"
    return None
