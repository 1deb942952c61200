"""Start the lanes of loaded models: each runtime has the kind of lane that it needs."""

from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.lane import Observer, ignore_run
from tureen_serve.inference.registry import Served, ServedBackbone, ServedFamily, TextLane
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.inference.stepper_lane import StepperLane
from tureen_serve.inference.upstream_lane import UpstreamLane
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels, Policy, UpstreamFamily
from tureen_serve.runtimes.contract import Generator


def open_lanes(
    loaded: LoadedModels,
    queue_tokens: int = 2**20,
    queue_jobs: int = 256,
    kept: int = 0,
    observe: Observer = ignore_run,
) -> list[Served]:
    """Start a lane for each backbone and family. The arguments are those of the engine."""
    served: list[Served] = [open_backbone(each, queue_tokens, kept, observe) for each in loaded.backbones]
    families = [_open_policy(each, queue_jobs, observe) for each in loaded.policies]
    families += [_open_upstream(each, queue_jobs, observe) for each in loaded.upstreams]
    if loaded.order:  # the first one answers requests without a model
        families.sort(key=lambda each: loaded.order.index(each.family.name))
    return [*served, *families]


def open_backbone(
    backbone: Backbone, queue_tokens: int = 2**20, kept: int = 0, observe: Observer = ignore_run
) -> ServedBackbone:
    """Start the lane of a backbone. The arguments are those of the engine."""
    lane = ScorerLane(backbone.name, backbone.scorer, queue_tokens, observe, kept)
    lane.speed.expect(backbone.speed)
    return ServedBackbone(lane, backbone.rewards, backbone.scorer.description)


def _open_policy(policy: Policy, queue_jobs: int, observe: Observer) -> ServedFamily:
    runtime, options = policy.runtime, (queue_jobs, observe)
    if isinstance(runtime, Generator):
        lane: TextLane = GeneratorLane(policy.family.name, runtime, *options)
    else:
        lane = StepperLane(policy.family.name, runtime, *options)
    lane.speed.expect(policy.speed)
    return ServedFamily(lane, policy.family, runtime.description)


def _open_upstream(served: UpstreamFamily, queue_jobs: int, observe: Observer) -> ServedFamily:
    lane = UpstreamLane(served.family.name, served.upstream, queue_jobs, observe)
    return ServedFamily(lane, served.family, served.upstream.description)
