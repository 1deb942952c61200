"""``make bench``: a starter server of its own, every bench against it, tables with ratios. Not timed tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import health
import sharing
import soups

from tureen_serve.settings import STARTER
from tureen_serve.starter.demo import free_port, server


def main() -> None:
    """Run and print."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with server(port):
        for title, lines in (
            ("Health while a large batch is scored", lambda: health.main(url)),
            ("A prompt computed once for its candidates", lambda: sharing.main(url, STARTER / "rewards" / "helpful")),
            ("A gate row for each request", lambda: soups.main(url)),
        ):
            print(f"\n## {title}\n")
            print("\n".join(lines()), flush=True)


if __name__ == "__main__":
    main()
