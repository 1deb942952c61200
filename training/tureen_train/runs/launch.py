"""From a recipe to ``TrainingArguments``: the keys that all kinds of run share, and DeepSpeed's configuration."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from tureen_train.config import Packed, RecipeError, RewardRun, Run, Scale
from tureen_train.runs.folder import ROLLOUTS, ROUNDS
from tureen_train.settings import count_processes

log = logging.getLogger("tureen.train")


def make_trainer_arguments(run: Run, evaluate: bool) -> dict[str, Any]:
    """Make the keyword arguments of ``TrainingArguments`` and its subclasses (as TRL's ``DPOConfig``).

    Args:
        evaluate: whether there is an evaluation file.

    Raises:
        RecipeError: ZeRO is asked for, but no launcher started this process.
    """
    optimisation, watch, scale = run.optimisation, run.watch, run.scale
    if scale.zero:
        require_launcher()
    steps = evaluate and watch.eval_every > 0
    return {
        "output_dir": str(Path(run.output) / "checkpoints"),
        "learning_rate": optimisation.learning_rate,
        "num_train_epochs": optimisation.epochs,
        "max_steps": optimisation.max_steps,
        "per_device_train_batch_size": optimisation.batch,
        "per_device_eval_batch_size": optimisation.eval_batch,
        "gradient_accumulation_steps": optimisation.accumulation,
        "warmup_steps": optimisation.warmup,
        "lr_scheduler_type": optimisation.schedule,
        "weight_decay": optimisation.weight_decay,
        "max_grad_norm": optimisation.max_grad_norm,
        "seed": optimisation.seed,
        "data_seed": optimisation.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": run.model.precision == "bf16",
        "gradient_checkpointing": run.model.gradient_checkpointing,
        # ZeRO-3 with adapters needs re-entrant checkpointing (trl#2514)
        "gradient_checkpointing_kwargs": {"use_reentrant": scale.zero == 3},
        "logging_steps": watch.log_every,
        "logging_first_step": True,
        "eval_strategy": "steps" if steps else "no",
        "eval_steps": watch.eval_every if steps else None,
        "eval_on_start": evaluate and watch.eval_at_start,
        "save_strategy": "steps" if watch.save_every else "no",
        "save_steps": watch.save_every or 500,
        "save_total_limit": watch.keep,
        "report_to": watch.trackers or "none",
        # in a log file a bar would leave a line for each of its states; the trainer then prints its log's lines instead
        "disable_tqdm": not sys.stderr.isatty(),
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
        "deepspeed": make_deepspeed_config(scale, run) if scale.zero else None,
    }


def require_launcher() -> None:
    """Make sure that a launcher started this process, as ZeRO needs.

    Raises:
        RecipeError: none did.
    """
    if not count_processes():
        raise RecipeError(
            "scale.zero needs a launcher: start it as torchrun --nproc_per_node 1 -m tureen_train run ..."
        )


def choose_packing(run: RewardRun) -> Packed:
    """Choose how batches are packed. They are not if the loss reads hidden states of padding, as PCRM's code does."""
    if getattr(run.loss, "span_padding", "hold") == "published" and run.scale.packing != "off":
        log.info("batches are padded, and no prompt is shared: loss.span_padding: published reads the padding")
        return "off"
    return run.scale.packing


def make_deepspeed_config(scale: Scale, run: Run) -> dict[str, Any]:
    """Make DeepSpeed's configuration, without ``train_batch_size``: ``auto`` fails in torchrun (transformers#28803)."""
    stage: dict[str, Any] = {"stage": scale.zero, "overlap_comm": False, "contiguous_gradients": True}
    if scale.zero == 3:
        # without it the saved folder has only shards and no model.safetensors
        stage["stage3_gather_16bit_weights_on_model_save"] = True
    if scale.offload:
        stage["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
        if scale.zero == 3:
            stage["offload_param"] = {"device": "cpu", "pin_memory": False}
    return {
        "zero_optimization": stage,
        "bf16": {"enabled": run.model.precision == "bf16"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own Adam is for offloaded states of a GPU; without a GPU it only takes minutes to compile
        "zero_force_ds_cpu_optimizer": torch.cuda.is_available(),
    }


def has_checkpoint(run: Run) -> bool:
    """Whether a run has saved a checkpoint."""
    return _find_last_whole(Path(run.output) / "checkpoints") is not None


def can_resume(run: Run) -> bool:
    """Whether a run that was broken off left what ``--resume`` goes on from: a checkpoint, or answers."""
    return has_checkpoint(run) or any(any(Path(run.output).glob(f"{name}/*")) for name in (ROLLOUTS, ROUNDS))


def find_last_checkpoint(run: Run) -> str:
    """Find the checkpoint to resume from.

    Raises:
        RecipeError: the run has saved none.
    """
    folder = Path(run.output) / "checkpoints"
    found = _find_last_whole(folder)
    if found is None:
        raise RecipeError(
            f"--resume: there is no whole checkpoint in {folder}; set watch.save_every, and begin anew without --resume"
        )
    return str(found)


def _find_last_whole(folder: Path) -> Path | None:
    """The last checkpoint that was not broken off while it was written."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its trainer's state, which the library writes after all else."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, ValueError):
        return False
    return True
