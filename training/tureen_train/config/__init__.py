"""Recipes: their parts, the kinds of run, and reading them from YAML. Imports no library of training."""

from tureen_train.config.attributes import AttributesLoss
from tureen_train.config.experts import ExpertRun
from tureen_train.config.families import FamilyRun
from tureen_train.config.fronts import FrontRun, MethodPart
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
from tureen_train.config.policies import (
    DpoPolicy,
    GrpoPolicy,
    IterativeDpoPolicy,
    PpoPolicy,
    RejectionPolicy,
    RlooPolicy,
    SftPolicy,
)
from tureen_train.config.policy_methods import PolicySettings
from tureen_train.config.preferences import PromptPreferences
from tureen_train.config.ranking import RankingLoss
from tureen_train.config.recipe_changes import UNNAMED, OwnData
from tureen_train.config.recipes import (
    RECIPES,
    Recipe,
    describe_recipe,
    format_recipe,
    list_recipes,
    read_any,
    read_family,
    read_front,
    read_recipe,
    resolve_recipe,
)
from tureen_train.config.reward_tags import Cleaning, OnlineStage, RicPolicy
from tureen_train.config.rewards import RewardLoss, RewardRun
from tureen_train.config.rollouts import (
    SHARES,
    ArtifactSource,
    FunctionSource,
    JudgeSource,
    RewardSource,
    Sampling,
    Selection,
    ServerSource,
    check_common_units,
)
from tureen_train.config.steps import StepsLoss

__all__ = [
    "ArtifactSource",
    "AttributesLoss",
    "Cleaning",
    "Data",
    "DpoPolicy",
    "ExpertRun",
    "FamilyRun",
    "FrontRun",
    "FunctionSource",
    "GateLoss",
    "GrpoPolicy",
    "IterativeDpoPolicy",
    "JudgeSource",
    "Lora",
    "MethodPart",
    "Model",
    "OdinLoss",
    "OnlineStage",
    "Optimisation",
    "OwnData",
    "Packed",
    "PairLoss",
    "PolicySettings",
    "PpoPolicy",
    "PromptPreferences",
    "RECIPES",
    "RankingLoss",
    "Recipe",
    "RecipeError",
    "RejectionPolicy",
    "RewardLoss",
    "RewardRun",
    "RewardSource",
    "RicPolicy",
    "RlooPolicy",
    "Run",
    "SHARES",
    "Sampling",
    "Scale",
    "Selection",
    "ServerSource",
    "SftPolicy",
    "Source",
    "StepsLoss",
    "UNNAMED",
    "Watch",
    "check_common_units",
    "describe_recipe",
    "format_recipe",
    "list_recipes",
    "read_any",
    "read_family",
    "read_front",
    "read_recipe",
    "resolve_recipe",
]
