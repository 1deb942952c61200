"""What Tureen brings into vLLM's processes (entry point ``vllm.general_plugins``): an engine ends with its server.

vLLM's engine core outlives a server that is killed, and holds the GPU. vLLM loads this in its processes wherever the
package is installed; it does something only in an engine core that a Tureen server started.
"""

import os
import threading
import time

from tureen_serve.process_environment import find_engine_owner

SECONDS = 1.0


def watch_server() -> None:
    """Watch over the server from its engine core; anywhere else, nothing."""
    owner = find_engine_owner()
    if owner is not None and os.getppid() == owner:
        threading.Thread(target=_end_with, args=(owner,), name="tureen owner", daemon=True).start()


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(SECONDS)
    os._exit(1)  # the worker processes end with their engine core
