"""An adapter's weights as the start of a LoRA of the same shape."""

from collections.abc import Mapping

from peft import PeftModel, set_peft_model_state_dict
from torch import Tensor

from tureen_core.lora import Adapter
from tureen_train.config import RecipeError


def load_adapter(model: PeftModel, adapter: Adapter, extras: Mapping[str, Tensor] | None = None) -> None:
    """Load an adapter, and other tensors by name (``score.weight``), into a LoRA model of the same shape.

    Raises:
        RecipeError: the adapter has other modules or ranks than the model.
    """
    state = make_adapter_state(adapter, model)
    state |= {f"base_model.model.{name}": tensor for name, tensor in (extras or {}).items()}
    outcome = set_peft_model_state_dict(model, state)
    if outcome.unexpected_keys:
        raise RecipeError(
            f"model.start: {adapter.name} has {outcome.unexpected_keys[0]}, which this recipe's LoRA lacks"
        )


def make_adapter_state(adapter: Adapter, model: PeftModel) -> dict[str, Tensor]:
    """Make PEFT's state dict of an adapter. B is rescaled to the model's own alpha / r.

    Raises:
        RecipeError: the adapter has another rank, or lacks a module that the recipe's LoRA has.
    """
    own = model.peft_config["default"]
    scale = own.lora_alpha / own.r
    state: dict[str, Tensor] = {}
    for path, pair in adapter.modules.items():
        if pair.rank != own.r:
            raise RecipeError(
                f"model.start: {adapter.name} has rank {pair.rank} at {path}, and model.lora.rank is {own.r}; make "
                "them agree"
            )
        state[f"base_model.model.{path}.lora_A.weight"] = pair.a.float()
        state[f"base_model.model.{path}.lora_B.weight"] = pair.b.float() * (pair.scale / scale)
    expected = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    missing = expected - {f"base_model.model.{path}" for path in adapter.modules}
    if missing:
        name = sorted(missing)[0].removeprefix("base_model.model.")
        raise RecipeError(f"model.start: {adapter.name} does not adapt {name}, which this recipe's LoRA does")
    return state
