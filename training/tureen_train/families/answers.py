"""The answers of a family at each mix, with their rewards, in a file that a broken run goes on with."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tureen.records.schema import DataError
from tureen_train.families.mixes import Mix, name_mix
from tureen_train.runs.line_file import LineFile


@dataclass(frozen=True)
class MeasuredAnswer:
    """An answer to one prompt at one mix.

    Attributes:
        mix: its name, see :func:`.mixes.name_mix`.
        prompt: the prompt's id.
        text: the answer.
        tokens: their number, the end token among them.
        finished: whether it ended with an end token.
        rewards: by the names of the rewards and of the second judges.
        kl: the mean over its tokens of KL(mix ‖ base) in nats; None where it was not measured.
    """

    mix: str
    prompt: str
    text: str
    tokens: int
    finished: bool
    rewards: Mapping[str, float]
    kl: float | None = None


class AnswerFile:
    """The file: one line for each answer. A mix is there if all its prompts are.

    Args:
        path: the file; it need not exist.
        prompts: the ids of the prompts.

    Raises:
        ValueError: a line is no measured answer.
    """

    def __init__(self, path: Path, prompts: Sequence[str]) -> None:
        self.file = LineFile(path)
        self.prompts = list(prompts)
        self.found: dict[str, dict[str, MeasuredAnswer]] = {}
        try:
            answers = [MeasuredAnswer(**row) for row in self.file.rows]
        except TypeError as error:
            raise DataError(
                f"{path}: a line is no measured answer ({error}); delete the file to measure again"
            ) from error
        self._note(answers)

    def read(self, mix: Mix) -> list[MeasuredAnswer] | None:
        """The answers at a mix, in the order of the prompts; None if one is missing."""
        own = self.found.get(name_mix(mix), {})
        return [own[prompt] for prompt in self.prompts] if all(prompt in own for prompt in self.prompts) else None

    def add(self, answers: Sequence[MeasuredAnswer]) -> None:
        """Append answers."""
        self.file.extend(map(asdict, answers))
        self._note(answers)

    def _note(self, answers: Iterable[MeasuredAnswer]) -> None:
        for answer in answers:
            self.found.setdefault(answer.mix, {})[answer.prompt] = answer

    def complete(
        self, mixes: Sequence[Mix], measure: Callable[[Mix], list[MeasuredAnswer]], done: Callable[[int], object]
    ) -> dict[str, list[MeasuredAnswer]]:
        """Measure the mixes that are not there yet. Returns the answers of all, by the mixes' names."""
        for number, mix in enumerate(mixes):
            if self.read(mix) is None:
                self.add(measure(mix))
            done(number + 1)
        return {name_mix(mix): self.read(mix) or [] for mix in mixes}
