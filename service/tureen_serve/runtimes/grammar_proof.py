"""Prove that a grammar compiles with bounded work, in a process of its own. Run as a module, this file is that process.

llguidance bounds most of its work, and not all: the intersection of some patterns of a JSON schema takes hours. A
thread cannot be ended, so each new grammar is first compiled in a child, which the kernel ends after
:data:`CPU_SECONDS`. The child also converts grammars to Lark's syntax as llguidance reads it, which both runtimes take.
It imports no model library.
"""

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Literal, cast

from tureen.errors import ServerFault, Unprocessable

Kind = Literal["json", "regex", "choice", "grammar"]
CPU_SECONDS = 3.0
MEMORY_BYTES = 2 * 2**30
MOST_BYTES = 256 * 1024
INVALID, TOO_COMPLEX = "invalid_grammar", "grammar_too_complex"
HEADER = "%llguidance {}\n"
LARK = re.compile(r"(?m)^\s*(%llguidance\b|\??start\s*:)")
PLACE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")
# of llguidance; a schema of 2000 properties compiles with these
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 50_000,
    "max_grammar_size": 50_000,
    "max_lexer_states": 20_000,
    "verbose_errors": False,
}


@dataclass(frozen=True, slots=True)
class GrammarSource:
    """A grammar as a request has it.

    Attributes:
        kind: a JSON schema, a regular expression, a JSON list of texts to choose from, or a grammar in Lark's syntax or
            GBNF.
        text: in the form that the kind says.
        param: the field of the request, for errors.
    """

    kind: Kind
    text: str
    param: str = field(compare=False)


class GrammarProver:
    """The child process. It is started at the first use, and again after a grammar that it did not survive.

    One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._child: _Child | None = None

    def prove(self, source: GrammarSource) -> str:
        """Convert a grammar to Lark's syntax and compile it. Blocks for some seconds at most.

        Raises:
            Unprocessable: it is no grammar, is not supported, or takes too much work.
            ServerFault: the process cannot be started.
        """
        if len(source.text.encode()) > MOST_BYTES:
            message = f"the grammar is longer than {MOST_BYTES} bytes; send a smaller one"
            raise Unprocessable(message, param=source.param, code=TOO_COMPLEX)
        reply = self._ask({"kind": source.kind, "text": source.text})
        if reply is None:
            message = f"the grammar takes more than {CPU_SECONDS:g} seconds or too much memory to compile; simplify it"
            raise Unprocessable(message, param=source.param, code=TOO_COMPLEX)
        if "error" in reply:
            raise Unprocessable(f"the grammar cannot be used: {reply['error']}", param=source.param, code=INVALID)
        return str(reply["lark"])

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _ask(self, question: Mapping[str, str]) -> dict[str, Any] | None:
        """Ask the child; None if the question ended it."""
        if self._child is None:
            self._child = _Child()
        try:
            self._child.sent.write(json.dumps(question).encode() + b"\n")
            self._child.sent.flush()
            line = self._child.said.readline()
        except BrokenPipeError:
            line = b""
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        self.close()
        return None


class _Child:
    """The process, and the pipes to and from it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tureen_serve.runtimes.grammar_proof"]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null)
        self.sent = cast(IO[bytes], self._process.stdin)
        self.said = cast(IO[bytes], self._process.stdout)
        if not self.said.readline():  # else it says that it has begun
            self.end()
            raise ServerFault("the process that compiles grammars cannot be started", code="runtime_failed")

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


# ------------------------------------------------------------------------------------------ inside the child


def convert_grammar(kind: Kind, text: str) -> str:
    """Convert a grammar to Lark's syntax as llguidance reads it.

    Raises:
        ValueError: the text is not of its kind.
    """
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if kind == "json":
        return f"{HEADER}start: %json {json.dumps(json.loads(text))}"
    if kind == "choice":
        return f"{HEADER}start: {' | '.join(json.dumps(each, ensure_ascii=False) for each in json.loads(text))}"
    if kind == "regex":
        return HEADER + str(json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"])
    if LARK.search(text) is None:
        return gbnf_to_lark(text)
    return text if re.search(r"(?m)^\s*%llguidance\b", text) else HEADER + text


def _answer(question: Mapping[str, Any]) -> dict[str, str]:
    from llguidance import LLMatcher, LLParserLimits

    try:
        lark = convert_grammar(question["kind"], question["text"])
        failed, said = LLMatcher.validate_grammar_with_warnings(lark, limits=LLParserLimits(**LIMITS))
    except Exception as error:  # llguidance's converter raises many kinds
        return {"error": str(error) or type(error).__name__}
    if not failed:
        return {"lark": lark}
    wrapped = question["kind"] in ("json", "regex")  # then the place is not one of the caller's text
    return {"error": PLACE.sub("", said[0]).partition("\n   1 |")[0] if wrapped else said[0]}


def run_child() -> None:
    """Answer questions from standard input until it ends. A question that takes too long ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, for the server
    _answer({"kind": "regex", "text": "a"})  # the import is no part of a question
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        reply = _answer(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    run_child()
