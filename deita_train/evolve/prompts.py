"""The prompts of Evol Complexity, Evol Quality and the two baselines: .jinja files, any of which a user may replace.

Their texts decide what is asked, so they belong to the identity of the stage that asks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from deita_train.errors import UserError
from deita_train.evolve.operations import OPERATIONS, Dimension
from deita_train.evolve.wording import words

if TYPE_CHECKING:
    from jinja2 import Environment

PROMPTS_DIR = Path(__file__).parent / "prompts"
RANK, DIRECT_SCORE, TAGS = "rank", "direct_score", "tags"
PromptSet = Literal["complexity", "quality", "tags"]

_TEXTS: Mapping[PromptSet, tuple[str, ...]] = MappingProxyType(
    {"complexity": ("instruction",), "quality": ("instruction", "response"), "tags": ("instruction",)}
)
_FENCE = "fence"
# A shorter run of them may underline a heading of Markdown.
_SHORTEST_FENCE = 12


@dataclass(frozen=True)
class Prompts:
    """The prompts of one dimension, or of the tags.

    Attributes:
        of: "complexity", "quality" or "tags".
        texts: the template of each prompt, by its name.
    """

    of: PromptSet
    texts: Mapping[str, str]

    @property
    def dimension(self) -> Dimension:
        """The dimension that they are prompts of."""
        assert self.of != "tags", "the prompt for tags belongs to no dimension"
        return self.of

    def identity(self, names: Iterable[str]) -> dict[str, str]:
        """The texts of these prompts, for the identity of the stage that uses them."""
        return {name: self.texts[name] for name in sorted(names)}

    def render(self, name: str, *, instruction: str | None = None, response: str | None = None) -> str:
        """A prompt about one instruction, or one instruction and its response."""
        given = {"instruction": instruction, "response": response}
        values = {variable: given[variable] for variable in _TEXTS[self.of]}
        assert None not in values.values(), f"the prompt {name} needs {', '.join(values)}"
        return _rendered(self.texts[name], values, [text for text in values.values() if text is not None])

    def render_ranking(self, texts: Sequence[str], *, instruction: str | None = None) -> str:
        """The prompt that lists all versions of one seed.

        Args:
            texts: the versions in the order in which they are listed; numbered from 1.
            instruction: the question, where the texts are responses to it.
        """
        items = [{"number": number, "text": text} for number, text in enumerate(texts, start=1)]
        values: dict[str, Any] = {"items": items}
        if self.of == "quality":
            assert instruction is not None, "responses are ranked under their question"
            values["instruction"] = instruction
        return _rendered(self.texts[RANK], values, [*texts, instruction or ""])

    def own_words(self, name: str) -> list[str]:
        """The words that a prompt has of its own, whatever it is about."""
        return self._own_words[name]

    @cached_property
    def _own_words(self) -> dict[str, list[str]]:
        blank = {variable: "" for variable in _TEXTS[self.of]}
        names = [name for name in self.texts if name != RANK]
        return {name: words(_rendered(self.texts[name], blank, [])) for name in names}


def prompt_names(of: PromptSet) -> tuple[str, ...]:
    """The prompts that there are."""
    return (TAGS,) if of == "tags" else (*OPERATIONS[of], RANK, DIRECT_SCORE)


def read_prompts(of: PromptSet, folder: Path | None) -> Prompts:
    """The package's prompts, with those of a user's folder in place of them.

    Args:
        of: "complexity", "quality" or "tags".
        folder: with files named as the package's, such as `rank.jinja`; those it lacks stay the package's. None for
            the package's alone.

    Raises:
        UserError: the folder holds no prompt, or a file that is none, or a prompt that is not valid Jinja or leaves
            out what it is about.
    """
    files = {name: PROMPTS_DIR / of / f"{name}.jinja" for name in prompt_names(of)}
    replaced = {} if folder is None else _files_of(folder, of)
    texts = {name: _read(path) for name, path in {**files, **replaced}.items()}
    for name, path in replaced.items():
        _check(of, name, texts[name], path)
    return Prompts(of, MappingProxyType(texts))


def _files_of(folder: Path, of: PromptSet) -> dict[str, Path]:
    names = prompt_names(of)
    allowed = ", ".join(f"{name}.jinja" for name in names)
    if not folder.is_dir():
        raise UserError(f"prompts: {folder} is not a folder. Name one that holds any of {allowed}.")
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # what a file browser or an editor leaves
            continue
        name = path.name.removesuffix(".jinja")
        if name not in names or name == path.name or not path.is_file():
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Is {near[0]}.jinja meant?" if near else ""
            raise UserError(
                f"prompts: {path} is none of the prompts of {of}.{hint} Allowed: {allowed}. Rename it, or move it away."
            )
        found[name] = path
    if not found:
        raise UserError(f"prompts: {folder} holds no prompt of {of}. Put any of {allowed} into it, or leave it out.")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"prompts: {path} is not UTF-8: {error.reason}. Save the file as UTF-8.") from None
    except OSError as error:
        raise UserError(f"prompts: {path} cannot be read: {error.strerror}. Check its permissions.") from error


def _check(of: PromptSet, name: str, text: str, path: Path) -> None:
    """Refuse a template that cannot be used, or that leaves out what it is about."""
    from jinja2 import TemplateError, TemplateSyntaxError, meta

    needed = _variables(of, name)
    try:
        asked = meta.find_undeclared_variables(_environment().parse(text)) - _environment().globals.keys()
    except TemplateSyntaxError as error:
        raise UserError(
            f"prompts: {path}:{error.lineno}: not valid Jinja: {error.message}. Fix the template."
        ) from None
    unknown = asked - {*needed, _FENCE}
    if unknown:
        raise UserError(
            f"prompts: {path}: there is no {', '.join(sorted(unknown))} for it to write; it is given "
            f"{', '.join([*needed, _FENCE])}."
        )
    try:
        missing = _left_out(of, name, text)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise UserError(f"prompts: {path}: it cannot be filled in: {error}. Fix the template.") from None
    if missing:
        raise UserError(
            f"prompts: {path}: it does not write {missing}, so the model would not know what it is asked about. Write "
            f"{_how_to_write(missing)} where that belongs."
        )


def _variables(of: PromptSet, name: str) -> tuple[str, ...]:
    if name != RANK:
        return _TEXTS[of]
    return ("instruction", "items") if of == "quality" else ("items",)


def _left_out(of: PromptSet, name: str, text: str) -> str | None:
    """What a template does not write of what it is given; None if it writes all."""
    # Words that no template has; the numbers are looked for beside the texts, because a template may have others.
    trial = {variable: f"trial-{variable}" for variable in _TEXTS[of]}
    prompts = Prompts(of, {name: text})
    if name != RANK:
        written = prompts.render(name, **trial)
        return next((variable for variable, word in trial.items() if word not in written), None)
    listed = [f"trial-item-{letter}" for letter in "abcdefg"]
    written = prompts.render_ranking(listed, instruction=trial["instruction"])
    if any(item not in written for item in listed):
        return "item.text"
    without = prompts.render_ranking([""] * len(listed), instruction=trial["instruction"])
    if any(re.search(rf"\b{number}\b", without) is None for number in range(1, len(listed) + 1)):
        return "item.number"
    return "instruction" if of == "quality" and trial["instruction"] not in written else None


def _how_to_write(variable: str) -> str:
    if variable.startswith("item."):
        return "{% for item in items %} ... {{ " + variable + " }} ... {% endfor %}"
    return "{{ " + variable + " }}"


def _rendered(template: str, values: Mapping[str, Any], texts: Iterable[str]) -> str:
    return _compiled(template).render(**values, **{_FENCE: fence(texts)}).strip()


def fence(texts: Iterable[str]) -> str:
    """A line of equals signs longer than any within the texts, so that where a text ends is never in doubt."""
    longest = max((len(run) for text in texts for run in re.findall("=+", text)), default=0)
    return "=" * max(_SHORTEST_FENCE, longest + 1)


@cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@cache
def _environment() -> Environment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
