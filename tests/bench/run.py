"""``make bench``: a starter server of its own, every bench against it, tables with ratios. Not timed tests."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import grammars, health, sharing, soups

from tureen_serve.settings import STARTER
from tureen_serve.starter.demo import find_free_port, run_server


def main() -> None:
    """Run and print."""
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    benches: dict[str, Callable[[], list[str]]] = {
        "Health while a large batch is scored": lambda: health.main(url),
        "A prompt computed once for its candidates": lambda: sharing.main(url, STARTER / "rewards" / "helpful"),
        "A gate row for each request": lambda: soups.main(url),
        "A grammar for each text": lambda: grammars.main(url),
    }
    with run_server(port):
        for title, bench in benches.items():
            print(f"\n## {title}\n")
            print("\n".join(bench()), flush=True)


if __name__ == "__main__":
    main()
