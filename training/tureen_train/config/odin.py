"""Settings of ODIN's two heads."""

from typing import Literal

from pydantic import Field

from tureen_train.config.parts import Loss


class OdinLoss(Loss):
    """ODIN (arXiv 2402.07319): ranking by the sum of a length head (row 0) and a quality head (row 1).

    ``length`` weighs 1 − corr(length, head 0), ``quality`` weighs |corr(length, head 1)|, and ``orthogonality`` weighs
    |cos| of the two rows. The objective is the quality head alone. The length head stays in the file, unused.
    """

    method: Literal["odin"]
    length: float = Field(default=1.0, ge=0)
    quality: float = Field(default=1.0, ge=0)
    orthogonality: float = Field(default=0.0, ge=0)

    @property
    def rows(self) -> int:
        """Rows of the score head."""
        return 2
