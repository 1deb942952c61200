"""What the proof and the export know of one kind of run; :mod:`tureen_train.kinds` is the table of the kinds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from tureen_core.artifact import Manifest, Training
from tureen_core.probe_readings import Readings
from tureen_train.config import Run
from tureen_train.measures.non_finite import replace_non_finite


class ArtifactKind(Protocol):
    """How the saved model of one kind of run is read back, and what its manifest says.

    Attributes:
        kind: the manifest's.
    """

    @property
    def kind(self) -> Literal["reward", "expert"]:
        """As above."""

    def reread_probes(self, run: Any, folder: Path, base: Path) -> Readings:
        """Read ``<folder>/model`` in the precision of training; return the probes' readings."""

    def write(self, run: Any, folder: Path, base: Path, out: Path) -> Manifest:
        """Write the artifact's files into ``out`` and record the probes' readings of them in float32."""


def describe_training(run: Run, folder: Path) -> Training:
    """What a manifest says of the training. Paths of this machine are left out."""
    return Training(
        recipe=_name_files(run.model_dump(exclude={"output": True, "cache": True, "data": {"root"}})),
        data={_name(path): about for path, about in json.loads((folder / "data.json").read_text()).items()},
        seed=run.optimisation.seed,
        metrics=_rounded(replace_non_finite(json.loads((folder / "metrics.json").read_text()))),
        licences=run.list_licences(),
        libraries=json.loads((folder / "versions.json").read_text()),
    )


def _name_files(recipe: dict[str, Any]) -> dict[str, Any]:
    """Replace absolute paths of data files by their names."""
    data = recipe["data"]
    for source in [*data["train"], *data["eval"].values()]:
        source["path"] = _name(source["path"])
    return recipe


def _name(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path


def _rounded(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Figures to six decimals."""
    return {
        name: {key: None if value is None else round(value, 6) for key, value in figures.items()}
        for name, figures in metrics.items()
    }
