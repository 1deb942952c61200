"""``tureen-train`` from the command line: what each command does, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from train.tiny_runs import expert_recipe, records, reward_recipe
from typer.testing import CliRunner, Result

from tureen_core.artifact import open_artifact
from tureen_core.plain.option_flags import name_flags
from tureen_train.__main__ import app
from tureen_train.config import list_recipes, read_recipe


@pytest.fixture(autouse=True)
def logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets up logging for a process of its own; here it would stay for the tests after it."""
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def written(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def failed(result: Result) -> str:
    """The one line that a command failed with; progress bars may stand before it."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tureen-train: ")]
    assert result.stderr.endswith(f"{line}\n")
    return line


@pytest.mark.parametrize("recipe", [reward_recipe, expert_recipe], ids=["reward", "expert"])
def test_run_trains_exports_and_shows_the_figures(base: Path, tmp_path: Path, recipe: Any) -> None:
    raw = recipe(base, tmp_path, optimisation={"max_steps": 2})
    result = call("run", written(tmp_path, raw), "--set", "name=wolves", "--set", "optimisation.learning_rate=1e-3")
    assert result.exit_code == 0, result.output
    assert "wolves, held out" in result.stdout
    assert "accuracy" in result.stdout
    assert f"exported {tmp_path / 'run' / 'artifact'}: verify it with tureen-serve check" in result.stdout
    assert open_artifact(tmp_path / "run" / "artifact").name == "wolves"
    resolved = read_recipe(str(tmp_path / "run" / "recipe.yaml"))
    assert (resolved.name, resolved.optimisation.learning_rate) == ("wolves", 1e-3)


def test_run_resumes_and_export_writes_again(base: Path, tmp_path: Path) -> None:
    path = written(tmp_path, reward_recipe(base, tmp_path, watch={"save_every": 2}))
    assert "--resume: there is no whole checkpoint in" in failed(call("run", path, "--resume"))
    assert call("run", path).exit_code == 0
    assert call("run", path, "--resume", "--set", "optimisation.max_steps=6").exit_code == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert max(steps) == 6
    before = open_artifact(tmp_path / "run" / "artifact").manifest
    result = call("export", tmp_path / "run")
    assert result.stdout == f"exported {tmp_path / 'run' / 'artifact'}\n"
    assert open_artifact(tmp_path / "run" / "artifact").manifest == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["scale.zero=7"], "scale.zero"),
        (["model.base=nowhere"], "'nowhere' is neither a folder with a config.json nor one of"),
        (["data.train.0.path=nowhere.json"], "nowhere.json"),
        (["model.lora.targets=[nothing]"], "has no module 'nothing'; correct the name"),
        (["model.start=nowhere"], "tureen.json"),
        (["optimisation.learning_rate=1e30"], "lower optimisation.learning_rate"),
    ],
    ids=str,
)
def test_what_cannot_run_is_one_line(base: Path, tmp_path: Path, changes: list[str], says: str) -> None:
    path = written(tmp_path, reward_recipe(base, tmp_path))
    sets = [word for change in changes for word in ("--set", change)]
    assert says in failed(call("run", path, *sets))


def test_a_finished_run_is_needed_to_export(tmp_path: Path) -> None:
    assert "holds no finished run" in failed(call("export", tmp_path))


# --------------------------------------------------------------------------- looking


def test_recipes_lists_the_packaged_ones_and_show_fills_them_in() -> None:
    listed = call("recipes").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list_recipes()
    assert next(line for line in listed if line.startswith("my-pairs ")).endswith("a reward model that ranks them")
    for name in list_recipes():
        shown = yaml.safe_load(call("show", name).stdout)
        assert "output" in shown
    changed = yaml.safe_load(call("show", "starter/domain-reward", "--set", "name=other").stdout)
    assert changed["name"] == changed["objective"] == "other"
    assert changed["output"] == "runs/other"


def test_what_show_prints_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(call("show", "starter/domain-reward").stdout)
    assert read_recipe(str(path)) == read_recipe("starter/domain-reward")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "nothing"], "neither a file nor one of the packaged recipes"),
        (["show", "starter/domain-reward", "--set", "name"], "write it as key.key=value"),
        (["show", "starter/domain-reward", "--set", "modle.base=x"], "modle: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments: list[str], says: str) -> None:
    assert says in failed(call(*arguments))


def test_convert_is_among_the_commands(tmp_path: Path) -> None:
    result = call("convert", records(tmp_path), tmp_path / "pairs.jsonl", "--to-pairs")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pairs.jsonl").read_text().count('"chosen"') == 48


def test_the_commands_are_these() -> None:
    """A command or option more is a promise more: it comes with its test."""
    from typer.main import get_command

    commands = get_command(app).commands  # type: ignore[attr-defined]
    found = {name: {option for p in each.params for option in p.opts} for name, each in commands.items()}
    judging = {"evaluate", "compare", "sweep", "similarity", "margins"}
    making = {"run", "export", "show", "recipes", "convert", "import", "family", "merge", "sample", "transform"}
    making |= {"front", "judge", "watch", "weights"}
    assert set(found) == making | judging
    reading = {"--form", "--map", "--reversed", "--strict"}
    similarity = {"source", "target", "--encoder", "--pooling", "--to-pairs", "--domain"}
    assert found["similarity"] == similarity | reading
    margins = {"models", "--data", "--out", "--rating", "--encoder", "--pooling", "--objective", "--batch"}
    assert found["margins"] == margins | reading | {"--domain"}
    named = {"--expert", "--base", "--objective", "--family", "--name", "--licence", "--device"}
    named |= {"--calibrate", "--from", "--overwrite", *name_flags().values()}
    assert found["import"] == named | {"source", "out", "--rank", "--energy", "--accept-energy"}
    assert set(commands["judge"].commands) == {"configurations", "show", "annotate", "evaluate", "agree"}
    assert found["sample"] == {"recipe", "target", "--set", "--overwrite"}
    assert found["family"] == {"recipe", "--set", "--measure-only"}
    how = {"--weights", "--how", "--density", "--seed", "--to", "--dtype"}
    assert found["merge"] == {"out", "--expert", "--base", "--rank", "--energy", "--accept-energy", *how}
    assert found["run"] == {"recipe", "--data", "--base", "--map", "--set", "--resume", "--overwrite", "--dry-run"}
    assert found["watch"] == {"folder", "--once"}
    assert found["sweep"] == {
        "--out",
        "--from",
        "--to",
        "--prompts",
        "--limit",
        "--steps",
        "--tokens",
        "--model",
        "--url",
        "--start-server",
    }


def test_a_folder_with_another_runs_artifact_is_left_alone_unless_asked(base: Path, tmp_path: Path) -> None:
    path = written(tmp_path, reward_recipe(base, tmp_path, watch={"save_every": 2}))
    folder = tmp_path / "run"
    assert call("run", path).exit_code == 0
    before = {each: (folder / each).read_bytes() for each in ("history.jsonl", "recipe.yaml", "artifact/tureen.json")}
    says = failed(call("run", path, "--set", "name=wolves"))
    assert f"{folder} holds the artifact of another run: go on with --resume, replace it with --overwrite" in says
    assert before == {each: (folder / each).read_bytes() for each in before}
    assert "exclude each other" in failed(call("run", path, "--resume", "--overwrite"))
    sets = ["--set", "name=wolves", "--set", "watch.save_every=0"]
    assert call("run", path, "--overwrite", *sets).exit_code == 0
    assert open_artifact(folder / "artifact").name == "wolves"
    assert not (folder / "checkpoints").exists() or not any((folder / "checkpoints").iterdir())


def test_records_that_all_tie_end_the_command_with_status_1(base: Path, tmp_path: Path) -> None:
    ties = Path(__file__).parents[1] / "cases" / "records" / "all-ties.jsonl"
    path = written(tmp_path, reward_recipe(base, tmp_path, data={"train": [{"path": str(ties)}], "holdout": 0}))
    assert "no record has two answers with different scores" in failed(call("run", path))


def test_a_log_file_holds_no_progress_bars(base: Path, tmp_path: Path) -> None:
    """Of a process of its own, whose output is no terminal."""
    path = written(tmp_path, reward_recipe(base, tmp_path))
    command = [sys.executable, "-m", "tureen_train", "run", str(path)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\r" not in outcome.stdout + outcome.stderr
    assert "it/s]" not in outcome.stdout + outcome.stderr
    assert len([line for line in outcome.stdout.splitlines() if line.startswith("{'loss'")]) == 4
