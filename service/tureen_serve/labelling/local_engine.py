"""The engine in this process: shards in turn, several runs of each at once, so that batches stay full."""

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
    """Write every shard's rows; shards that an earlier call finished are passed over, and the others go on.

    Raises:
        LoadError, Unavailable: as :class:`Labeller`.
        TureenError, OSError: as :func:`tureen.labelling.labelling_run.label_items`.
    """
    with Labeller(settings, dict(plan.asked or {}), plan.recipe) as labeller:
        return [
            labelling_run.label_items(labeller, each.source, each.target, plan, seen, restart=restart)
            for each in shards
        ]
