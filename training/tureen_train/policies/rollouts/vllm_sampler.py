"""Write a policy's answers by vLLM in this process, with the adapter of a policy in training.

vLLM computes a prompt once for all its answers and joins answers to its batch as others end. Each answer has its own
seed. Rounding depends on the batch, so an answer may differ from one run to the next where two tokens are about as
likely.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from tureen_core.template import Renderer
from tureen_train.config import RecipeError, Sampling
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample
from tureen_train.policies.rollouts.sampler import find_end_tokens, make_sample
from tureen_train.settings import count_processes, prepare_vllm

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # sizes of vLLM's LoRA layers
CPU_CACHE = 2**30  # bytes of keys and values, where vLLM runs on a CPU


class VllmSampler:
    """Writes answers with a vLLM engine of this process. Call :meth:`close` before other models need the GPU.

    Args:
        weights: the folder of the base, or of a whole checkpoint.
        adapter: a PEFT folder with a LoRA over it, or None.
        rank: of the adapter.
        renderer: makes the prompts' ids.
        sampling: decides the longest text.
        half: whether to compute in bfloat16 instead of float32.

    Raises:
        RecipeError: vLLM is not installed, or a launcher started several processes.
    """

    def __init__(
        self, weights: Path, adapter: Path | None, rank: int, renderer: Renderer, sampling: Sampling, half: bool
    ) -> None:
        if count_processes() > 1:
            raise RecipeError("sampling.engine: vllm runs in one process; use process with a launcher")
        vllm = _import_vllm()
        self._renderer = renderer
        self._make_parameters = vllm.SamplingParams
        arguments: dict[str, Any] = {
            "model": str(weights),
            "dtype": "bfloat16" if half else "float32",
            "max_model_len": sampling.max_prompt + sampling.max_tokens,
            "max_num_seqs": sampling.batch,
            "enable_prefix_caching": True,
            "generation_config": "vllm",
            "disable_log_stats": True,
        }
        self._adapter = None
        if adapter is not None:
            arguments |= {"enable_lora": True, "max_lora_rank": next((each for each in RANKS if each >= rank), rank)}
            self._adapter = vllm.lora.request.LoRARequest("policy", 1, str(adapter))
        if vllm.platforms.current_platform.is_cpu():
            arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": CPU_CACHE}
        self._engine = vllm.LLM(**arguments)
        self.ends = find_end_tokens(_read_end_tokens(weights), renderer)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, done: Done) -> list[list[Sample]]:
        """Write ``sampling.count`` answers to each prompt. See the contract."""
        given, parameters, places = [], [], []
        for prompt in prompts:
            ids = encode_prompt(self._renderer, prompt.messages, prompt.template_arguments)
            for number in range(sampling.count):
                given.append({"prompt_token_ids": ids})
                parameters.append(self._choose(sampling, _make_seed(seed, prompt.id, number)))
                places.append((prompt.id, number))
        outputs = self._engine.generate(given, parameters, lora_request=self._adapter, use_tqdm=False) if given else []
        done(len(outputs))
        samples = [self._read(*each) for each in zip(places, outputs, strict=True)]
        return [samples[start : start + sampling.count] for start in range(0, len(samples), sampling.count)]

    def close(self) -> None:
        """End the engine, and free its memory."""
        self._engine.llm_engine.engine_core.shutdown()

    def _choose(self, sampling: Sampling, seed: int) -> Any:
        return self._make_parameters(
            max_tokens=sampling.max_tokens,
            min_tokens=max(0, sampling.min_tokens - 1),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=seed,
            stop_token_ids=self.ends,
            logprobs=0,
            detokenize=False,
        )

    def _read(self, place: tuple[str, int], output: Any) -> Sample:
        (written,) = output.outputs
        ids = list(written.token_ids)
        logprobs = [float(row[token].logprob) for token, row in zip(ids, written.logprobs, strict=True)]
        return make_sample(place, ids, logprobs, self.ends, self._renderer.tokenizer)


def _import_vllm() -> Any:
    prepare_vllm()
    try:
        import vllm
        import vllm.lora.request
    except ImportError as error:
        raise RecipeError(
            "sampling.engine: vllm is not installed: pip install 'tureen[vllm]', or set engine: process"
        ) from error
    return vllm


def _read_end_tokens(weights: Path) -> int | list[int] | None:
    """Read the end tokens of a model's folder, as transformers does when it loads the model."""
    if (weights / "generation_config.json").is_file():
        found: int | list[int] | None = GenerationConfig.from_pretrained(weights).eos_token_id
    else:
        found = AutoConfig.from_pretrained(weights).eos_token_id
    return found


def _make_seed(seed: int, prompt: str, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {number} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**63
