"""The starter artifacts: their versions hold, and a lost, damaged or foreign adapter does not pass the proof."""

from pathlib import Path

import pytest
from serve.damaged import HONEST, damage_artifact, prove_copies

import tureen_serve
from tureen_core.artifact import read_manifest
from tureen_core.tolerance import BARE, LOGPROB, SHARE_OF_RANGE, compute_tolerance, get_reading, list_checked_weights

pytestmark = pytest.mark.long

STARTER = Path(tureen_serve.__file__).parent / "starter"
ARTIFACTS = sorted(path.parent.relative_to(STARTER).as_posix() for path in STARTER.glob("*/*/tureen.json"))


@pytest.mark.parametrize("name", ARTIFACTS)
def test_the_identity_is_that_of_the_recorded_version(name: str) -> None:
    manifest = read_manifest(STARTER / name)
    assert manifest.identity()[:12] == manifest.version
    assert all(objective.calibration is not None for objective in manifest.objectives)


@pytest.mark.parametrize("dtype", SHARE_OF_RANGE)
@pytest.mark.parametrize("name", ARTIFACTS)
def test_the_bare_base_is_far_beyond_every_objectives_tolerance(name: str, dtype: str) -> None:
    manifest = read_manifest(STARTER / name)
    for objective in [LOGPROB] if manifest.kind == "expert" else [each.name for each in manifest.objectives]:
        weight = max(list_checked_weights(manifest.probes, objective))
        allowed = compute_tolerance(manifest, objective, dtype, weight)
        apart = []
        for probe in manifest.probes:
            seen, bare = get_reading(probe, objective, weight), get_reading(probe, objective, BARE)
            assert seen is not None
            assert bare is not None
            apart.append(abs(seen - bare))
        assert max(apart) > 3 * allowed


@pytest.mark.parametrize(
    ("name", "neighbour", "dtype"),
    [
        ("rewards/harmless", "helpful", "float32"),
        ("rewards/harmless", "helpful", "bfloat16"),
        ("experts/academy", "business", "bfloat16"),
    ],
)
def test_damage_is_refused_and_an_honest_artifact_is_not(name: str, neighbour: str, dtype: str, tmp_path: Path) -> None:
    folder = STARTER / name
    copies = damage_artifact(folder, tmp_path, [folder.parent / neighbour])
    proofs = prove_copies([copy for several in copies.values() for copy in several], dtype, most=1)
    refused = {kind: not all(proof.holds for proof in proofs[copy.name]) for kind, (copy,) in copies.items()}
    assert refused == {kind: kind != HONEST for kind in copies}
