"""Compiled grammars: the tokens of a policy that a text may have next.

llguidance computes the tokens. Grammars are compiled once and kept; each text copies one and goes its own way. The
copies share the automaton that llguidance builds as it reads, and a limit of its states. So where a text meets that
limit, its grammar is compiled again and the text repeated: only what is too complex by itself is an error.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tureen.errors import ServerFault, Unprocessable
from tureen_serve.runtimes.grammar_proof import INVALID, LIMITS, TOO_COMPLEX, GrammarProver, GrammarSource

KEPT = 64
CANARY = "{ \"a b\": [1,\t-2.5e+3], 'x': `y`}\n\r\n# Für ½ naïve — 猫も 😀 ~|\\/<>@^&*()_+=;?!%$"


class Grammar:
    """A compiled grammar.

    Args:
        text: in Lark's syntax as llguidance reads it.
        tokenizer: llguidance's tokenizer.

    Raises:
        ValueError: it cannot be compiled, or no text satisfies it.
    """

    def __init__(self, text: str, tokenizer: Any) -> None:
        self.text = text
        self.tokenizer = tokenizer
        self.renew()

    def renew(self) -> None:
        """Compile the grammar, also again: texts that start from now on have an automaton without states."""
        from llguidance import LLMatcher, LLParserLimits

        matcher = LLMatcher(self.tokenizer, self.text, log_level=0, limits=LLParserLimits(**LIMITS))
        if not matcher.is_error():
            matcher.compute_bitmask()  # finds grammars that no text satisfies
        if matcher.is_error():
            raise ValueError(_read_error(matcher))
        self._first = matcher

    def start(self) -> "GrammarState":
        """Begin a text."""
        return GrammarState(self, self.copy_matcher())

    def copy_matcher(self) -> Any:
        """Copy llguidance's matcher at the beginning of a text."""
        return self._first.deep_copy()


class GrammarState:
    """The place of one text in its grammar. It belongs to one thread."""

    def __init__(self, grammar: Grammar, matcher: Any) -> None:
        self._grammar = grammar
        self._matcher = matcher
        self._accepted: list[int] = []

    def list_allowed(self) -> NDArray[np.bool_]:
        """List for each token id whether the text may go on with it. Ids that end a text are allowed where it may end.

        Raises:
            Unprocessable: the grammar has become too complex.
        """
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            self._repeat()
            bits = self._matcher.compute_bitmask()
            self._check()
        return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little").astype(bool)

    def accept(self, token: int) -> None:
        """Go on with a token.

        Raises:
            Unprocessable: the grammar has become too complex.
            ServerFault: the grammar does not allow it.
        """
        if self._matcher.is_stopped() and not self._matcher.is_error() and token in self._grammar.tokenizer.eos_tokens:
            return
        if not self._matcher.try_consume_tokens([token]):
            self._repeat()
            if not self._matcher.try_consume_tokens([token]):
                self._check()
                raise ServerFault("the runtime wrote a token that the grammar does not allow", code="grammar_broken")
        self._accepted.append(token)

    def _repeat(self) -> None:
        """Read the text again with a grammar that is compiled anew."""
        self._grammar.renew()
        self._matcher = self._grammar.copy_matcher()
        self._matcher.consume_tokens(self._accepted)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            message = f"the grammar is too complex to write this text by: {_read_error(self._matcher)}; simplify it"
            raise Unprocessable(message, code=TOO_COMPLEX)


class GrammarBook:
    """The grammars of one policy family. :meth:`find` and :meth:`compile` may be called from different threads.

    Args:
        tokenizer: a fast tokenizer.
        vocabulary: the number of logits.
        ends: ids that end a text.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = list(ends)
        self._reader: Any = None
        self._kept: OrderedDict[GrammarSource, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, source: GrammarSource) -> Grammar | None:
        """Find a grammar that is compiled already."""
        with self._lock:
            found = self._kept.get(source)
            if found is not None:
                self._kept.move_to_end(source)
            return found

    def compile(self, source: GrammarSource, prover: GrammarProver) -> Grammar:
        """Compile a grammar and keep it, if it is not kept yet. Blocks for some seconds at most.

        The first call also reads the tokenizer.

        Raises:
            Unprocessable: it is no grammar, is not supported, takes too much work, or no text satisfies it.
        """
        found = self.find(source)  # it may have been compiled while this call waited
        if found is not None:
            return found
        text = prover.prove(source)
        if self._reader is None:
            self._reader = self._read_tokenizer(source.param)
        try:
            grammar = Grammar(text, self._reader)
        except ValueError as error:
            message = f"the grammar cannot be used: {error}"
            raise Unprocessable(message, param=source.param, code=INVALID) from None
        with self._lock:
            self._kept[source] = grammar
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return grammar

    def _read_tokenizer(self, param: str) -> Any:
        """Make llguidance's tokenizer.

        Raises:
            Unprocessable: it reads other bytes than the policy's tokenizer, or nothing ends a text.
        """
        from llguidance.hf import from_tokenizer

        if not self._ends:
            raise _refuse("has no token that ends a text", param)
        size = max(self._vocabulary, len(self._tokenizer))
        try:
            reader = from_tokenizer(self._tokenizer, size, self._ends)
        except Exception as error:  # the library's kinds are not documented
            raise _refuse(f"cannot be read ({error})", param) from error
        ids = self._tokenizer(CANARY, add_special_tokens=False)["input_ids"]
        if reader.decode_bytes(ids).decode(errors="replace").lstrip() != CANARY:
            raise _refuse("cannot be read byte by byte", param)
        return reader


def _refuse(problem: str, param: str) -> Unprocessable:
    message = f"this policy's tokenizer {problem}, so no grammar can be enforced; leave `{param}` out"
    return Unprocessable(message, param=param, code="unsupported_parameter")


def _read_error(matcher: Any) -> str:
    error = str(matcher.get_error()).partition("\n")[0]
    return "no text satisfies it" if error.startswith("NoExtension") else error
