"""Open a policy family whose texts an upstream writes. No model is loaded."""

import hashlib
import json

from tureen_serve.runtimes.catalogue import Family, UpstreamFamily
from tureen_serve.runtimes.on_upstream.upstream_key import UpstreamKey
from tureen_serve.runtimes.on_upstream.upstream_policy import UpstreamPolicy
from tureen_serve.runtimes.steered_policies import check_told_weights
from tureen_serve.settings import FamilyEntry

OBSTACLE = "an upstream writes its texts"


def open_upstream(entry: FamilyEntry) -> UpstreamFamily:
    """Open a family, and look whether its upstream answers; one that does not is served all the same.

    Raises:
        LoadError: its key is missing, or a preset is invalid.
    """
    upstream, steering = entry.upstream, entry.steering
    assert upstream is not None  # the settings check both
    assert steering is not None
    where = f"families.{entry.name}"
    presets, default = check_told_weights(entry, steering, where)
    runtime = UpstreamPolicy(entry.name, upstream, UpstreamKey(upstream, f"{where}.upstream"))
    asked = upstream.model_dump(include={"base_url", "model", "extra", "limit_field"})
    identity = json.dumps([asked, steering.model_dump()], sort_keys=True)
    family = Family(
        name=entry.name,
        base=upstream.model,
        experts={},
        renderer=None,
        context=0,
        presets=presets,
        default=default,
        semantics="delta",
        normalize="simplex",
        factor_obstacle=OBSTACLE,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16],
        steering=steering,
    )
    runtime.probe()
    return UpstreamFamily(family, runtime)
