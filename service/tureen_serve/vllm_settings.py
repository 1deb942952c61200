"""The settings of vLLM's engines: the field ``vllm`` of :class:`tureen_serve.settings.Settings`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class VllmSettings(BaseModel):
    """How vLLM's engines run, if the runtime is ``vllm``.

    A base with rewards and experts needs two engines. Their names are ``<base>-scores`` and the name of the family.

    Attributes:
        memory: engine → its share of each GPU's memory. Engines without a share divide the rest of 0.9 equally.
        cache_gib: GiB for keys and values of each engine on a CPU, instead of ``memory``.
        context: the largest number of tokens of a text; by default what the model supports.
        rows: the largest number of texts in one step.
        step_tokens: the largest number of tokens in one step.
        tensor_parallel: the number of GPUs of each engine.
        eager: run without CUDA graphs.
        gate: ``off`` serves one merged LoRA for each weight vector.
        scores: the runtime that scores. ``auto`` takes the packed scorer of transformers for backbones under two
            billion weights on a GPU, because it was measured to be faster there, and vLLM otherwise.
        adapters: without the gate, the largest number of merged LoRAs at once.
        restarts: how many times in a row a dead engine is started again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    cache_gib: PositiveFloat = 2.0
    context: PositiveInt | None = None
    rows: PositiveInt = 256
    step_tokens: PositiveInt = 8192
    tensor_parallel: PositiveInt = 1
    eager: bool = False
    gate: Literal["auto", "off"] = "auto"
    scores: Literal["auto", "vllm", "transformers"] = "auto"
    adapters: PositiveInt = 8
    restarts: Annotated[int, Field(ge=0)] = 3
