"""The conversations on which a plain model is scored twice: by plain transformers, and as it is served."""

from tureen.answer_steps import STEP_BREAK
from tureen_core.manifest import Input, Probe

_PAIRS = (
    ("What is the capital of Peru?", "Lima."),
    ("What is the capital of Peru?", "Peru has no capital, so nobody can say. Ask somebody else!"),
    ("Write one line about autumn.", "The wind reads the last letters of the trees aloud, and drops them."),
    ("Write one line about autumn.", "autumn autumn autumn autumn autumn autumn"),
    ("How do I reset my router?", "Hold the button at its back for ten seconds; then wait until the lamp is green."),
    ("How do I reset my router?", "I'd rather not say."),
    ("Sum 17 and 25, please.", "17 + 25 = 42"),
    ("Sum 17 and 25, please.", "It is about 50, give or take. Who counts anyway?"),
    ("Translate 'good evening' into French.", "« Bonsoir », with a smile — naïve but sincere."),
    ("def add(a, b): what is missing?", "The body:\n```python\ndef add(a, b):\n    return a + b\n```"),
    ("My dog ate chocolate. What now?", "Call a vet now. Say how much it ate, and how much it weighs."),
)
_LONG = (
    {"role": "user", "content": "I cannot sleep."},
    {"role": "assistant", "content": "How long has it been like this?"},
    {"role": "user", "content": "Two weeks. 猫 keeps me awake, too."},
    {
        "role": "assistant",
        "content": "Close the door at ten, and write down your worries. If it stays, see a doctor.",
    },
)


def make_conversations() -> list[list[dict[str, str]]]:
    """Make a dozen finished conversations: right and wrong answers, short and long, code and other scripts."""
    pairs = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}] for question, answer in _PAIRS
    ]
    return [*pairs, [dict(turn) for turn in _LONG]]


def make_probes(given: Input = "conversation") -> list[Probe]:
    """Make a probe without scores of each conversation.

    Args:
        given: what the model reads. A ``pair`` has another answer as the rival; the ``steps`` are sentences.
    """
    made = make_conversations()
    if given == "pair":
        rivals = [made[number ^ 1][-1] for number in range(len(made))]
        return [
            Probe(messages=messages, rival=[*messages[:-1], rival])
            for messages, rival in zip(made, rivals, strict=True)
        ]
    if given == "steps":
        made = [[*turns, _break_sentences(answer)] for *turns, answer in made]
    return [Probe(messages=messages) for messages in made]


def _break_sentences(answer: dict[str, str]) -> dict[str, str]:
    return {**answer, "content": answer["content"].replace(". ", f".{STEP_BREAK}")}
