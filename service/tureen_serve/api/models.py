"""``GET /v1/models``: the models in OpenAI's list, loaded or not. An ``id`` is the name that a request uses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tureen.errors import NotFound
from tureen.wire import ModelCard, ModelList
from tureen_core.artifact import Manifest
from tureen_core.steering import PromptSteering
from tureen_serve.api.server_state import ServerState, ServerStateDep
from tureen_serve.faults import document_openai_errors
from tureen_serve.inference.engine import Family, Reward
from tureen_serve.inference.pooled_model import list_some
from tureen_serve.runtimes.root_folder import OfferedReward

router = APIRouter(tags=["models"])
ON_DEMAND = "transformers (loaded on demand)"
UPSTREAM = "upstream (another server writes)"


@router.get("/v1/models", responses=document_openai_errors(503, 504))
async def models(server: ServerStateDep) -> ModelList:
    """List every reward, policy family and preset. `loaded: false` means that a reward is loaded when it is named."""
    await _refresh(server)
    return ModelList(data=list(_cards(server)))


@router.get("/v1/models/{name}", responses=document_openai_errors(404, 422, 503, 504))
async def model(name: str, server: ServerStateDep) -> ModelCard:
    """Return one reward, policy family or preset."""
    await _refresh(server)
    cards = {card.id: card for card in _cards(server)}
    if name not in cards:
        raise NotFound(f"no model is called {name!r}; known: {list_some(cards)}", param="model", code="model_not_found")
    return cards[name]


async def _refresh(server: ServerState) -> None:
    """Look for new folders in the rewards root."""
    pool = server.require_engine().pool
    if pool is not None:
        await pool.refresh()


def _cards(server: ServerState) -> Iterator[ModelCard]:
    engine = server.require_engine()
    shared = {"created": server.since, "runtime": engine.runtime}
    for reward in engine.rewards.values():
        yield _reward(reward, reward.fingerprint).model_copy(update=shared)
    for offered, fingerprint, loaded in engine.pool.list_rewards() if engine.pool else ():
        yield _reward(offered, fingerprint).model_copy(update=shared | {"loaded": loaded, "runtime": ON_DEMAND})
    for family in engine.families.values():
        told = shared if family.renderer else shared | {"runtime": UPSTREAM}
        yield _policy(family).model_copy(update=told)
        for preset in family.presets:
            yield _preset(family, preset).model_copy(update=told)


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
        trained_on=manifest.training.list_digests(),
    )


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


def _preset(family: Family, preset: str) -> ModelCard:
    weights = dict(family.presets[preset])
    return _policy(family).model_copy(
        update={
            "id": f"{family.name}:{preset}",
            "kind": "preset",
            "objectives": list(weights),
            "presets": {preset: weights},
        }
    )


def _base(manifest: Manifest) -> str | None:
    """Return the base's name without its folder on this machine."""
    return Path(manifest.base.model).name if manifest.base else None
