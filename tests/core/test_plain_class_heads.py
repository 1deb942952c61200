"""Models whose own class computes the rewards: how they are named, limited and refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from classifiers import write_model
from safetensors.torch import load_file, save_file

from tureen_core.artifact import Artifact
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.reward import open_plain_reward

FIVE = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "bert", "bert", labels=5)


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def opened(folder: Path, **options: Any) -> Artifact:
    return open_plain_reward(folder, PlainOptions(**{"template": "text-pair", **options}))


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def names(artifact: Artifact) -> list[str]:
    return [objective.name for objective in artifact.manifest.objectives]


def test_the_form_and_what_its_manifest_says(bert: Path) -> None:
    artifact = opened(bert)
    assert artifact.plain is not None
    assert artifact.plain.form == "classifier-class"
    assert artifact.manifest.head.kind == "model"
    assert artifact.manifest.head.output == "value"
    assert artifact.manifest.reading.frame == "pair"
    assert artifact.manifest.reading.max_length == 160
    assert len(artifact.manifest.probes) == 11  # the long conversation is no pair
    assert len(opened(bert, template="roles").manifest.probes) == 12
    assert opened(bert, template="answer").manifest.reading.frame == "text"


def test_rewards_are_named_by_the_labels_by_the_user_or_by_numbers(copy: Path) -> None:
    assert names(opened(copy)) == [f"reward-{index}" for index in range(5)]
    configure(copy, id2label=dict(enumerate(FIVE)), label2id={each: index for index, each in enumerate(FIVE)})
    artifact = opened(copy)
    assert names(artifact) == FIVE
    assert [each.column for each in artifact.manifest.objectives] == [0, 1, 2, 3, 4]
    assert names(opened(copy, objectives=tuple("abcde"))) == list("abcde")
    with pytest.raises(PlainError, match="has 5 rewards and was given 2 names"):
        opened(copy, objectives=("a", "b"))


@pytest.mark.parametrize(
    ("problem", "output", "wanted"),
    [
        (None, None, "value"),
        ("regression", None, "value"),
        ("single_label_classification", None, "value"),
        ("single_label_classification", "softmax", "softmax"),
        ("multi_label_classification", None, "sigmoid"),
        ("multi_label_classification", "value", "value"),
    ],
)
def test_the_problem_type_says_what_a_reward_is(
    copy: Path, problem: str | None, output: str | None, wanted: str
) -> None:
    configure(copy, problem_type=problem)
    artifact = opened(copy, output=output)
    assert artifact.manifest.head.output == wanted
    sums = [sum(probe.scores.values()) for probe in artifact.manifest.probes]
    assert all(sum_ == pytest.approx(1, abs=1e-5) for sum_ in sums) == (wanted == "softmax")
    bounded = all(0 < score < 1 for probe in artifact.manifest.probes for score in probe.scores.values())
    assert bounded == (wanted != "value")


def test_log_odds_need_two_labels(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="output: log-odds need two labels"):
        opened(copy, output="log-odds")
    two = write_model(tmp_path / "two", "bert", labels=2)
    odds, logits = opened(two, output="log-odds"), opened(two)
    assert names(odds) == ["reward"]
    for one, both in zip(odds.manifest.probes, logits.manifest.probes, strict=True):
        assert one.scores["reward"] == pytest.approx(both.scores["reward-1"] - both.scores["reward-0"], abs=1e-6)


@pytest.mark.parametrize("lost", ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight"])
def test_a_lost_weight_is_refused_by_name(copy: Path, lost: str) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors[lost]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PlainError, match=f"the weight {lost} is missing, and would be newly initialised"):
        opened(copy)


def test_another_number_of_labels_than_rows_is_refused(copy: Path) -> None:
    configure(copy, id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1})
    with pytest.raises(PlainError, match="config.json has 2 labels and classifier.weight has 5 rows"):
        opened(copy)


def test_no_template_is_asked_for_with_the_choices(bert: Path) -> None:
    with pytest.raises(PlainError, match=r"no chat template.*text-pair\|answer\|roles\|chatml\|hh"):
        open_plain_reward(bert)


def test_a_model_of_pages_and_an_unknown_class_are_refused(copy: Path) -> None:
    configure(copy, model_type="layoutlm", architectures=["LayoutLMForSequenceClassification"])
    with pytest.raises(PlainError, match="LayoutLMForSequenceClassification reads pages or tables"):
        opened(copy)
    configure(copy, model_type="nobody", architectures=["NobodyForSequenceClassification"])
    with pytest.raises(PlainError, match="tokenizer cannot be opened|no class of 'nobody'"):
        opened(copy)


@pytest.mark.parametrize(("pad", "wanted"), [(1, 30), (3, 28)])
def test_positions_after_the_paddings_are_fewer(tmp_path: Path, pad: int, wanted: int) -> None:
    folder = write_model(tmp_path / "roberta", "roberta", pad_token_id=pad, max_position_embeddings=32)
    assert opened(folder).manifest.reading.max_length == wanted
    assert opened(folder, max_length=20).manifest.reading.max_length == 20


def test_a_backbone_that_does_not_run_without_its_head_runs_whole(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4}
    artifact = opened(write_model(tmp_path / "neo", "gpt_neo", **sizes), template="roles")
    assert artifact.plain is not None
    assert artifact.plain.form == "classifier-class"  # it has no sdpa


def test_what_the_library_cannot_run_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="transformers itself cannot run this model on a text: Input language unknown"):
        opened(write_model(tmp_path / "xmod", "xmod"))


def test_a_model_that_scores_at_random_is_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        **{"axial_pos_embds": False, "num_hashes": 1, "num_buckets": 4, "attn_layers": ["lsh"]},
        **{"attention_head_size": 8, "feed_forward_size": 64, "is_decoder": False, "lsh_attn_chunk_length": 4},
    }
    with pytest.raises(PlainError, match="ReformerForSequenceClassification gives a text another number each time"):
        opened(write_model(tmp_path / "reformer", "reformer", **sizes))


def test_where_a_text_that_ends_with_padding_is_read_is_asked_for(bert: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "gpt2", "gpt2")
    template = tmp_path / "ends.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}<|endoftext|>")
    options = {"template": str(template), "form": "classifier-class"}
    with pytest.raises(PlainError, match="choose --pooling last"):
        opened(folder, **options)
    at, before = (opened(folder, pooling=pooling, **options).manifest.probes[0].scores for pooling in ("eos", "last"))
    assert at != before
    with pytest.raises(PlainError, match="pooling: BertForSequenceClassification reads where its own code says"):
        opened(bert, pooling="last")


def test_a_decoder_keeps_the_rule_of_its_template(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "gpt2", "gpt2")
    artifact = opened(folder, template="hh", form="classifier-class")
    assert artifact.manifest.reading.frame == "none"
    assert artifact.manifest.reading.max_length == 160
    with pytest.raises(PlainError, match="puts no special token between two texts"):
        opened(folder, form="classifier-class")
