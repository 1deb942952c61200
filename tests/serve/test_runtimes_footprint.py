"""The memory of weights: shared bases count once, and a base is known by its weights and its configuration."""

import json
import shutil
from pathlib import Path

import tiny

from tureen_serve.runtimes.footprint import Footprint, add_footprints, count_weights, make_base_key

BASE, OTHER = ("digest", "config"), ("digest", "other config")


def test_a_base_that_several_models_share_counts_once() -> None:
    assert add_footprints([]) == 0
    assert add_footprints([Footprint(5), Footprint(7)]) == 12
    assert add_footprints([Footprint(5, BASE, 100), Footprint(7, BASE, 100)]) == 112
    assert add_footprints([Footprint(5, BASE, 100), Footprint(7, OTHER, 100), Footprint(1)]) == 213


def test_adapters_have_one_base_if_its_weights_and_configuration_are_equal(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    one, two = (tiny.reward(tmp_path / name, base, name, seed) for seed, name in enumerate(("one", "two")))
    assert make_base_key(one, base) == make_base_key(two, base)
    again = Path(shutil.copytree(base, tmp_path / "again"))
    assert make_base_key(one, again) == make_base_key(one, base)
    config = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert make_base_key(one, again) != make_base_key(one, base)
    other = tiny.base(tmp_path / "other", seed=1)
    assert make_base_key(tiny.reward(tmp_path / "three", other, "three", 3), other) != make_base_key(one, base)


def test_an_adapter_counts_its_factors_and_its_head(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    tiny.reward(tmp_path / "one", base, "one", 1)
    pairs = tiny.adapter("one", 1).modules.values()
    assert count_weights(tmp_path / "one") == sum(each.a.numel() + each.b.numel() for each in pairs) + 32
