"""Whether training changed anything. A model that stood still is not exported: its head is still the first one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState


class StandstillError(ValueError):
    """Training changed nothing, so there is nothing to export."""


class GradientWatch(TrainerCallback, ExportableState):
    """Notes whether any gradient was other than 0 at any step. ``moved`` stays false where DeepSpeed hides them.

    Checkpoints keep it, since a resumed run may have no step left.
    """

    def __init__(self) -> None:
        self.moved = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"moved": self.moved}}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Go on from what the resumed checkpoint kept. The library itself would put another watch in place of this."""
        kept = state.stateful_callbacks.get(type(self).__name__, {})
        self.moved |= kept.get("attributes", {}).get("moved", False)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Look at the gradients, until one was other than 0."""
        if not self.moved:
            self.moved = any(each.grad is not None and bool(each.grad.any()) for each in model.parameters())


def check_movement(history: Sequence[Mapping[str, Any]], moved: bool = False) -> None:
    """Refuse a run that learnt nothing.

    Args:
        history: the entries of the log; ``loss``, ``grad_norm``, ``learning_rate`` and ``round`` are read. A loss
            counts from the first step whose learning rate is above 0, since the steps before it cannot change anything.
            Losses of two rounds are not compared: DPO begins each with the same loss.
        moved: whether a gradient other than 0 was seen.

    Raises:
        StandstillError: every gradient was 0, or all of several losses are the same number.
    """
    steps = dropwhile(lambda entry: entry.get("learning_rate") == 0, (entry for entry in history if "loss" in entry))
    rounds = defaultdict[object, list[float]](list)
    for entry in steps:
        rounds[entry.get("round")].append(entry["loss"])
    stuck = next((losses for losses in rounds.values() if len(losses) > 1 and len(set(losses)) == 1), None)
    norms = [entry["grad_norm"] for entry in history if "grad_norm" in entry]
    why = ""
    if norms and not moved and not any(norms):
        why = "every gradient was 0"
    elif stuck:
        why = f"the loss stayed at {stuck[0]:g}"
    if why:
        raise StandstillError(
            f"training changed nothing: {why}; nothing is exported. Look at the scores of the data, at "
            "reading.max_length, which may cut what differs, and at optimisation.learning_rate"
        )
