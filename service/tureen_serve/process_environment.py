"""Environment variables that Tureen sets for the libraries and the child processes of its own process."""

import os
import secrets

OWNER = "TUREEN_ENGINE_OWNER"


def stay_offline() -> None:
    """Tell the libraries below, before they are imported, to ask no hub and send no statistics."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what it will do one day
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines on one set of cores
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)


def secure_private_ray() -> None:
    """Settings of a Ray that this process is about to start.

    Its ports are open on every interface, so that it hears only those who have its token. Its workers are niced by
    default, as if somebody waited for something else.
    """
    guard = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {**guard, "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}


def claim_engines() -> None:
    """Let the engines that this process starts know whose they are."""
    os.environ[OWNER] = str(os.getpid())


def find_engine_owner() -> int | None:
    """The process that started this engine, if it was a Tureen server."""
    owner = os.environ.get(OWNER)
    return int(owner) if owner else None
