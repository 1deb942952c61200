"""``python -m tureen_core.plain.hub_download ORG/NAME REVISION [pickles]``: download, and print the folder as JSON."""

import json
import sys

from tureen_core.plain.hub import download_snapshot
from tureen_core.plain.source_text import HubName


def main(repository: str, revision: str, *further: str) -> None:
    """Download a model from the hub, and print ``{"folder": …}`` or ``{"error": …}``."""
    try:
        answer = {"folder": str(download_snapshot(HubName(repository, revision), "pickles" in further))}
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        answer = {"error": " ".join(str(error).split())[:500]}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
