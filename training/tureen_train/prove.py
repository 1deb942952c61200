"""``python -m tureen_train.prove FOLDER``: prove and export a sharded run in a fresh process."""

import sys
from pathlib import Path

from tureen_train.kinds import find_artifact_kind
from tureen_train.runs.folder import read_finished_run
from tureen_train.runs.proof import prove_and_export
from tureen_train.settings import set_offline


def main(folder: Path) -> None:
    """Prove and export the run in ``folder``."""
    run, _ = read_finished_run(folder)
    prove_and_export(folder, find_artifact_kind(run))


if __name__ == "__main__":
    set_offline()
    main(Path(sys.argv[1]))
