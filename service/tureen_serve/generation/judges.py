"""Which rewards choose among candidates, and how much each counts. Pure."""

from collections.abc import Mapping

from tureen.errors import Unprocessable
from tureen.wire import CandidateOptions
from tureen_core.calibration import check_common_scale
from tureen_core.preference import normalise_reward_weights
from tureen_serve.generation.method import Method, Variation, Weights
from tureen_serve.inference.engine import Reward

JUDGES = "candidates.preferences"
SUBTRACT = 'send `candidates: {"normalize": "none"}` to subtract a reward'


def find_judges(
    options: CandidateOptions | None, variation: Variation, rewards: Mapping[str, Reward], method: Method
) -> Weights:
    """Find the weights of the rewards that choose among candidates; empty if there are no candidates.

    Raises:
        Unprocessable: no loaded reward is named, or the rewards have no common scale.
    """
    if options is None:
        return {}
    judges = _judge_weights(options, variation.weights, rewards, method)
    check_common_scale(judges, {name: rewards[name].calibration for name in judges}, JUDGES)
    return judges


def _judge_weights(
    options: CandidateOptions, weights: Weights, rewards: Mapping[str, Reward], method: Method
) -> Weights:
    if options.preferences is not None:
        return normalise_reward_weights(options.preferences, rewards, options.normalize or "simplex", JUDGES, SUBTRACT)
    shared = {name: weight for name, weight in weights.items() if name in rewards}
    if not shared:
        known = ", ".join(sorted(rewards)) or "none"
        message = f"no loaded reward has the name of a weighed objective; send weights of rewards, loaded: {known}"
        raise Unprocessable(message, param=JUDGES)
    return normalise_reward_weights(shared, rewards, options.normalize or method.normalize, JUDGES, SUBTRACT)
