"""How the comparison is measured: the configuration of the server of all methods, and the recipes of the fronts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tureen_core.preference import normalise_weights
from tureen_train.comparison.runs import FRONTS, MIXED, SENTENCES, ComparedMethods, Json, name_mixed
from tureen_train.front.grids import name_point

LOWEST = -4.0  # of the hypervolumes: an expert may lower another reward by more than two deviations


def plan_server(made: ComparedMethods) -> Json:
    """The configuration of the server of all methods."""
    base, steering = made.family.expert["model"]["base"], {"sentences": SENTENCES}
    experts = [str((made.packaged / "experts" / name).resolve()) for name in SENTENCES]
    mixed = [name_mixed(FRONTS[front], weights) for front, every in MIXED.items() for weights in every]
    rics = [f"ric-{front}{stage}" for front in FRONTS for stage in ("", "-online")]
    return {
        "rewards": [{"path": str((made.packaged / "rewards" / name).resolve())} for name in SENTENCES],
        "families": [
            {"name": made.family.name, "experts": experts},
            {"name": "psoups", "experts": [made.find_artifact("psoups", name) for name in SENTENCES]},
            {"name": "morlhf", "experts": [made.find_artifact("morlhf", name) for name in mixed]},
            {"name": "told", "base": base, "steering": steering},
            {"name": "multitask", "policy": made.find_artifact("multitask", "multitask"), "steering": steering},
            *({"name": name, "policy": made.find_artifact(name, "policy")} for name in rics),
        ],
    }


def plan_front(made: ComparedMethods, front: str, server: Path, count: int) -> Json:
    """The recipe of one measurement."""
    names, soup = FRONTS[front], made.family.name
    corners = {name_point({name: 1.0}): f"{soup}:{name}=1" for name in names}
    inner = {
        name_point(
            normalise_weights(dict(zip(names, weights, strict=True)), names)
        ): f"morlhf:{name_mixed(names, weights)}=1"
        for weights in MIXED[front]
    }
    members = [str(made.out / "psoups" / name) for name in names]
    mixed = [str(made.out / "morlhf" / name_mixed(names, weights)) for weights in MIXED[front]]
    rics = [str(made.out / f"ric-{front}{stage}" / "policy") for stage in ("", "-online")]
    methods: list[Json] = [
        {"name": "base", "model": soup, "steering": "none"},
        {"name": "prompted", "model": "told"},
        {"name": "multitask", "model": "multitask", "cost": {"runs": [str(made.out / "multitask" / "multitask")]}},
        {"name": "morlhf", "steering": "models", "models": {**corners, **inner}, "cost": {"runs": mixed}},
        {"name": "soup-delta", "model": soup, "soup": {"semantics": "delta"}},
        {"name": "soup-factor", "model": soup, "soup": {"semantics": "factor"}},
        {"name": "p-soups", "model": "psoups", "cost": {"runs": members}, "sentences": _choose(SENTENCES, names)},
        {"name": "ric", "model": f"ric-{front}", "cost": {"runs": rics[:1]}},
        {"name": "ric-online", "model": f"ric-{front}-online", "cost": {"runs": rics}},
        {"name": "best-of-8", "model": soup, "steering": "none", "candidates": 8},
        {"name": "soup-best-of-4", "model": soup, "candidates": 4},
    ]
    return {
        "kind": "front",
        "name": f"methods-{front}",
        "objectives": {name: _choose(made.reward(name), ("source", "path")) for name in names},
        "servers": {"all": {"start": ["--config", str(server)]}},
        "methods": [{**each, "server": "all"} for each in methods],
        "baseline": "base",
        "base": made.family.expert["model"]["base"],
        "prompts": str(made.out / "prompts.json"),
        "count": count,
        "reference": dict.fromkeys(names, LOWEST),
        "sampling": {"max_tokens": 96, "temperature": 0.7, "concurrency": 8},
        "output": str(made.out / front),
    }


def _choose(table: Mapping[str, Any], keys: Sequence[str]) -> Json:
    return {key: table[key] for key in keys}
