"""A plugin of vLLM (entry point ``vllm.general_plugins``) that ends an engine when its server has died.

Without it, vLLM's engine core outlives a server that is killed, and keeps the GPU's memory. Every process of vLLM loads
this plugin if Tureen is installed. It acts only in an engine core that a Tureen server started.
"""

import os
import threading
import time

from tureen_serve.process_environment import find_engine_owner

WATCH_SECONDS = 1.0


def watch_server() -> None:
    """Start a thread that ends this engine core when its server has died; in any other process, do nothing."""
    owner = find_engine_owner()
    if owner is not None and os.getppid() == owner:
        threading.Thread(target=_exit_with_server, args=(owner,), name="tureen owner", daemon=True).start()


def _exit_with_server(owner: int) -> None:
    """Wait until the parent process is another one, which means that the server has died; then exit."""
    while os.getppid() == owner:
        time.sleep(WATCH_SECONDS)
    os._exit(1)  # vLLM's worker processes end with their engine core
