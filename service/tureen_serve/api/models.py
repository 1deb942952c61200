"""``GET /v1/models``: the models in OpenAI's list, loaded or not. An ``id`` is the name that a request uses."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from tureen.errors import NotFound
from tureen.mixes import check_sum
from tureen.wire import ModelCard, ModelList
from tureen_core.artifact import Manifest
from tureen_core.preference import normalise_weights, parse_model
from tureen_core.steering import PromptSteering
from tureen_serve.api.server_state import ServerState, ServerStateDep
from tureen_serve.faults import document_openai_errors
from tureen_serve.inference.engine import Family, Reward
from tureen_serve.inference.pooled_model import list_some
from tureen_serve.runtimes.root_folder import OfferedReward

router = APIRouter(tags=["models"])
ON_DEMAND = "transformers (loaded on demand)"
UPSTREAM = "upstream (another server writes)"
Kind = Annotated[Literal["policy", "preset", "reward"] | None, Query(alias="type", description="Only these models.")]


@router.get("/v1/models", responses=document_openai_errors(422, 503, 504))
async def models(server: ServerStateDep, kind: Kind = None) -> ModelList:
    """List every policy family, preset and reward. `loaded: false` means that a reward is loaded when it is named."""
    await _refresh(server)
    return ModelList(data=[card for card in _cards(server) if kind in (None, card.kind)])


@router.get("/v1/models/{name}", responses=document_openai_errors(404, 422, 503, 504))
async def model(name: str, server: ServerStateDep) -> ModelCard:
    """Return one reward, policy family or preset, or a mix of a family's experts."""
    await _refresh(server)
    cards = {card.id: card for card in _cards(server)}
    if name in cards:
        return cards[name]
    family, weights = parse_model(name)
    if weights is None or family not in server.require_engine().families:
        raise NotFound(f"no model is called {name!r}; known: {list_some(cards)}", param="model", code="model_not_found")
    return _mix(server.require_engine().families[family], cards[family], name, weights)


async def _refresh(server: ServerState) -> None:
    """Look for new folders in the rewards root."""
    pool = server.require_engine().pool
    if pool is not None:
        await pool.refresh()


def _cards(server: ServerState) -> Iterator[ModelCard]:
    engine = server.require_engine()
    shared = {"created": server.since, "runtime": engine.runtime}
    for family in engine.families.values():
        told = shared if family.renderer else shared | {"runtime": UPSTREAM}
        policy = _policy(family).model_copy(update=told)
        yield policy
        for preset, weights in family.presets.items():
            yield _weigh(policy, f"{family.name}:{preset}", preset, dict(weights))
    for reward in engine.rewards.values():
        yield _reward(reward, reward.fingerprint).model_copy(update=shared)
    for offered, fingerprint, loaded in engine.pool.list_rewards() if engine.pool else ():
        yield _reward(offered, fingerprint).model_copy(update=shared | {"loaded": loaded, "runtime": ON_DEMAND})


def _reward(reward: Reward | OfferedReward, fingerprint: str | None) -> ModelCard:
    manifest = reward.artifact.manifest
    return ModelCard(
        id=reward.name,
        kind="reward",
        objectives=[reward.name],
        version=manifest.version or None,
        fingerprint=fingerprint,
        base=_base(manifest),
        max_length=manifest.reading.max_length,
        calibration={reward.name: reward.calibration.model_dump()} if reward.calibration else {},
        calibrated=reward.calibration is not None,
        input=manifest.input,
        trained_on=manifest.training.list_digests(),
        evaluation=_list_measures(manifest.training.metrics),
        licences=manifest.training.licences,
    )


def _list_measures(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """List the numbers that training measured on each set of data. What is no finite number is left out."""
    sets = {name: found for name, found in metrics.items() if isinstance(found, dict)}
    return {
        name: {key: value for key, value in found.items() if type(value) in (int, float) and math.isfinite(value)}
        for name, found in sets.items()
    }


def _policy(family: Family) -> ModelCard:
    return ModelCard(
        id=family.name,
        kind="policy",
        objectives=family.objectives,
        version=family.policy.manifest.version if family.policy else None,
        fingerprint=family.fingerprint,
        base=Path(family.base).name,
        max_length=family.context or None,
        **_steering(family),
        presets={name: dict(weights) for name, weights in family.presets.items()},
    )


def _steering(family: Family) -> dict[str, Any]:
    steering = family.steering
    if steering is None:
        return {"steering": ["soup"]}
    told: dict[str, Any] = {"steering": [steering.method]}
    if isinstance(steering, PromptSteering):
        return {**told, "sentences": {each.objective: each.text for each in steering.sentences}}
    bounds = {"low", "high", "mean", "deviation"}
    return {**told, "ranges": {each.name: each.model_dump(include=bounds) for each in steering.objectives}}


def _mix(family: Family, policy: ModelCard, name: str, weights: Mapping[str, float]) -> ModelCard:
    """The card of a mix that is named by its weights.

    Raises:
        Unprocessable: the weights cannot be used; a chat refuses them too.
    """
    found = normalise_weights(weights, family.objectives, family.normalize, "model")
    if family.normalize == "simplex":
        check_sum(weights, name)
    return _weigh(policy, name, name.partition(":")[2], found)


def _weigh(policy: ModelCard, name: str, preset: str, weights: dict[str, float]) -> ModelCard:
    """The card of a preset or a mix of a policy."""
    told = {"id": name, "kind": "preset", "objectives": list(weights), "presets": {preset: weights}}
    return policy.model_copy(update=told)


def _base(manifest: Manifest) -> str | None:
    """Return the base's name without its folder on this machine."""
    return Path(manifest.base.model).name if manifest.base else None
