"""Tiny reward models in published layouts, with random weights, and the forward passes of their published code."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, MistralConfig, MistralModel, PreTrainedTokenizerFast

H = 32
VOCABULARY = 400
WORDS = ("why do leaves fall?", "the wind is lazy", "naïve — 猫", "x_1 += 0.5;", "the fox jumps over", "Sum 17 and 25")
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
HEADER = ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Layout:
    """A folder, and its rewards by a text's token ids, as the published code computes them in float64."""

    folder: Path
    encode: Callable[[Turns], list[int]]
    score: Callable[[list[int]], list[float]]
    options: dict[str, Any] = field(default_factory=dict)


def make_conversations(count: int = 50) -> list[list[dict[str, str]]]:
    """Make conversations of one or two rounds, short and long, each unlike the others."""
    found = []
    for number in range(count):
        rounds = []
        for turn in range(1 + number % 2):
            asked = f"{WORDS[(number + turn) % len(WORDS)]} ({number})"
            told = " ".join(WORDS[(number * 3 + step) % len(WORDS)] for step in range(1 + (number + turn) % 5))
            rounds += [{"role": "user", "content": asked}, {"role": "assistant", "content": f"{told} {number}"}]
        found.append(rounds)
    return found


def make_tokenizer(
    bos: bool = True, specials: Sequence[str] = (), template: str | None = None, chatml: bool = True
) -> Any:
    """A byte-level tokenizer with ``<s>`` and ``</s>``, which puts BOS before each text, as Llama's does."""
    tok = tiny.tokenizer()
    if not chatml:
        raw = tok.backend_tokenizer.to_str().replace("<|im_start|>", "<|start|>").replace("<|im_end|>", "<|end|>")
        tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(raw), clean_up_tokenization_spaces=False)
    tok.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    tok.pad_token = "<unk>"
    if specials:
        tok.add_tokens(list(specials), special_tokens=True)
    if bos:
        tok.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tok.bos_token_id)]
        )
    tok.chat_template = template
    return tok


def make_backbone(seed: int, mistral: bool = False) -> Any:
    """A backbone of 2 layers with grouped-query attention, in float32."""
    torch.manual_seed(seed)
    kinds = (MistralConfig, MistralModel) if mistral else (LlamaConfig, LlamaModel)
    config = kinds[0](
        vocab_size=VOCABULARY,
        hidden_size=H,
        intermediate_size=2 * H,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=tiny.HEAD,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    return kinds[1](config).eval()


def write_model(
    folder: Path, backbone: Any, tokenizer: Any, tensors: Mapping[str, Tensor], architecture: str, **config: Any
) -> None:
    """Write ``config.json``, the tensors in two shards, and the tokenizer."""
    folder.mkdir(parents=True)
    backbone.config.save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"architectures": [architecture]} | config))
    names = sorted(tensors)
    shards = {"model-00001-of-00002": names[::2], "model-00002-of-00002": names[1::2]}
    for file, own in shards.items():
        save_file({name: tensors[name].clone() for name in own}, folder / f"{file}.safetensors", {"format": "pt"})
    places = {name: f"{file}.safetensors" for file, own in shards.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    tokenizer.save_pretrained(folder)


def compute_states(backbone: Any, ids: Sequence[int]) -> Tensor:
    """The last layer's hidden states ``[T, H]`` in float64."""
    with torch.inference_mode():
        states: Tensor = backbone.double()(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
    backbone.float()
    return states


def make_weights(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def under(root: str, backbone: Any) -> dict[str, Tensor]:
    """The backbone's tensors with a prefix."""
    return {f"{root}{name}": tensor for name, tensor in backbone.state_dict().items()}


def write_text(turns: Turns, user: str, answer: str, between: str = "") -> str:
    """Write rounds by two patterns, with a text between them."""
    patterns = {"user": user, "assistant": answer}
    rounds = [patterns[turn["role"]].format(turn["content"]) for turn in turns]
    return between.join("".join(rounds[at : at + 2]) for at in range(0, len(rounds), 2))


# --------------------------------------------------------------------------- one linear layer on one token


def linear(
    folder: Path,
    seed: int,
    head: str,
    root: str,
    architecture: str,
    write: Callable[[Turns], str],
    read: int = -1,
    close: bool = False,
    mistral: bool = False,
    bias: bool = False,
    more: Sequence[str] = (),
    tokenizer: Any = None,
) -> Layout:
    """A model with a linear head: ``read`` is the token's index, ``close`` ends texts with EOS."""
    backbone, tok = make_backbone(seed, mistral), tokenizer or make_tokenizer()
    weight, offset = make_weights(seed + 1, 1, H), make_weights(seed + 2, 1)
    tensors = under(root, backbone) | {f"{head}.weight": weight} | ({f"{head}.bias": offset} if bias else {})
    for name in more:
        tensors[name] = make_weights(seed + 3, VOCABULARY, H)
    write_model(folder, backbone, tok, tensors, architecture)

    def encode(turns: Turns) -> list[int]:
        ids: list[int] = tok(write(turns))["input_ids"]
        return [*ids, tok.eos_token_id] if close else ids

    def score(ids: list[int]) -> list[float]:
        state = compute_states(backbone, ids)[read]
        return (weight.double() @ state + (offset.double() if bias else 0.0)).tolist()

    return Layout(folder, encode, score)


def dsp(folder: Path) -> Layout:
    def write(turns: Turns) -> str:
        return write_text(turns, "## Human:\n{}", "\n\n## Assistant:\n{}", "\n\n")

    more = ("lm_head.weight",)
    return linear(folder, 1, "reward_head", "model.", "LlamaRewardModel", write, read=-2, close=True, more=more)


def ultrarm(folder: Path) -> Layout:
    def write(turns: Turns) -> str:
        return write_text(turns, "Human: {}", "\n\nAssistant: {}", "\n\n")

    return linear(folder, 2, "regression_head", "model.", "LlamaRewardModel", write)


def eurus(folder: Path) -> Layout:
    def write(turns: Turns) -> str:
        return write_text(turns, "[INST] {} [\\INST]", " {}", " ")

    return linear(folder, 3, "regression_head", "model.", "EurusRewardModel", write, mistral=True)


def starling(folder: Path) -> Layout:
    def write(turns: Turns) -> str:
        return write_text(turns, "<s>[INST] {} </s> [/INST]", " {}</s>")

    own = make_tokenizer(
        template=tiny.CHATML, chatml=False
    )  # the base's own template, which this model was not trained with
    return linear(folder, 4, "v_head", "transformer.", "GPTRewardModel", write, tokenizer=own)


def deepspeed_chat(folder: Path) -> Layout:
    def write(turns: Turns) -> str:
        return write_text(turns, "\n\nHuman: {}", "\n\nAssistant: {}") + "<|endoftext|>"

    return linear(folder, 5, "v_head", "rwtranrsformer.", "LlamaModel", write)


def value_head(folder: Path) -> Layout:
    tok = make_tokenizer(bos=False, template=tiny.CHATML)

    def write(turns: Turns) -> str:
        return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)

    return linear(
        folder,
        6,
        "v_head.summary",
        "model.",
        "LlamaForCausalLM",
        write,
        bias=True,
        more=("lm_head.weight",),
        tokenizer=tok,
    )


def nemotron(folder: Path) -> Layout:
    backbone, tok = make_backbone(7), make_tokenizer(specials=HEADER, template=LLAMA3)
    logits = make_weights(8, VOCABULARY, H)
    write_model(folder, backbone, tok, under("model.", backbone) | {"lm_head.weight": logits}, "LlamaForCausalLM")

    def score(ids: list[int]) -> list[float]:
        return [float((logits.double() @ compute_states(backbone, ids)[-1])[0])]

    return Layout(folder, lambda turns: encode_chat(tok, turns), score, {"form": "nemotron"})


def encode_chat(tok: Any, turns: Turns) -> list[int]:
    text: str = tok.apply_chat_template(list(turns), tokenize=False)
    ids: list[int] = tok(text, add_special_tokens=False)["input_ids"]
    return ids


# --------------------------------------------------------------------------- with parts of their own


def armorm(folder: Path) -> Layout:
    backbone, tok = make_backbone(9), make_tokenizer(specials=HEADER, template=LLAMA3)
    parts = {
        "regression_layer.weight": make_weights(10, 19, H),
        "reward_transform_matrix": torch.eye(19) - 0.3 * make_weights(11, 19, 19).tril(-1),
        "gating.logit_scale": torch.tensor([1.7]),
    }
    for layer, (out, inside) in enumerate([(16, H), (16, 16), (16, 16), (19, 16)]):
        parts[f"gating.layers.{layer}.weight"] = make_weights(20 + layer, out, inside) * 0.25
        parts[f"gating.layers.{layer}.bias"] = make_weights(30 + layer, out)
    architecture = "LlamaForRewardModelWithGating"
    write_model(folder, backbone, tok, under("model.", backbone) | parts, architecture, gating_temperature=0.7)
    pattern = tok("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)["input_ids"]

    def score(ids: list[int]) -> list[float]:
        exact = {name: tensor.double() for name, tensor in parts.items()}
        states = compute_states(backbone, ids)
        at = max(start for start in range(len(ids)) if ids[start : start + len(pattern)] == pattern)
        rewards = exact["regression_layer.weight"] @ states[-1]
        x = states[at]
        for layer in range(4):
            x = exact[f"gating.layers.{layer}.weight"] @ x + exact[f"gating.layers.{layer}.bias"]
            x = torch.relu(x) if layer < 3 else x
        gating = torch.softmax(x / 0.7, 0) * exact["gating.logit_scale"][0]
        adjusted = rewards @ exact["reward_transform_matrix"]
        return [*rewards.tolist(), float((gating * adjusted).sum())]

    return Layout(folder, lambda turns: encode_chat(tok, turns), score)


def internlm2(folder: Path) -> Layout:
    reward = "[UNUSED_TOKEN_130]"
    template = "{{ bos_token }}" + tiny.CHATML
    backbone, tok = make_backbone(12), make_tokenizer(specials=[reward], template=template)
    token = tok.convert_tokens_to_ids(reward)
    weight = make_weights(13, 1, H)
    own = backbone.state_dict()
    tensors = {"model.tok_embeddings.weight": own["embed_tokens.weight"], "model.norm.weight": own["norm.weight"]}
    for layer in range(2):
        old, new = f"layers.{layer}.", f"model.layers.{layer}."
        q, k, v = (own[f"{old}self_attn.{letter}_proj.weight"].reshape(-1, tiny.HEAD, H) for letter in "qkv")
        groups = [
            torch.cat([q[2 * group : 2 * group + 2], k[group : group + 1], v[group : group + 1]]) for group in (0, 1)
        ]
        tensors[f"{new}attention.wqkv.weight"] = torch.cat(groups).reshape(-1, H)
        for theirs, ours in {
            "attention.wo": "self_attn.o_proj",
            "feed_forward.w1": "mlp.gate_proj",
            "feed_forward.w3": "mlp.up_proj",
            "feed_forward.w2": "mlp.down_proj",
            "attention_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
        }.items():
            tensors[f"{new}{theirs}.weight"] = own[f"{old}{ours}.weight"] + (0.1 if "norm" in theirs else 0.0)
            own[f"{old}{ours}.weight"].copy_(tensors[f"{new}{theirs}.weight"])
    more = {"model_type": "internlm2", "reward_token_id": token, "bias": False}
    architecture = "InternLM2ForRewardModel"
    write_model(folder, backbone, tok, tensors | {"v_head.weight": weight}, architecture, **more)

    def encode(turns: Turns) -> list[int]:
        return [*tok(tok.apply_chat_template(list(turns), tokenize=False))["input_ids"], token]

    return Layout(folder, encode, lambda ids: (weight.double() @ compute_states(backbone, ids)[-1]).tolist())


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "dsp": dsp,
    "ultrarm": ultrarm,
    "eurus": eurus,
    "starling": starling,
    "deepspeed-chat": deepspeed_chat,
    "value-head": value_head,
    "nemotron": nemotron,
    "armorm": armorm,
    "internlm2": internlm2,
}
