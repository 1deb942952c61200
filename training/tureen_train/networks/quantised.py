"""A base quantised to 4 or 8 bits under a LoRA of full precision (QLoRA, arXiv 2305.14314), by bitsandbytes."""

from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available

from tureen_core.artifact import HEAD
from tureen_train.config import Model, RecipeError

WHOLE = [HEAD, "lm_head"]  # not quantised: they are trained, or tied to the embeddings


def make_quantisation(settings: Model) -> Any:
    """Make the library's settings for a quantised base (``nf4`` with double quantisation, or ``int8``); None without.

    Raises:
        RecipeError: bitsandbytes is not installed.
    """
    if settings.quantise is None:
        return None
    if not is_bitsandbytes_available():
        raise RecipeError("model.quantise: bitsandbytes is not installed: pip install 'tureen[qlora]'")
    if settings.quantise == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32,
        llm_int8_skip_modules=WHOLE,
    )
