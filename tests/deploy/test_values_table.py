import json
import re
from pathlib import Path

import pytest
from deploy.helm import CHART, TRAINING, Helm, pod
from deploy.values_table import Undescribed, make_table, place_table, read_values
from yaml import safe_load

README = (CHART / "README.md").read_text()


@pytest.mark.parametrize("chart", [CHART, TRAINING])
def test_table_of_values_is_made_of_the_comments(chart: Path) -> None:
    page = (chart / "README.md").read_text()
    assert place_table(page, make_table(chart / "values.yaml")) == page, "run: python tests/deploy/values_table.py"


@pytest.mark.parametrize("chart", [CHART, TRAINING])
def test_table_has_every_value_with_its_default(chart: Path) -> None:
    values = safe_load((chart / "values.yaml").read_text())
    for path, default, told in read_values(chart / "values.yaml"):
        found = values
        for key in path.split("."):
            found = found[key]
        assert json.loads(default) == found
        assert told.endswith((".", "]", "`", "*", ")")), path


def test_a_value_without_a_comment_is_found(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("# -- Told.\ntold: 1\nsection:\n  # no description\n  untold: 2\n")
    with pytest.raises(Undescribed, match=r"section\.untold"):
        list(read_values(file))


def test_values_of_the_readme_serve_a_model_of_ones_own(helm: Helm) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    spec = pod(helm.render(safe_load(block)))
    (fetch,) = spec["initContainers"]
    assert fetch["envFrom"] == [{"secretRef": {"name": "models-store"}}]
    assert "--from-literal AWS_ACCESS_KEY_ID" in README
    assert "secret generic models-store" in README
