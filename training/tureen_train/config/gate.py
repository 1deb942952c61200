"""Settings of the gate, which weighs attributes by the prompt."""

from typing import Literal

from pydantic import Field

from tureen_train.config.parts import Loss, Source


class GateLoss(Loss):
    """ArmoRM's second stage (arXiv 2406.12845): a gate over the rewards of a frozen multi-attribute model.

    The model is ``model.start``; ``attributes`` are filled in from its objectives. ``width``, ``depth``, ``dropout``
    and ``temperature`` are settings of the gate; ``scale`` is where its trained scale begins.

    ``verbosity`` names an attribute that is subtracted from each of the others, times the smallest published penalty
    with which their rank correlation is at most ``threshold`` on the answers of ``reference`` (by default the training
    data). With null nothing is subtracted.

    ``optimisation`` counts pairs: each of ``max_steps`` draws ``batch`` of them with replacement. As in the published
    code, gradients are not clipped: ``max_grad_norm`` has no effect.
    """

    method: Literal["gate"]
    attributes: list[str] = []
    width: int = Field(default=1024, ge=1)
    depth: int = Field(default=3, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    temperature: float = Field(default=10.0, gt=0)
    scale: float = Field(default=1.0, gt=0)
    verbosity: str | None = None
    threshold: float = Field(default=0.03, ge=-1, le=1)
    reference: Source | None = None

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen."""
        return True

    @property
    def rows(self) -> int:
        """Rows of the score head."""
        return len(self.attributes)
