"""``python -m tureen_train.comparison``: ways of personalising the starter's base, trained and measured side by side.

What the packaged family lacks is trained (see :mod:`.runs`). One server then writes all answers, and ``tureen-train
front`` measures them for two and for three objectives. What is finished is not done again.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
import yaml

from tureen_core.base import load_tokenizer, locate_base
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.comparison.fronts import plan_front, plan_server
from tureen_train.comparison.runs import FRONTS, SENTENCES, ComparedMethods, plan_runs
from tureen_train.config import read_family
from tureen_train.families.measure import find_prompts
from tureen_train.families.train import train_stage
from tureen_train.records.run_data import load_data
from tureen_train.records.writing import write_rows
from tureen_train.terminal import start_log

FAMILY = "starter/family"


def write_told(made: ComparedMethods) -> None:
    """Write the answers of the training prompts in each voice, after prompts that say it."""
    split = load_data(made.family.plan_expert(next(iter(SENTENCES)), 0).data)
    rows = []
    for record in split.train:
        answers = dict(zip(record.meta["names"], record.answers, strict=True))
        for name, sentence in SENTENCES.items():
            if name in answers:
                asked = {"role": "user", "content": f"{record.prompt[-1]['content']} {sentence}"}
                rows.append({"messages": [asked, *answers[name]]})
    made.out.mkdir(parents=True, exist_ok=True)
    write_rows(iter(rows), made.out / "told.jsonl")


def write_prompts(made: ComparedMethods) -> None:
    """Write the held-out prompts by which the family is measured."""
    base = str(made.family.expert["model"]["base"])
    renderer = Renderer(load_tokenizer(locate_base(base)), Reading())
    texts = [str(each.messages[-1]["content"]) for each in find_prompts(made.family, renderer)]
    (made.out / "prompts.json").write_text(json.dumps({"prompts": texts}, indent=1) + "\n", encoding="utf-8")


def measure_fronts(made: ComparedMethods, count: int) -> None:
    """Measure all methods, for two and for three objectives."""
    server = made.out / "server.yaml"
    server.write_text(yaml.safe_dump(plan_server(made), sort_keys=False), encoding="utf-8")
    for front in FRONTS:
        plan = made.out / f"{front}.yaml"
        plan.write_text(yaml.safe_dump(plan_front(made, front, server, count), sort_keys=False), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "tureen_train", "front", str(plan)], check=True)


def main(
    data: Annotated[Path, typer.Option(help="the folder of the public data files")] = Path("../shared/data"),
    packaged: Annotated[Path, typer.Option(help="the folder of the starter")] = Path("service/tureen_serve/starter"),
    out: Annotated[Path, typer.Option(help="the folder for runs and measurements")] = Path("runs/comparison"),
    count: Annotated[int, typer.Option(min=2, help="the number of prompts")] = 48,
    jobs: Annotated[int, typer.Option(min=1, help="trainings that run side by side")] = 2,
) -> None:
    """Train the methods that the starter lacks, and measure all of them."""
    start_log("INFO")
    made = ComparedMethods(read_family(FAMILY, [f"expert.data.root={data}"]), packaged, out)
    write_told(made)
    write_prompts(made)
    with ThreadPoolExecutor(jobs) as pool:
        for runs in plan_runs(made):
            list(pool.map(lambda run: train_stage(run, f"{run.family}/{run.name}"), runs))
    measure_fronts(made, count)


if __name__ == "__main__":
    typer.run(main)
