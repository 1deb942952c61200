"""Recipes: their parts, the kinds of run, and reading them from YAML. Imports no library of training."""

from tureen_train.config.attributes import AttributesLoss
from tureen_train.config.experts import ExpertRun, Preference
from tureen_train.config.gate import GateLoss
from tureen_train.config.odin import OdinLoss
from tureen_train.config.pairs import PairLoss
from tureen_train.config.parts import (
    Data,
    Lora,
    Model,
    Optimisation,
    Packed,
    RecipeError,
    Run,
    Scale,
    Source,
    Watch,
)
from tureen_train.config.ranking import RankingLoss
from tureen_train.config.recipes import RECIPES, Recipe, format_recipe, list_recipes, read_recipe, resolve_recipe
from tureen_train.config.rewards import RewardLoss, RewardRun
from tureen_train.config.steps import StepsLoss

__all__ = [
    "RECIPES",
    "AttributesLoss",
    "Data",
    "ExpertRun",
    "GateLoss",
    "Lora",
    "Model",
    "OdinLoss",
    "Optimisation",
    "Packed",
    "PairLoss",
    "Preference",
    "RankingLoss",
    "Recipe",
    "RecipeError",
    "RewardLoss",
    "RewardRun",
    "Run",
    "Scale",
    "Source",
    "StepsLoss",
    "Watch",
    "format_recipe",
    "list_recipes",
    "read_recipe",
    "resolve_recipe",
]
