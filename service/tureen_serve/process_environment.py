"""Environment variables that Tureen sets for libraries and child processes."""

import ctypes
import os
import secrets
import sys

from tureen_core.plain.hub import limit_hub_to_requests

OWNER = "TUREEN_ENGINE_OWNER"
KERNELS = "64"  # a forward pass needs about ten
M_ARENA_MAX = -8  # of glibc's mallopt
ARENAS = 2
SWITCH_SECONDS = 0.0005


def stay_offline() -> None:
    """Stop libraries from contacting model hubs and from sending usage statistics. Call it before they are imported.

    Only a model that the user names by its hub name may be downloaded, see :mod:`tureen_core.plain.hub`.
    """
    limit_hub_to_requests()
    quiet = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; without it Ray warns of the change
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines share the cores
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)


def limit_native_memory() -> None:
    """Limit what native libraries keep in memory. Call it before torch is imported.

    oneDNN keeps a kernel of about 0.3 MB for each size of input, and torch keeps it once more; every length of a text
    is another size. glibc gives each thread an arena, whose free memory no other thread uses.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, KERNELS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(M_ARENA_MAX, ARENAS)


def share_interpreter() -> None:
    """Let threads take turns sooner than Python does by default.

    The event loop gives the interpreter's lock away at each of its system calls. It then waits for every thread that
    tokenises, and each holds the lock for the whole interval.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def secure_private_ray() -> None:
    """Configure the private Ray that this process will start.

    Ray opens its ports on every network interface, so a random token protects them. By default Ray lowers the priority
    of its workers; here the workers do the main work, so they keep the normal priority.
    """
    guard = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {**guard, "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}


def claim_engines() -> None:
    """Mark this process as the owner of the engines that it will start."""
    os.environ[OWNER] = str(os.getpid())


def find_engine_owner() -> int | None:
    """Return the process id of the Tureen server that started this engine, or None."""
    owner = os.environ.get(OWNER)
    return int(owner) if owner else None
