"""The one place in training that touches the environment."""

import os


def set_offline() -> None:
    """Keep the libraries from asking a hub or reporting home; call before they are imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TRL_EXPERIMENTAL_SILENCE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def count_processes() -> int:
    """How many processes the launcher started; 0 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "0"))


def read_rank() -> int:
    """This process's number among the launcher's; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))
