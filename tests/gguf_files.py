"""Tiny language models in GGUF files, written and quantised by the library ``gguf``."""

import shutil
from pathlib import Path
from typing import Any

import gguf
import torch
from judging import write_language_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2Config

ARCHITECTURE = gguf.MODEL_ARCH.QWEN2


def write_gguf(folder: Path, *more: str, lost: str = "") -> Path:
    """Write a tiny Qwen2 in 8 bits, with its tokenizer beside it.

    Args:
        more: names of small tensors to add.
        lost: the name of a tensor that is left out.

    Returns:
        A folder of the same model in full precision, with the dequantised weights.
    """
    exact = folder.with_name(f"{folder.name}-exact")
    sizes: dict[str, Any] = {"tie_word_embeddings": False, "num_attention_heads": 1, "num_key_value_heads": 1}
    write_language_model(exact, "yes", "no", kind=Qwen2Config, **sizes)
    folder.mkdir()
    for path in exact.glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(exact / "chat_template.jinja", folder / "chat_template.jinja")
    writer = _start(folder / "model.gguf", exact)
    names = gguf.get_tensor_name_map(ARCHITECTURE, 2)
    tensors = load_file(exact / "model.safetensors")
    for name, tensor in tensors.items():
        data = tensor.float().numpy()
        if tensor.ndim == 2:
            packed = gguf.quantize(data, gguf.GGMLQuantizationType.Q8_0)
            tensors[name] = torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)).clone()
        own = names.get_name(name, (".weight", ".bias"))
        if own != lost and tensor.ndim == 2:
            writer.add_tensor(own, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        elif own != lost:
            writer.add_tensor(own, data)
    for name in more:
        writer.add_tensor(name, torch.ones(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(tensors, exact / "model.safetensors", {"format": "pt"})
    return exact


def _start(path: Path, source: Path) -> Any:
    config, tokens = Qwen2Config.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHITECTURE])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_token_list(tokens.convert_ids_to_tokens(range(config.vocab_size)))
    writer.add_eos_token_id(config.eos_token_id)
    return writer
