"""``tureen-train sweep``: what the soups on the way from one expert to another are worth, as a table and a plot."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tureen import Client
from tureen_train.faults import told

PROMPTS = Path(__file__).with_name("heldout_prompts.json")
console = Console()


def sweep(
    out: Annotated[Path, typer.Option(help="the folder for sweep.png, sweep.csv and texts.jsonl")] = Path("runs/sweep"),
    first: Annotated[str, typer.Option("--from", help="the expert that weighs all at first")] = "academy",
    second: Annotated[str, typer.Option("--to", help="the expert that weighs all at last")] = "entertainment",
    prompts: Annotated[Path, typer.Option(help="JSON with a list `prompts`, or a prompt a line")] = PROMPTS,
    limit: Annotated[int, typer.Option(min=1, help="how many prompts")] = 24,
    steps: Annotated[int, typer.Option(min=2, max=64, help="how many weights")] = 11,
    tokens: Annotated[int, typer.Option(min=1, help="the most tokens of a text")] = 64,
    model: Annotated[str | None, typer.Option(help="the policy family; the server's first one by default")] = None,
    url: Annotated[str, typer.Option(help="the server")] = "http://127.0.0.1:8900",
    start_server: Annotated[bool, typer.Option("--start-server", help="start the starter's, and end it")] = False,
) -> None:
    """Generate at every weight from one expert to another, score every text, and plot the mean rewards."""
    if first == second:
        raise typer.BadParameter("--from and --to name the same expert")
    from tureen_train.evaluation import server  # a second or two to import: not for --help
    from tureen_train.evaluation import sweep as soups

    with told():
        asked = read_prompts(prompts)[:limit]
        with server.serving() if start_server else nullcontext(url) as address, Client(address) as client:
            result = soups.sweep(client, asked, first, second, steps, tokens, model)
        soups.write(result, asked, out)
    console.print(soups.table(result))
    typer.echo(f"the plot: {out / 'sweep.png'}")


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file.

    Raises:
        ValueError: it holds none, or is JSON without a list of texts.
    """
    text = path.read_text(encoding="utf-8")
    found = _listed(json.loads(text)) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    if not isinstance(found, list) or not all(isinstance(prompt, str) for prompt in found):
        raise ValueError(f"{path}: it needs a list `prompts` of texts")
    prompts = [prompt for prompt in found if prompt.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    return prompts


def _listed(document: Any) -> Any:
    return document.get("prompts") if isinstance(document, dict) else document
