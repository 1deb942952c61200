"""Opens a model that training has saved or exported, to score its probes again."""

from pathlib import Path
from typing import Literal

import torch

from tureen_core.base import load_tokenizer
from tureen_core.experts.expert_reader import ExpertReader
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun, RewardRun, Run
from tureen_train.networks.quantised import make_quantisation
from tureen_train.networks.reward_reader import RewardReader


def open_reward_reader(run: RewardRun, folder: Path, base: Path, as_trained: bool = False) -> RewardReader:
    """Open a reward run's weights in ``folder``, saved or exported.

    Args:
        as_trained: read under the run's autocast, on a base quantised as it was in training; else in float32 on the
            whole base.
    """
    quantised = make_quantisation(run.model) if as_trained else None
    reader = RewardReader(folder, base if run.model.lora else None, run.reading, run.loss.rows, quantised=quantised)
    reader.half = as_trained and run.model.precision == "bf16"
    return reader


def open_expert_reader(run: ExpertRun, folder: Path, base: Path, as_trained: bool = False) -> ExpertReader:
    """Open an expert run's adapter, or its whole weights, in ``folder``, saved or exported.

    Args:
        as_trained: in the run's precision; else in float32.
    """
    whole = run.model.lora is None
    half = as_trained and run.model.precision == "bf16"
    # whole weights that were not sharded were trained in float32 under autocast
    dtype = torch.bfloat16 if half and not (whole and run.scale.zero == 0) else torch.float32
    reader = ExpertReader(None if whole else folder, folder if whole else base, make_expert_reading(run, base), dtype)
    reader.half = half
    return reader


def make_expert_reading(run: ExpertRun, base: Path) -> Reading:
    """How an expert's text becomes ids: by the base's own template."""
    plain = Reading(max_length=run.policy.max_length, dtype=choose_dtype(run))
    return plain.model_copy(update={"template": Renderer(load_tokenizer(base), plain).digest()})


def choose_dtype(run: Run) -> Literal["bfloat16", "float32"]:
    """The dtype that a run trains in."""
    return "bfloat16" if run.model.precision == "bf16" else "float32"


def choose_saved_dtype(run: Run) -> torch.dtype:
    """The dtype in which a LoRA is written into the artifact."""
    return torch.bfloat16 if (run.model.saved or choose_dtype(run)) == "bfloat16" else torch.float32
