"""Opens the judge that a user names: a language model behind a server, a reward model, or a policy in this process."""

from pathlib import Path
from typing import Any

from tureen import Client
from tureen.records.schema import BadOption
from tureen.settings import SCHEMES
from tureen_core.artifact import MANIFEST, open_artifact, read_manifest
from tureen_train.judge.comparisons import Judge
from tureen_train.judge.configuration import read_configuration
from tureen_train.judge.language_judge import Endpoint, LanguageJudge
from tureen_train.judge.model_judges import ArtifactJudge, ServerJudge
from tureen_train.judge.policy_judge import PolicyJudge

HELPFUL = "helpfulness"


def open_reward_judge(model: str, objective: str | None = None, batch: int = 8) -> ArtifactJudge | ServerJudge:
    """Open a reward model as a judge.

    Args:
        model: an artifact's folder, or a server's address; ``#name`` after the address names the reward.
        objective: the reward to use, if there are several.
        batch: in process, the texts in one batch; over HTTP, the records in one request.

    Raises:
        ArtifactError: the folder is not an artifact, or its model cannot compare answers.
        BaseError: its base is missing, or has other weights.
        BadOption: no reward of the server is named, or the artifact has no such objective.
    """
    if not model.startswith(SCHEMES):
        return ArtifactJudge(open_artifact(Path(model)), objective, batch)
    address, _, named = model.partition("#")
    if not (named or objective):
        raise BadOption(f"{address}: name a reward of the server, as {address}#name or with --objective")
    return ServerJudge(Client(address), str(named or objective), batch)


def open_free_judge(
    judge: str, configuration: str | None = None, objective: str | None = None, **changes: Any
) -> Judge:
    """Open a judge that costs no request to a language model.

    Args:
        judge: a Tureen server's address with ``#reward``; the folder of a reward model's artifact; or a policy in this
            process, as :class:`.policy_judge.PolicyJudge` takes it.
        configuration: what a policy is asked; helpfulness by default. A reward model is asked nothing.
        objective: the reward to use, if there are several.
        changes: values that replace those of the configuration.

    Raises:
        RecipeError: there is no such configuration.
        BadOption: an option is missing, or is of another kind of judge.
        ArtifactError: the artifact does not verify.
    """
    if names_reward(judge):
        if configuration is not None:
            raise BadOption(f"--config: {judge} is a reward model, which is asked nothing; leave it out")
        return open_reward_judge(judge, objective)
    if objective is not None:
        raise BadOption(f"--objective: it chooses a reward, and {judge} has none")
    return PolicyJudge(judge, read_configuration(configuration or HELPFUL, "likelihood", **changes))


def open_judge(
    judge: str,
    kept: Path,
    *,
    configuration: str | None = None,
    style: str = "evaluate",
    model: str | None = None,
    objective: str | None = None,
    concurrency: int = 8,
    timeout: float = 300.0,
    most_unparsed: float = 1.0,
    **changes: Any,
) -> Judge:
    """Open any judge.

        open_judge("http://127.0.0.1:8000", Path("kept.jsonl"), model="m", configuration="evaluate/pref2A")
        open_judge("http://127.0.0.1:8900#helpful", Path("kept.jsonl"))
        open_judge("runs/academy/artifact", Path("kept.jsonl"))

    Args:
        judge: an OpenAI-compatible server's address, where ``model`` names a language model; a Tureen server's address
            with ``#reward``; the folder of a reward model's artifact; or a policy in this process, as
            :class:`.policy_judge.PolicyJudge` takes it.
        kept: the file that keeps what a language model says.
        configuration: what a language model or a policy is asked, as :func:`.configuration.read_configuration` takes
            it; helpfulness by default. A reward model is asked nothing.
        style: of a language model, where the configuration names none.
        model: the name of the language model on the server.
        objective: the reward to use, if there are several.
        most_unparsed: see :class:`.language_judge.LanguageJudge`.
        changes: values that replace those of the configuration.

    Raises:
        RecipeError: there is no such configuration.
        BadOption: an option is missing, or is of another kind of judge.
        ValueError: the file or the artifact is damaged.
    """
    if not judge.startswith(SCHEMES) or "#" in judge:
        if model is not None:
            raise BadOption(f"--model: it names a language model on a server, and {judge} is none")
        return open_free_judge(judge, configuration, objective, **changes)
    if objective is not None:
        raise BadOption(f"--objective: a language model has none; a reward there is named as {judge}#{objective}")
    if model is None:
        raise BadOption(f"--model: name a language model on {judge}, or a reward there as {judge}#name")
    asked = read_configuration(configuration or HELPFUL, style, **changes)
    return LanguageJudge(asked, Endpoint(judge, model, concurrency, timeout), kept, most_unparsed)


def names_reward(judge: str) -> bool:
    """Whether a judge that costs no request is a reward model, and no policy."""
    folder = Path(judge).expanduser()
    return judge.startswith(SCHEMES) or ((folder / MANIFEST).is_file() and read_manifest(folder).kind == "reward")
