"""Environment variables. No other file of training reads or sets them."""

import logging
import os

from tureen_core.plain.hub import limit_hub_to_requests


def set_offline() -> None:
    """Switch off the libraries' downloads and telemetry. Call it before they are imported.

    Only a model that the user names by its hub name may be downloaded, see :mod:`tureen_core.plain.hub`.
    """
    limit_hub_to_requests()
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRL_EXPERIMENTAL_SILENCE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns of a kernel that it would download


def hide_progress_bars() -> None:
    """Switch off the libraries' progress bars, whose many states fill a log file. The log's own lines remain.

    Call it before they are imported.
    """
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")


def prepare_vllm() -> None:
    """Set what vLLM reads at its import: no usage statistics, few log lines, and workers that are started anew.

    A worker that is forked from a process with a GPU in use does not run.
    """
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }.items():
        os.environ.setdefault(name, value)


def count_processes() -> int:
    """The number of processes that the launcher started; 0 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "0"))


def read_rank() -> int:
    """This process's rank, 0 without a launcher. Rank 0 writes the files."""
    return int(os.environ.get("RANK", "0"))
