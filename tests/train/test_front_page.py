"""The page of a front: texts stay texts, and nothing is asked for over the network."""

import json
import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from train.fronts import front, method

from tureen_train.front.grids import EVERYWHERE
from tureen_train.front.report import write_front_report

EVIL = "</script><img src=x onerror=alert(1)> <!-- & \u2028"


@pytest.fixture(scope="module", params=[2, 3])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A front with hostile texts, written."""
    size = request.param
    names = list("abc")[:size]
    rows = [[float(at + each) for each in range(size)] for at in range(3)]
    methods = [method("base", {EVERYWHERE: rows}, EVIL), method("soup", {f"{name}=1": rows for name in names}, EVIL)]
    told = front(methods, names, prompts={str(at): f"{at} {EVIL}" for at in range(3)})
    written: Path = tmp_path_factory.mktemp(f"objectives-{size}", numbered=False)
    assert write_front_report(told, written) == written / "front.html"
    return written


def test_all_files_are_written(folder: Path) -> None:
    for name in ("front.png", "hypervolume.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    told = json.loads((folder / "results.json").read_text())
    assert list(told["methods"]) == ["base", "soup"]
    assert set(told["methods"]["base"]["points"][0]) == {"point", "means", "front", "tolerant_front", "own_front"}


def test_texts_are_never_html_and_are_kept_whole(folder: Path) -> None:
    page = (folder / "front.html").read_text()
    own = page.replace(get_plotlyjs(), "")
    assert own != page
    assert "onerror=alert(1)>" not in own
    assert own.count("</script>") == 3
    found = re.search(r'<script type="application/json" id="front-data">(.*?)</script>', own, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert data["methods"][0]["points"][0]["texts"] == [EVIL] * 3
    assert data["prompts"][1] == f"1 {EVIL}"


def test_the_page_names_no_address_and_its_policy_forbids_requests(folder: Path) -> None:
    own = (folder / "front.html").read_text().replace(get_plotlyjs(), "")
    assert not re.findall(r"https?://|(?:src|href)=[\"'][^#d]|@import|url\(", own.replace("src=x", ""))
    assert "default-src 'none'" in own
    assert 'showSendToCloud: false, plotlyServerURL: ""' in own  # Plotly has a button that shares a chart
    assert ('id="ternary-plot"' in own) == (folder.name == "objectives-3")
