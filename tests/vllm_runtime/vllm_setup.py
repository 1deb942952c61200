"""A vLLM runtime small enough for tests."""

import tempfile
from pathlib import Path
from typing import Any

from tureen_serve.runtimes.contract import BatchLimits
from tureen_serve.vllm_settings import VllmSettings

SMALL = VllmSettings(cache_gib=0.25, rows=16, step_tokens=512, restarts=2, adapters=2)


def runtime(settings: VllmSettings = SMALL) -> Any:
    """In float32, on whatever this vLLM runs on."""
    from tureen_serve.runtimes.on_vllm.models import VllmRuntime

    return VllmRuntime("float32", "auto", BatchLimits(), settings, Path(tempfile.mkdtemp(prefix="tureen-cache-")))
