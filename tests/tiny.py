"""Tiny real models for tests: a 2-layer random Llama with a byte-level tokenizer and a ChatML template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tureen_core.adapter_files import write_adapter
from tureen_core.artifact import Artifact, Base, Manifest, Objective, seal_artifact
from tureen_core.base import digest_weights, load_tokenizer
from tureen_core.gate import write_gate
from tureen_core.heads import GatedHead
from tureen_core.lora import Adapter, LoraPair
from tureen_core.reading import Reading
from tureen_core.steering import InPromptSteering, SoupSteering
from tureen_core.template import Renderer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# ChatML with tools, calls of tools and thoughts, as Qwen's templates are made
TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\n# Tools' }}{%- for tool in tools %}{{- '\n' + (tool | tojson) }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- set content = message.content if message.content is string else '' %}"
    "{%- if message.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' + content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.reasoning_content %}{{- '<think>' + message.reasoning_content + '</think>' }}{%- endif %}"
    "{{- content }}"
    "{%- for tool_call in message.tool_calls or [] %}"
    "{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}"
    '{{- \'<tool_call>{"name": "\' + tool_call.name + \'", "arguments": \' }}'
    "{{- tool_call.arguments if tool_call.arguments is string else tool_call.arguments | tojson }}"
    "{{- '}</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think></think>' }}{%- endif %}{%- endif %}"
)
CORPUS = ["the quick brown fox jumps over the lazy dog", "why do leaves fall in autumn?", "user assistant system"]
HEAD = 32  # the smallest head that vLLM's attention on CPUs takes
TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def tokenizer() -> Any:
    """A byte-level BPE of about 320 tokens with ChatML's marks; pad is not EOS."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML
    return fast


def base(folder: Path, seed: int = 0, hidden: int = 32) -> Path:
    """Write a tiny Llama (2 layers, grouped-query attention, tied embeddings, float32) with its tokenizer."""
    torch.manual_seed(seed)
    tok = tokenizer()
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HEAD,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def base_with_tools(folder: Path) -> Path:
    """Write a base as :func:`base` does, whose template writes tools."""
    base(folder)
    tok = load_tokenizer(folder)
    tok.chat_template = TOOLS
    tok.save_pretrained(folder)
    return folder


def adapter(name: str, seed: int, hidden: int = 32, rank: int = 4, scale: float = 2.0, size: float = 0.3) -> Adapter:
    """A random LoRA over q, v and down projections of :func:`base`."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {
        "self_attn.q_proj": (hidden, 4 * HEAD),
        "self_attn.v_proj": (hidden, 2 * HEAD),
        "mlp.down_proj": (2 * hidden, hidden),
    }
    modules = {}
    for layer in range(2):
        for target in TARGETS:
            inside, outside = shapes[target]
            a = torch.randn(rank, inside, generator=rng) * size / inside**0.5
            b = torch.randn(outside, rank, generator=rng) * size
            modules[f"model.layers.{layer}.{target}"] = LoraPair(a, b, scale)
    return Adapter(name, modules)


def reading(folder: Path, **changes: Any) -> Reading:
    """A reading whose template digest is the folder's."""
    plain = Reading(**{"max_length": 256, **changes})
    return plain.model_copy(update={"template": Renderer(load_tokenizer(folder), plain).digest()})


def reward(
    folder: Path, base_folder: Path, name: str, seed: int, objectives: Sequence[str] | None = None, **changes: Any
) -> Artifact:
    """A sealed LoRA reward artifact with a random head, one row an objective (default: one, called ``name``)."""
    names = list(objectives or [name])
    hidden = 32
    head = torch.randn(len(names), hidden, generator=torch.Generator().manual_seed(seed + 1000))
    write_adapter(
        adapter(name, seed), folder, "tiny", extras={"score.weight": head}, task="SEQ_CLS", dtype=torch.float32
    )
    return seal_artifact(
        folder,
        Manifest(
            kind="reward",
            name=name,
            base=Base(model=str(base_folder), digest=digest_weights(base_folder)),
            objectives=[Objective(name=each, column=column) for column, each in enumerate(names)],
            reading=reading(base_folder, **changes),
        ),
    )


def gated(folder: Path, base_folder: Path, name: str, seed: int, names: Sequence[str], **changes: Any) -> Artifact:
    """As :func:`reward`, with a random gate whose overall objective has the artifact's name; the last name is taken
    out of the first.
    """
    hidden, k = 32, len(names)
    head = torch.randn(k, hidden, generator=torch.Generator().manual_seed(seed + 1000))
    write_adapter(
        adapter(name, seed), folder, "tiny", extras={"score.weight": head}, task="SEQ_CLS", dtype=torch.float32
    )
    torch.manual_seed(seed + 2000)
    gate = GatedHead(hidden, k, width=16, depth=2, temperature=0.5)
    gate.transform[-1, 0], gate.transform[-1, -1] = -0.25, 0.0
    write_gate(gate, folder)
    return seal_artifact(
        folder,
        Manifest(
            kind="reward",
            gated=True,
            name=name,
            base=Base(model=str(base_folder), digest=digest_weights(base_folder)),
            objectives=[Objective(name=each, column=column) for column, each in enumerate([*names, name])],
            reading=reading(base_folder, **changes),
        ),
    )


def full_reward(folder: Path, base_folder: Path, name: str, seed: int, **changes: Any) -> Artifact:
    """A sealed full reward checkpoint with a random head, saved as Hugging Face saves it."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1, dtype=torch.float32)
    model.save_pretrained(folder)
    load_tokenizer(base_folder).save_pretrained(folder)
    objectives = [Objective(name=name)]
    own = reading(base_folder, **changes)
    return seal_artifact(folder, Manifest(kind="reward", name=name, weights="full", objectives=objectives, reading=own))


def expert(folder: Path, base_folder: Path, name: str, seed: int, family: str = "tiny", **changes: Any) -> Artifact:
    """A sealed expert artifact of a family."""
    write_adapter(adapter(name, seed), folder, "tiny", dtype=torch.float32)
    return seal_artifact(
        folder,
        Manifest(
            kind="expert",
            name=name,
            base=Base(model=str(base_folder), digest=digest_weights(base_folder)),
            objectives=[Objective(name=name)],
            reading=reading(base_folder),
            steering=SoupSteering(family=family, **changes),
        ),
    )


def policy(folder: Path, base_folder: Path, steering: InPromptSteering, seed: int = 0, whole: bool = False) -> Artifact:
    """A sealed policy that is steered in its prompt: a LoRA, or the whole weights of the base with it."""
    name = steering.family
    if whole:
        torch.manual_seed(seed)
        model = LlamaForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape)
        model.save_pretrained(folder)
        load_tokenizer(base_folder).save_pretrained(folder)
    else:
        write_adapter(adapter(name, seed), folder, "tiny", dtype=torch.float32)
    return seal_artifact(
        folder,
        Manifest(
            kind="policy",
            name=name,
            weights="full" if whole else "lora",
            base=None if whole else Base(model=str(base_folder), digest=digest_weights(base_folder)),
            objectives=[Objective(name=each) for each in steering.names],
            reading=reading(base_folder),
            steering=steering,
        ),
    )
