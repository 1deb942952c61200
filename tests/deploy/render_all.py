"""Render the charts with all values of their folders ``ci/``, for tools that read manifests.

    python tests/deploy/render_all.py FOLDER

writes FOLDER/CHART-VALUES.yaml for each.
"""

import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.fetch_helm import fetch
from deploy.helm import CHART, TRAINING, Helm

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for chart in (CHART, TRAINING):
        for values in sorted(chart.glob("ci/*-values.yaml")):
            manifests = Helm(fetch("4.3.1"), chart).render(yaml.safe_load(values.read_text()))
            name = f"{chart.name}-{values.name.removesuffix('-values.yaml')}"
            (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(manifests))
