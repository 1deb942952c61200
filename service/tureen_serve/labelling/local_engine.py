"""Label shards one after another with an engine in this process. Several runs are asked at once to fill the batches."""

from collections.abc import Callable, Sequence

from tureen.labelling import labelling_run
from tureen.labelling.labelling_run import Plan
from tureen.labelling.tally import Tally
from tureen_serve.labelling.labeller import Labeller
from tureen_serve.labelling.shards import Shard
from tureen_serve.settings import Settings


def label_locally(
    settings: Settings,
    shards: Sequence[Shard],
    plan: Plan,
    seen: Callable[[int], None],
    *,
    restart: bool = False,
) -> list[Tally]:
    """Label all shards. Finished shards are skipped, and an interrupted shard is continued.

    Args:
        plan: what to ask, and how to write the rows.
        seen: called with the number of items that were done since its last call.
        restart: label everything again.

    Returns:
        The tally of each shard.

    Raises:
        LoadError, Unavailable: as :class:`Labeller`.
        TureenError, OSError: as :func:`tureen.labelling.labelling_run.label_items`.
    """
    with Labeller(settings, dict(plan.asked or {}), plan.recipe) as labeller:
        return [
            labelling_run.label_items(labeller, each.source, each.target, plan, seen, restart=restart)
            for each in shards
        ]
