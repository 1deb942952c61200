"""Many engines of vLLM in one test: their processes are forked from one that has imported vLLM once.

By default each engine starts two processes that import vLLM anew, which takes longer than all else in a test.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def fork_engines() -> Iterator[None]:
    """Let the engines that start meanwhile be forked. They have the environment of the first one."""
    from vllm.v1.engine import utils

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vllm_runtime.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setattr(utils, "get_mp_context", lambda: context)
        yield
