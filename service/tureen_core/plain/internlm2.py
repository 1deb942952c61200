"""InternLM2-Reward (``internlm/internlm2-7b-reward``): a Llama whose queries, keys and values are one weight.

Its published ``get_score`` renders a conversation by the chat template, encodes the text with the tokenizer's special
tokens, puts the reward token last, and reads the reward there.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tureen_core.head_rule import HeadRule
from tureen_core.plain.added_tokens import finds_bos
from tureen_core.plain.backbones import plan_conversion
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Form, FormReading
from tureen_core.plain.linear_heads import make_head
from tureen_core.plain.named_heads import apply_layer
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.states import open_states

HEAD = "v_head.weight"
NAMES = {
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
KEPT = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range"),
    *("rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype"),
}


def make_llama_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Make the configuration of the same backbone as a Llama.

    Raises:
        PlainError: its positions are scaled otherwise than by dynamic NTK, which changes nothing within the context.
    """
    config = checkpoint.config
    scaling = config.get("rope_scaling") or {}
    if scaling and scaling.get("type", scaling.get("rope_type")) != "dynamic":
        raise PlainError(f"{checkpoint.folder.name}: rope_scaling {scaling} of config.json is not known for InternLM2")
    biased = bool(config.get("bias"))
    kept = {key: config[key] for key in sorted(KEPT & set(config))}
    return kept | {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": biased,
        "tie_word_embeddings": False,
    }


def split_fused_projection(fused: Tensor, heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split ``wqkv [groups · (heads / groups + 2) · D, ...]`` exactly into queries, keys and values.

    Each group of queries is followed by its key and its value.
    """
    each = heads // groups
    parts = fused.unflatten(0, (groups, each + 2, -1))
    return parts[:, :each].flatten(0, 2), parts[:, each].flatten(0, 1), parts[:, each + 1].flatten(0, 1)


def convert_tensor(name: str, tensor: Tensor, heads: int, groups: int) -> Mapping[str, Tensor]:
    """Return the tensors of a Llama for one of InternLM2's; none for the head's."""
    if name == "model.tok_embeddings.weight":
        return {"model.embed_tokens.weight": tensor}
    if name == "model.norm.weight":
        return {name: tensor}
    found = re.fullmatch(r"(model\.layers\.\d+\.)(.+)\.(weight|bias)", name)
    if found is None:
        return {}
    layer, module, kind = found.groups()
    if module == "attention.wqkv":
        split = zip("qkv", split_fused_projection(tensor, heads, groups), strict=True)
        return {f"{layer}self_attn.{letter}_proj.{kind}": part for letter, part in split}
    return {f"{layer}{NAMES.get(module, module)}.{kind}": tensor}


def _read_internlm2(checkpoint: Checkpoint, options: PlainOptions, tokenizer: Any) -> FormReading:
    config = checkpoint.config
    weight = checkpoint.read_tensor(HEAD)
    rule = HeadRule(kind="layers", output=options.output or "value")
    head = make_head(checkpoint, {"0.weight": weight}, rule)
    heads = int(config["num_attention_heads"])
    groups = int(config.get("num_key_value_heads") or heads)
    convert = plan_conversion(
        checkpoint, make_llama_config(checkpoint), lambda name, tensor: convert_tensor(name, tensor, heads, groups)
    )
    reward = tokenizer.convert_ids_to_tokens(int(config.get("reward_token_id", -1)))
    if reward is None:
        raise PlainError(f"{checkpoint.folder.name}: config.json has no reward_token_id that the tokenizer knows")
    bos = finds_bos(tokenizer)
    tokenizer.eos_token = reward  # what ends a text; the template writes the end of a turn itself
    twice = bos and "bos_token" in (tokenizer.chat_template or "")  # get_score then puts BOS twice
    return FormReading(
        labels=("reward",),
        open_reference=lambda: open_states(
            convert(), lambda _, states: apply_layer(states[-1], weight, None, rule.output)
        ),
        rule=rule,
        head=head,
        bos="add" if bos else "none",
        eos="append",
        template="{{ bos_token }}" + tokenizer.chat_template if twice else None,
        own_template=twice,
        convert=convert,
    )


INTERNLM2 = Form(
    "internlm2",
    "`InternLM2ForRewardModel`, or model type `internlm2` and `v_head.weight` (InternLM2-Reward)",
    lambda checkpoint: checkpoint.config.get("model_type") == "internlm2" and not checkpoint.adapter,
    _read_internlm2,
)
