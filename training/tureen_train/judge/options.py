"""The options of the commands that judge."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="JUDGE",
        help="who judges: an OpenAI-compatible server, as http://host:8000 with --model; a reward of a Tureen server,"
        " as http://host:8900#helpful; the folder of a reward model's artifact; or a causal model or expert, which runs"
        " in this process",
    ),
]
ModelName = Annotated[str | None, typer.Option("--model", help="the language model on the server of --by")]
Objective = Annotated[str | None, typer.Option(help="the reward to use, if the artifact of --by has several")]
OrdersOf = Annotated[
    Literal["once", "both"] | None,
    typer.Option("--orders", help="`both`: judge each pair in both orders; `once`: in one that a hash draws"),
]
Batch = Annotated[int | None, typer.Option(min=1, help="pairs in one request")]
Temperature = Annotated[float | None, typer.Option(min=0, help="the judge's temperature")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="the most tokens of a reply")]
Concurrency = Annotated[int, typer.Option(min=1, help="requests at a time")]
Timeout = Annotated[float, typer.Option(min=1, help="seconds that one request may wait")]
MostUnparsed = Annotated[
    float, typer.Option(min=0, max=1, help="the largest share of the questions whose replies may have no verdict")
]
PriceOf = Annotated[str | None, typer.Option("--price", help="of a million tokens read and written, as 2.5/10")]
Tokenizer = Annotated[
    str | None,
    typer.Option(help="the folder of a tokenizer that counts tokens for the estimate; by default four characters each"),
]
Yes = Annotated[bool, typer.Option("--yes", help="judge without asking whether the estimated cost is right")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only tell what it costs")]


@dataclass(frozen=True)
class JudgeChoice:
    """The judge that a user names, and how it is asked. None stands for the configuration's own value."""

    by: str
    model: str | None = None
    objective: str | None = None
    orders: Literal["once", "both"] | None = None
    batch: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    concurrency: int = 8
    timeout: float = 300.0
    most_unparsed: float = 0.1

    def open_with(self, configuration: str | None, style: str, kept: Path) -> Any:
        """Open the judge with a configuration; see :func:`.opening.open_judge`."""
        from tureen_train.judge.opening import open_judge  # seconds to import: not for --help

        return open_judge(
            self.by,
            kept,
            configuration=configuration,
            style=style,
            model=self.model,
            objective=self.objective,
            concurrency=self.concurrency,
            timeout=self.timeout,
            most_unparsed=self.most_unparsed,
            orders=self.orders,
            batch=self.batch,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
        )


@dataclass(frozen=True)
class Spending:
    """What the user says of the cost: prices, what counts tokens, and whether to go on."""

    price: str | None = None
    tokenizer: str | None = None
    yes: bool = False
    dry: bool = False
