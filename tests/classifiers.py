"""Tiny random models of classes for sequence classification, as their library saves them, and its own scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import CORPUS
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tureen_core.plain.conversations import make_conversations

TEXTS = [*CORPUS, *(turn["content"] for each in make_conversations() for turn in each)]
PAIRS = [
    (f"{question['content']} ({number})", f"{answer['content']} {'Well. ' * number}")
    for number in range(5)
    for question, answer in [each[:2] for each in make_conversations() if len(each) == 2][: 11 if number else 6]
]
SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "initializer_range": 0.3,
}
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "electra": {"embedding_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160},
    "t5": {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "bart": {
        **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": 0.3},
    },
    "deberta-v2": {"type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "roberta": {"max_position_embeddings": 160 + 2, "type_vocab_size": 1},
    "modernbert": {"cls_token_id": None, "sep_token_id": None, "classifier_pooling": "mean"},
}
READERS = {"bert": "wordpiece", "distilbert": "wordpiece", "electra": "wordpiece", "modernbert": "modern"}
SEGMENTED = ["input_ids", "token_type_ids", "attention_mask"]
READERS |= {
    "gpt_neo": "bare",
    "reformer": "bpe",
    "xmod": "bpe",
    "roberta": "bpe",
    "bart": "bpe",
    "deberta-v2": "unigram",
    "t5": "t5",
    "gpt2": "bare",
}


def write_model(folder: Path, kind: str, labels: int = 1, seed: int = 0, **changes: Any) -> Path:
    """Write a tiny random model of a class for sequence classification, with its tokenizer."""
    tokenizer = make_tokenizer(READERS[kind])
    own = ("pad", "bos", "eos")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in own}
    config = AutoConfig.for_model(kind, **{**SMALL, **SIZES.get(kind, {}), **ids, **changes}, num_labels=labels)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and name.endswith("bias"):
                weight.normal_(std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(reader: str) -> Any:
    """Make a tokenizer whose post-processor puts special tokens as a published family's does."""
    if reader == "wordpiece":
        return _make_wordpiece()
    if reader in ("unigram", "t5"):
        return _make_unigram(reader)
    return _make_bpe(reader)


def _make_wordpiece() -> Any:
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=360, special_tokens=specials))
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=160, model_input_names=SEGMENTED, **names)


def _make_bpe(reader: str) -> Any:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = {"bare": ["<|endoftext|>"], "modern": ["[PAD]", "[CLS]", "[SEP]"]}.get(reader, ["<s>", "<pad>", "</s>"])
    raw.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=360, special_tokens=specials, initial_alphabet=alphabet)
    )
    names = {f"{name}_token": specials[0] for name in ("bos", "eos", "pad")}
    if reader == "modern":
        frame = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B [SEP]"}
        raw.post_processor = processors.TemplateProcessing(**frame, special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
        names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    elif reader == "bpe":
        raw.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    inputs = SEGMENTED[::2]
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=160, model_input_names=inputs, **names)


def _make_unigram(reader: str) -> Any:
    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if reader == "unigram" else "first")
    raw.decoder = decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"] if reader == "t5" else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    raw.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=300, special_tokens=specials, unk_token=specials[-1])
    )
    if reader == "t5":
        frame = {"single": "$A </s>", "pair": "$A </s> $B </s>"}
        marks = [("</s>", 1)]
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:
        frame = {"single": "[CLS]:0 $A:0 [SEP]:0", "pair": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"}
        marks = [("[CLS]", 1), ("[SEP]", 2)]
        names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    raw.post_processor = processors.TemplateProcessing(**frame, special_tokens=marks)
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=160, model_input_names=SEGMENTED, **names)


def score_by_library(folder: Path, texts: Sequence[tuple[str, ...]]) -> list[list[float]]:
    """Score texts, or pairs of texts, by the library's own code: ``model(**tokenizer(prompt, answer)).logits``."""
    from transformers import AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [model(**tokenizer(*each, return_tensors="pt")).logits[0].tolist() for each in texts]


def write_conversation(prompt: str, answer: str) -> list[dict[str, str]]:
    """Write a prompt and its answer as messages."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
