"""Weights inside the folder of one of our own runs are no model of others."""

from pathlib import Path

from tureen_core.manifest_file import MANIFEST
from tureen_core.plain.options import PlainError


def refuse_run_part(folder: Path) -> None:
    """Refuse the weights in the folder of one of our runs: how they read texts is told by the run's artifact alone.

    Raises:
        PlainError: it is such a folder.
    """
    run = folder.parent
    if not (run / "recipe.yaml").is_file() or not (run / "history.jsonl").is_file():
        return
    whole = run / "artifact" / MANIFEST
    remedy = f"name {whole.parent}" if whole.is_file() else f"run `tureen-train export {run}`"
    raise PlainError(
        f"{folder} is a part of a Tureen run and does not tell how a text ends, where it is cut, or the scale of the "
        f"rewards: {remedy}"
    )
