"""What a judge is asked: in the package's own words, or in a user's file in FastChat's form (`judge_prompts.jsonl`).

The texts decide what is asked, so they belong to the identity of the stage that judges.
"""

import json
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deita_train.errors import UserError
from deita_train.evolve.prompts import fence
from deita_train.llm.requests import ChatRequest

PROMPTS_DIR = Path(__file__).parent / "prompts"
RATE, PAIR, COMPARE, SYSTEM = "rate", "pair", "compare", "system"
REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
"""MT-Bench's categories that are judged with a reference answer."""

# FastChat's names by what is judged: without and with a reference, the first turn and the second.
_FASTCHAT: Mapping[str, Mapping[tuple[bool, bool], str]] = {
    RATE: {
        (False, False): "single-v1",
        (True, False): "single-math-v1",
        (False, True): "single-v1-multi-turn",
        (True, True): "single-math-v1-multi-turn",
    },
    PAIR: {
        (False, False): "pair-v2",
        (True, False): "pair-math-v1",
        (False, True): "pair-v2-multi-turn",
        (True, True): "pair-math-v1-multi-turn",
    },
}
_FORMATS = {RATE: "[[rating]]", PAIR: "[[A]]"}
_FASTCHAT_TURNS = 2


@dataclass(frozen=True)
class JudgedTurn:
    """One turn as a judge sees it.

    Attributes:
        question: of the user.
        reference: a right answer; None where there is none.
        answers: one that is rated, or two that are compared, in the order in which the judge sees them.
    """

    question: str
    reference: str | None
    answers: tuple[str, ...]


@dataclass(frozen=True)
class JudgePrompts:
    """The prompts of one way of judging: texts that can be hashed, and how they are filled in.

    Attributes:
        way: "rate", "pair" or "compare".
        texts: templates by name: the package's in Jinja, FastChat's as `{"system": ..., "prompt": ...}`.
        fastchat: whether they are FastChat's.
    """

    way: str
    texts: Mapping[str, Any]
    fastchat: bool = False

    def identity(self) -> dict[str, Any]:
        """The texts, for the identity of the stage that uses them."""
        return {"fastchat": self.fastchat, "texts": dict(self.texts)}

    @classmethod
    def of_identity(cls, way: str, identity: Mapping[str, Any]) -> "JudgePrompts":
        """The same from a stage's identity."""
        return cls(way, identity["texts"], identity["fastchat"])

    def request(self, turns: Sequence[JudgedTurn], *, attempt: int, max_tokens: int) -> ChatRequest:
        """Ask about the last of these turns."""
        messages = self._fastchat_messages(turns) if self.fastchat else self._own_messages(turns)
        return ChatRequest(messages, max_tokens=max_tokens, attempt=attempt)

    def comparison(
        self, instruction: str, first: str, second: str, *, attempt: int, max_tokens: int, top_logprobs: int | None
    ) -> ChatRequest:
        """Ask which of two answers to an instruction is better."""
        values = {"instruction": instruction, "first": first, "second": second}
        content = _rendered(self.texts[COMPARE], values, values.values())
        messages: tuple[dict[str, str], ...] = ({"role": "user", "content": content},)
        if SYSTEM in self.texts:
            messages = ({"role": "system", "content": _rendered(self.texts[SYSTEM], {}, ())}, *messages)
        return ChatRequest(messages, max_tokens=max_tokens, attempt=attempt, top_logprobs=top_logprobs)

    def _own_messages(self, turns: Sequence[JudgedTurn]) -> tuple[dict[str, str], ...]:
        names = ("answer",) if self.way == RATE else ("first", "second")
        listed = [
            {"question": turn.question, "reference": turn.reference, **dict(zip(names, turn.answers, strict=True))}
            for turn in turns
        ]
        texts = [text for turn in listed for text in turn.values() if text is not None]
        return ({"role": "user", "content": _rendered(self.texts[self.way], {"turns": listed}, texts)},)

    def _fastchat_messages(self, turns: Sequence[JudgedTurn]) -> tuple[dict[str, str], ...]:
        assert len(turns) <= _FASTCHAT_TURNS, "FastChat's prompts have two turns"
        has_reference = all(turn.reference is not None for turn in turns)
        prompt = self.texts[_FASTCHAT[self.way][has_reference, len(turns) > 1]]
        content = prompt["prompt"].format(**_fastchat_fields(turns))
        return ({"role": "system", "content": prompt["system"]}, {"role": "user", "content": content})


def own_prompts(way: str, folder: Path | None = None) -> JudgePrompts:
    """The package's words; for comparisons, those of a user's folder with `compare.jinja` in place of them.

    Raises:
        UserError: the folder has no such prompt, or one that leaves out what it is about.
    """
    if folder is None:
        return JudgePrompts(way, {way: (PROMPTS_DIR / f"{way}.jinja").read_text(encoding="utf-8")})
    assert way == COMPARE, "ratings and pairs take prompts in FastChat's form"
    files = {COMPARE: folder / "compare.jinja", SYSTEM: folder / "system.jinja"}
    if not files[COMPARE].is_file():
        raise UserError(f"prompts: {folder} has no compare.jinja. Name a folder that has one, or leave it out.")
    texts = {name: _text(path) for name, path in files.items() if name == COMPARE or path.is_file()}
    prompts = JudgePrompts(COMPARE, texts)
    _check_comparison(prompts, files[COMPARE])
    return prompts


def fastchat_prompts(way: str, path: Path) -> JudgePrompts:
    """The four prompts of a way of judging from a file in FastChat's form.

    Raises:
        UserError: the file is not of that form, or lacks one of the prompts.
    """
    found: dict[str, dict[str, str]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            name, prompt = _fastchat_line(line, f"prompts: {path}:{number}", _FORMATS[way], _FASTCHAT[way].values())
            if name is not None:
                found[name] = prompt
    missing = [name for name in _FASTCHAT[way].values() if name not in found]
    if missing:
        raise UserError(
            f"prompts: {path} has no prompt named {', '.join(missing)}. Name FastChat's judge_prompts.jsonl, or leave "
            "prompts: out for the package's words."
        )
    return JudgePrompts(way, dict(sorted(found.items())), fastchat=True)


def _fastchat_line(line: str, where: str, form: str, names: Iterable[str]) -> tuple[str | None, dict[str, str]]:
    """The name and texts of a line's prompt; None for the name of one that is not asked for."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}. Name a file in the form of FastChat's.") from None
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise UserError(f"{where}: no prompt with a name. Name a file in the form of FastChat's judge_prompts.jsonl.")
    name = row["name"]
    if name not in names:
        return None, {}
    texts = [row.get(field) for field in ("system_prompt", "prompt_template")]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: {name} needs the texts system_prompt and prompt_template.")
    if row.get("output_format") != form:
        raise UserError(f"{where}: {name} has the output_format {row.get('output_format')!r}; only {form} is read.")
    system, prompt = map(str, texts)
    _check_fastchat(name, prompt, where)
    return name, {"system": system, "prompt": prompt}


def _check_fastchat(name: str, prompt: str, where: str) -> None:
    """Refuse a template with other fields than this prompt's, or without one that it needs."""
    way = RATE if name in _FASTCHAT[RATE].values() else PAIR
    (reference, second) = next(of for of, known in _FASTCHAT[way].items() if known == name)
    answers = ("",) if way == RATE else ("", "")
    turn = JudgedTurn("", "" if reference else None, answers)
    needed = set(_fastchat_fields([turn] * (2 if second else 1)))
    try:
        asked = {field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None}
    except ValueError as error:
        raise UserError(f"{where}: {name}: {error}. Write {{{{ and }}}} for braces that are no fields.") from None
    if asked - needed:
        raise UserError(f"{where}: {name} has the fields {_listed(asked - needed)}; it is given {_listed(needed)}.")
    if needed - asked:
        raise UserError(f"{where}: {name} leaves out {_listed(needed - asked)}, so the judge would not see it.")


def _listed(fields: Iterable[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in sorted(fields))


def _fastchat_fields(turns: Sequence[JudgedTurn]) -> dict[str, str]:
    """What FastChat fills in: numbered where there are two turns, but references always."""
    fields: dict[str, str] = {}
    several = len(turns) > 1
    for number, turn in enumerate(turns, start=1):
        suffix = f"_{number}" if several else ""
        letters = ("",) if len(turn.answers) == 1 else ("_a", "_b")
        fields[f"question{suffix}"] = turn.question
        fields |= {f"answer{letter}{suffix}": text for letter, text in zip(letters, turn.answers, strict=True)}
    if all(turn.reference is not None for turn in turns):
        fields |= {f"ref_answer_{number}": str(turn.reference) for number, turn in enumerate(turns, start=1)}
    return fields


def _check_comparison(prompts: JudgePrompts, path: Path) -> None:
    from jinja2 import TemplateError

    words = ("trial-instruction", "trial-first", "trial-second")
    try:
        asked = prompts.comparison(*words, attempt=0, max_tokens=1, top_logprobs=None).messages[-1]["content"]
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"prompts: {path}: it cannot be filled in: {error}. It is given instruction, first, second and fence."
        ) from None
    missing = [word.removeprefix("trial-") for word in words if word not in asked]
    if missing:
        raise UserError(f"prompts: {path}: it does not write {', '.join(missing)}. Write {{{{ {missing[0]} }}}} there.")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"prompts: {path} cannot be read: {reason}. Correct the path or the file.") from None


def _rendered(template: str, values: Mapping[str, Any], texts: Iterable[str]) -> str:
    return str(_compiled(template).render(**values, fence=fence(texts)).strip())


@cache
def _compiled(template: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template)
