"""The memory of models that nobody holds any more."""

import gc

import torch
from transformers.integrations.deepspeed import unset_hf_deepspeed_config


def free_memory() -> None:
    """Free the memory of models that nobody holds any more, and let the next one be loaded whole.

    Under ZeRO-3 the library shards every model that is loaded while a trainer's settings are alive.
    """
    gc.collect()
    unset_hf_deepspeed_config()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
