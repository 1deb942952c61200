"""What the fork server of :mod:`vllm_runtime.forked_engines` imports: an engine core that forks its workers."""

import gc
import multiprocessing

import vllm.v1.engine.async_llm
import vllm.v1.engine.core
import vllm.v1.worker.cpu_worker  # noqa: F401  (imported here once for all engines)
from vllm.v1.executor import multiproc_executor

from tureen_serve.process_environment import claim_engines
from tureen_serve.runtimes.on_vllm.plugin import watch_server

multiproc_executor.get_mp_context = lambda: multiprocessing.get_context("fork")
watch_server()  # ends this process with the test, and
claim_engines()  # the engines with this process, which is their parent
gc.freeze()  # what is imported stays shared
