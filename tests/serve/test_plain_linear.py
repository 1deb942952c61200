"""Plain folders with a linear head, served over HTTP and scored by the library that wrote them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from serve.border import wait_for_models
from serve.plain_models import make_talks, score_talks, serve_plain
from serve.published_linear import Kind, edit_config, open_class, open_openrlhf, write_classifier, write_openrlhf
from starlette.testclient import TestClient
from transformers import (
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from trl import RewardConfig, RewardTrainer

import tureen_core.plain.reward
from tureen.errors import TureenError
from tureen_core.plain.options import PlainError
from tureen_core.plain.reward import open_plain_reward
from tureen_serve.app import create_app
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row, Scorer
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.probes import prove_reward
from tureen_serve.settings import RewardEntry, load_settings

CLOSE = 1e-4


def score_by_class(folder: Path, talks: list[Any]) -> list[list[float]]:
    """The logits that the checkpoint's own class gives to each conversation, rendered by its own tokenizer."""
    return [*map(open_class(folder), talks)]


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Gemma2Config])
def test_a_decoder_has_the_rewards_of_its_own_class(kind: Kind, tmp_path: Path) -> None:
    cap: dict[str, Any] = {"attn_logit_softcapping": 2.0} if kind is Gemma2Config else {}
    folder = write_classifier(tmp_path / "decoder", kind, **cap)
    talks = make_talks()
    with serve_plain(folder) as client:
        found = score_talks(client, talks)
        (card,) = client.get("/v1/models").json()["data"]
    assert card["calibrated"] is False
    wanted = score_by_class(folder, talks)
    assert len({round(each, 3) for (each,) in wanted}) > 40  # the model tells them apart
    assert [row["reward"] for row in found] == pytest.approx([each for (each,) in wanted], abs=CLOSE)


def test_labels_are_objectives_and_problem_type_sets_the_output(tmp_path: Path) -> None:
    labels = {0: "helpful", 1: "Not correct!", 2: "verbose"}
    more: dict[str, Any] = {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    plain = write_classifier(tmp_path / "plain", rows=3, **more)
    talks = make_talks(8)
    logits = torch.tensor(score_by_class(plain, talks))
    names = ["helpful", "Not-correct", "verbose"]
    several = write_classifier(tmp_path / "several", rows=3, problem_type="multi_label_classification", **more)
    with serve_plain(plain) as client, serve_plain(several) as other, serve_plain(plain, output="softmax") as third:
        for each, wanted in ((client, logits), (other, logits.sigmoid()), (third, logits.softmax(-1))):
            found = score_talks(each, talks)
            assert [list(row) for row in found] == [names] * len(talks)
            assert torch.tensor([list(row.values()) for row in found]).sub(wanted).abs().max() < CLOSE


def test_objectives_are_named_by_the_user(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "two", rows=2)
    with serve_plain(folder) as client:
        assert list(score_talks(client, make_talks(1))[0]) == ["reward-0", "reward-1"]
    with serve_plain(folder, objectives=["kind", "true"]) as client:
        assert list(score_talks(client, make_talks(1))[0]) == ["kind", "true"]
    with pytest.raises(PlainError, match="has 2 rewards and was given 1 name"):
        open_plain_reward(folder, options=open_options(objectives=("kind",)))


def open_options(**options: Any) -> Any:
    """Options of a plain folder."""
    from tureen_core.plain.options import PlainOptions

    return PlainOptions(**options)


def test_a_checkpoint_of_trls_trainer(tmp_path: Path) -> None:
    """Trained for a few steps by TRL itself, saved by it, and served as it lies there."""
    start = write_classifier(tmp_path / "start")
    talks = make_talks(16, seed=1, turns=(1,))
    pairs = Dataset.from_list(
        [{"prompt": [talk[0]], "chosen": [talk[1]], "rejected": [{**talk[1], "content": "no"}]} for talk in talks]
    )
    out = tmp_path / "trl-reward"
    settings = RewardConfig(
        output_dir=str(out), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, bf16=False,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = RewardTrainer(model=str(start), args=settings, train_dataset=pairs)
    trainer.train()
    trainer.save_model(str(out))
    asked = make_talks(50, seed=2)
    with serve_plain(out) as client:
        found = score_talks(client, asked)
    wanted = score_by_class(out, asked)
    assert [row["reward"] for row in found] == pytest.approx([each for (each,) in wanted], abs=CLOSE)
    assert wanted != score_by_class(start, asked)


@pytest.mark.parametrize("prefix", ["score", "value_head", "reward_head"])
@pytest.mark.parametrize("normalised", [False, True])
def test_an_openrlhf_checkpoint(prefix: str, normalised: bool, tmp_path: Path) -> None:
    folder = write_openrlhf(tmp_path / "openrlhf", prefix, normalised)
    talks, score = make_talks(), open_openrlhf(folder, prefix, normalised)
    with serve_plain(folder) as client:
        found = score_talks(client, talks)
    assert [row["reward"] for row in found] == pytest.approx([score(talk)[0] for talk in talks], abs=CLOSE)


def padded_by_eos(template: str) -> Any:
    """A tokenizer whose pad is EOS, with a template."""
    tokens = tiny.tokenizer()
    tokens.pad_token = tokens.eos_token
    tokens.chat_template = template
    return tokens


def test_a_pad_that_is_eos_is_harmless_where_texts_do_not_end_with_it(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "same", tokenizer=padded_by_eos(tiny.CHATML))
    talks = make_talks(8)
    with serve_plain(folder) as client:
        found = score_talks(client, talks)
    assert [row["reward"] for row in found] == pytest.approx([x for (x,) in score_by_class(folder, talks)], abs=CLOSE)


def test_a_pad_that_is_eos_is_asked_for_where_texts_end_with_it(tmp_path: Path) -> None:
    folder = write_classifier(
        tmp_path / "same", tokenizer=padded_by_eos(tiny.CHATML.replace("'<|im_end|>\n'", "'<|im_end|>'"))
    )
    with pytest.raises(PlainError, match=r"also the pad token.*--pooling last .*--pooling eos"):
        open_plain_reward(folder)
    talks = make_talks(8)
    with serve_plain(folder, pooling="last") as client:
        before = [row["reward"] for row in score_talks(client, talks)]
    with serve_plain(folder, pooling="eos") as client:
        at = [row["reward"] for row in score_talks(client, talks)]
    assert before == pytest.approx([x for (x,) in score_by_class(folder, talks)], abs=CLOSE)
    edit_config(folder, pad_token_id=None)
    assert at == pytest.approx([x for (x,) in score_by_class(folder, talks)], abs=CLOSE)


def drop_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def spoil_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def take_other_tokenizer(folder: Path) -> None:
    tokens = tiny.tokenizer()
    tokens.add_tokens([f"<|more-{index}|>" for index in range(9)])
    tokens.save_pretrained(folder)


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no head": (drop_head, r"the weight score\.weight is missing, and would be newly initialised"),
    "a head with NaN": (spoil_head, r"value that is not finite"),
    "three labels for one row": (
        lambda folder: edit_config(folder, id2label={"0": "a", "1": "b", "2": "c"}),
        r"config\.json has 3 labels and the head has 1 row; correct `id2label`, or name 1 objective with --obj",
    ),
    "no template": (drop_template, r"no chat template; give a Jinja file with --template FILE, or one of --"),
    "another tokenizer": (take_other_tokenizer, r"belongs to another model; name the right folder with --tokenizer"),
    "pickles": (pickle_weights, r"pickles \(pytorch_model\.bin\).*tureen-train import .* --from pickle"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"neither tureen\.json .* nor config\.json"),
    "a causal model": (
        lambda folder: edit_config(folder, architectures=["LlamaForCausalLM"]),
        r"LlamaForCausalLM is a language model without a reward head, and a new head would be random",
    ),
    "a smaller hidden size": (lambda folder: edit_config(folder, hidden_size=16), r"the head reads 32 units"),
}


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a length above the model's": ({"max_length": 9999}, r"max_length: model reads at most 512 tokens, not 9999"),
    "one name for two": ({"objectives": ("a", "a")}, r"objectives: two are called 'a'; give each a name of its own"),
}


@pytest.mark.parametrize("fault", OPTIONS)
def test_an_option_that_does_not_fit_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    options, message = OPTIONS[fault]
    folder = write_classifier(tmp_path / "model", rows=2)
    with pytest.raises(PlainError, match=message):
        open_plain_reward(folder, open_options(**options))


def test_a_folder_of_checkpoints_names_one(tmp_path: Path) -> None:
    write_classifier(tmp_path / "run" / "checkpoint-2")
    with pytest.raises(PlainError, match=r"name one, such as .*run/checkpoint-2"):
        open_plain_reward(tmp_path / "run")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_served_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    spoil, message = FAULTS[fault]
    folder = write_classifier(tmp_path / "model")
    spoil(folder)
    with pytest.raises(PlainError, match=message):
        open_plain_reward(folder)


def test_a_template_and_a_tokenizer_that_are_asked_for_are_taken(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model")
    talks = make_talks(4)
    wanted = score_by_class(folder, talks)
    drop_template(folder)
    tokens = tmp_path / "tokens"
    tiny.tokenizer().save_pretrained(tokens)
    for options in ({"template": "chatml"}, {"tokenizer": str(tokens)}):
        with serve_plain(folder, **options) as client:
            found = score_talks(client, talks)
        assert [row["reward"] for row in found] == pytest.approx([each for (each,) in wanted], abs=CLOSE)


def test_a_server_whose_scores_differ_does_not_become_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_classifier(tmp_path / "model")
    read = tureen_core.plain.reward._score_probes

    def shifted(*args: Any) -> Any:
        return [probe.model_copy(update={"scores": {"reward": probe.scores["reward"] + 0.05}}) for probe in read(*args)]

    monkeypatch.setattr(tureen_core.plain.reward, "_score_probes", shifted)
    app = create_app(load_settings(rewards=[RewardEntry(path=folder)], dtype="float32"))
    with TestClient(app) as client:
        wait_for_models(app)
        reply = client.get("/health/ready")
    assert reply.status_code == 503
    assert "by its own library, ±" in reply.text


class SeesNeighbours:
    """A scorer whose numbers are right alone, and move by a tenth in a batch."""

    limits, threads, description, failure, dead = BatchLimits(), 1, "", None, False
    memory_failures = 0

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        moved = 0.1 if len(rows) > 1 else 0.0
        found = [each for each in self._scorer.run(rows, fresh) if isinstance(each, Rewards)]
        return [Rewards(tuple(value + moved for value in each.values)) for each in found]

    def close(self) -> None:
        self._scorer.close()


def test_the_proof_of_a_plain_model_reads_all_conversations_in_one_batch(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model")
    loaded = load_models([RewardEntry(path=folder)], [], LoadOptions(dtype="float32", device="cpu"))
    (backbone,) = loaded.backbones
    (reward,) = backbone.rewards
    proofs = prove_reward(reward, backbone.scorer, "float32", 1)
    assert len(proofs) == 12
    assert all(proof.holds and "by its own library" in str(proof) for proof in proofs)
    assert not any(proof.holds for proof in prove_reward(reward, SeesNeighbours(backbone.scorer), "float32", 1))
    loaded.close()
