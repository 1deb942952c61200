"""Reading recipes: YAML files that are validated, and written with all defaults beside the result."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from tureen_train.config.experts import ExpertRun
from tureen_train.config.families import FamilyRun
from tureen_train.config.fronts import FrontRun
from tureen_train.config.parts import RecipeError
from tureen_train.config.recipe_changes import OwnData, apply_changes, parse_yaml, use_own_data
from tureen_train.config.rewards import RewardRun

RECIPES = Path(__file__).parents[1] / "recipes"
Recipe = Annotated[RewardRun | ExpertRun, Field(discriminator="kind")]
FRONT = get_args(FrontRun.model_fields["kind"].annotation)[0]
FAMILY = get_args(FamilyRun.model_fields["kind"].annotation)[0]
KINDS = [get_args(each.model_fields["kind"].annotation)[0] for each in (RewardRun, ExpertRun)]
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def read_recipe(source: str, changes: Sequence[str] = (), own: OwnData | None = None) -> Recipe:
    """Read a recipe file, or a packaged recipe by name, and apply changes of the form ``a.b=c``.

    Args:
        own: files that take the place of the recipe's.

    Raises:
        RecipeError: there is no such file, a key does not exist, or a value is invalid.
    """
    raw, where = _read_changed(source, changes, own)
    if raw.get("kind") == FAMILY:
        raise RecipeError(f"{where}: this is the recipe of a family: train it with tureen-train family")
    if raw.get("kind") == FRONT:
        raise RecipeError(f"{where}: this is the recipe of a front: measure it with tureen-train front")
    return resolve_recipe(raw, where)


def read_family(source: str, changes: Sequence[str] = ()) -> FamilyRun:
    """Read the recipe of a family, as :func:`read_recipe` reads one of a model.

    Raises:
        RecipeError: there is no such file, a key does not exist, or a value is invalid, also of an expert's recipe.
    """
    raw, where = _read_changed(source, changes)
    if raw.get("kind") != FAMILY:
        raise RecipeError(f"{where}: its kind is {raw.get('kind')!r}, not family: train it with tureen-train run")
    return _resolve_family(raw, where)


def read_front(source: str, changes: Sequence[str] = ()) -> FrontRun:
    """Read the recipe of a front, as :func:`read_recipe` reads one of a model.

    Raises:
        RecipeError: there is no such file, a key does not exist, or a value is invalid.
    """
    raw, where = _read_changed(source, changes)
    if raw.get("kind") != FRONT:
        raise RecipeError(f"{where}: its kind is {raw.get('kind')!r}, not front; see tureen-train recipes for fronts")
    return _resolve_front(raw, where)


def read_any(source: str, changes: Sequence[str] = ()) -> Recipe | FamilyRun | FrontRun:
    """Read the recipe of a model, of a family or of a front.

    Raises:
        RecipeError: see :func:`read_recipe`, :func:`read_family` and :func:`read_front`.
    """
    raw, where = _read_changed(source, changes)
    if raw.get("kind") == FRONT:
        return _resolve_front(raw, where)
    return _resolve_family(raw, where) if raw.get("kind") == FAMILY else resolve_recipe(raw, where)


def _resolve_front(raw: dict[str, Any], where: str) -> FrontRun:
    try:
        return FrontRun.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(map(_describe_error, error.errors()))}") from error


def _resolve_family(raw: dict[str, Any], where: str) -> FamilyRun:
    try:
        family = FamilyRun.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(map(_describe_error, error.errors()))}") from error
    for objective in family.objectives:
        for stage in range(family.count_stages(objective)):
            family.plan_expert(objective, stage)
    return family


def _read_changed(source: str, changes: Sequence[str], own: OwnData | None = None) -> tuple[dict[str, Any], str]:
    """Read a recipe's mapping and apply the changes. Also returns its path for messages."""
    path = Path(source)
    if not path.is_file():
        path = RECIPES / f"{source}.yaml"
    if not path.is_file():
        raise RecipeError(f"{source!r} is neither a file nor one of the packaged recipes: {', '.join(list_recipes())}")
    raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe must be a mapping with `kind`, `name` and `data`")
    if own is not None:
        use_own_data(raw, own)
    apply_changes(raw, changes)
    return raw, str(path)


def resolve_recipe(raw: dict[str, Any], where: str = "recipe") -> Recipe:
    """Validate a mapping as a recipe and fill in all defaults."""
    try:
        return _RECIPE.validate_python(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(map(_describe_error, error.errors()))}") from error


def _describe_error(fault: Any) -> str:
    """Describe one of pydantic's errors by its key in the recipe.

    pydantic adds the tags of unions to the key (the kind, the method after ``loss`` or ``policy``, the prior after
    ``constraint``, the source of a reward) and a few words to our own messages; they are removed.
    """
    place = [str(part) for part in fault["loc"]]
    if place[1:2] in (["loss"], ["policy"]):
        del place[2:3]
    if place[1:2] == ["rewards"]:
        del place[3:4]
    if place[2:3] == ["constraint"]:
        del place[3:4]
    key = ".".join(place[1:] if place and place[0] in KINDS else place)
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def list_recipes() -> list[str]:
    """List the names of the packaged recipes."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def describe_recipe(name: str) -> str:
    """Return what a packaged recipe is for: the first sentence of the comment at its head."""
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))
    return re.split(r"(?<=[.])\s", f"{head} ", maxsplit=1)[0].rstrip(".: ")


def format_recipe(recipe: Recipe | FamilyRun | FrontRun) -> str:
    """Format a recipe as YAML, with all defaults."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True, width=100)
