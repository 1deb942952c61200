"""Judges and process reward models as their published code computes them, over transformers in float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import judging
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

ScoreSteps = Callable[[str, list[str]], list[float]]  # logits of the steps' probabilities
FRAME = "[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \n"
PLAIN = (  # RLHFlow's, for the context
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)


def load_language_model(folder: Path) -> Any:
    """A causal model as its library loads it, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


class PublishedJudge:
    """RLHFlow's pair model as its model card uses it."""

    def __init__(self, folder: Path, tokens: tuple[str, str] = ("A", "B")) -> None:
        self.tokenizer, self.plain = (AutoTokenizer.from_pretrained(folder) for _ in range(2))
        self.plain.chat_template = PLAIN
        self.model = load_language_model(folder)
        self.ids = [self.tokenizer.encode(each, add_special_tokens=False)[0] for each in tokens]

    def compare(self, context: list[dict[str, str]], first: str, second: str) -> float:
        """The log-odds that the first is better."""
        told = self.plain.apply_chat_template(context, tokenize=False)
        message = {"role": "user", "content": FRAME.format(context=told, first=first, second=second)}
        text = self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        text = text.replace(self.tokenizer.bos_token, "")
        ids = self.tokenizer.encode(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            a, b = self.model(ids).logits[0, -1, self.ids].tolist()
        return float(a - b)


class PublishedVerifier:
    """A generative verifier: the probability of its token after the question of GenRM."""

    def __init__(self, folder: Path, tokens: tuple[str, ...]) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = load_language_model(folder)
        self.ids = self.tokenizer.convert_tokens_to_ids(tokens)

    def score(self, question: str, answer: str) -> float:
        """P(Yes), or P(Yes) / (P(Yes) + P(No))."""
        content = f"{question}\n{answer}\nIs the answer correct (Yes/No)?"
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        with torch.no_grad():
            found = self.model(ids).logits[0, -1].softmax(-1)[self.ids].tolist()
        return float(found[0] / sum(found)) if len(found) > 1 else float(found[0])


# --------------------------------------------------------------------------- process reward models


def pair_logit(logits: Tensor) -> Tensor:
    """The logit of the first of two tokens' softmax, as the published codes take it."""
    return torch.logit(logits.double().softmax(-1)[..., 0])


def open_math_shepherd(folder: Path) -> ScoreSteps:
    """Write a model that is read at a mark, and return the code of Math-Shepherd's model card."""
    judging.write_language_model(folder, "ки")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_language_model(folder)
    candidates = tokenizer.convert_tokens_to_ids(["+", "-"])
    tag = tokenizer.encode("ки")[-1]

    def score(question: str, steps: list[str]) -> list[float]:
        output = "\n".join(f"{step} ки" for step in steps)
        ids = torch.tensor([tokenizer.encode(f"{question} {output}")])
        with torch.no_grad():
            logits = model(ids).logits[:, :, candidates]
        found: list[float] = pair_logit(logits)[ids == tag].tolist()
        return found

    return score


def open_rlhflow(folder: Path) -> ScoreSteps:
    """Write a model that answers each step, and return RLHFlow's evaluation of it."""
    judging.write_language_model(folder, tie_word_embeddings=False)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_language_model(folder)
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]

    def score(question: str, steps: list[str]) -> list[float]:
        conversation, found = [], []
        for number, step in enumerate(steps):
            conversation.append({"role": "user", "content": step if number else f"{question} {step}"})
            conversation.append({"role": "assistant", "content": "+"})
            ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
            with torch.no_grad():  # +, the end of the turn and its line break follow what predicts the +
                found.append(float(pair_logit(model(ids).logits[0, -4, candidates])))
        return found

    return score


def open_qwen(folder: Path) -> ScoreSteps:
    """Write a model as Qwen2.5-Math-PRM's class does, and return the code of its model card."""
    _, head = judging.write_qwen(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def score(question: str, steps: list[str]) -> list[float]:
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        ids = tokenizer.encode(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            logits = head(backbone(ids).last_hidden_state)
        found: list[float] = pair_logit(logits.flip(-1))[ids == tokenizer.encode("<extra_0>")[0]].tolist()
        return found

    return score


def open_trl(folder: Path) -> ScoreSteps:
    """Write a model as TRL's PRMTrainer does, and return the reading of its data collator."""
    judging.write_labelled(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def score(question: str, steps: list[str]) -> list[float]:
        ids, ends = [tokenizer.bos_token_id, *_tokenize(tokenizer, question)], []
        for step in steps:
            ids += _tokenize(tokenizer, step) + _tokenize(tokenizer, "\n")
            ends.append(len(ids) - 1)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, ends]
        found: list[float] = pair_logit(logits.flip(-1)).tolist()
        return found

    return score


def open_skywork(folder: Path) -> ScoreSteps:
    """Write a model with Skywork's value head, and return the code of Skywork-o1-Open-PRM's repository."""
    head: nn.Linear = judging.write_valued(folder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_language_model(folder)

    def score(question: str, steps: list[str]) -> list[float]:
        ids, ends = tokenizer.encode(tokenizer.bos_token + question + "\n"), []
        for step in steps:
            ids += [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
            ends.append(len(ids) - 1)
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, ends]
            probabilities = head(hidden).squeeze(-1).sigmoid()
        found: list[float] = torch.logit(probabilities.double()).tolist()
        return found

    return score


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
