"""One inspected row on the terminal: colours where there are some, marks where there are none."""

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import count, groupby
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from deita_train.commands.inspection import Inspection
from deita_train.commands.seed_inspection import SeedInspection
from deita_train.stages.inspection.row_view import Segment, ShownToken, TokenSequence

_MARKED, _PLAIN, _CUT, _SIGN = "bold green", "dim", "red strike", "blue"
_FIRST_TOKENS, _LAST_TOKENS = 240, 60
_HEADER_WIDTH = 100
_NAMES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Categories of characters that cannot be seen or that move the cursor: controls, formats, other spaces and line breaks.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LISTING = (
    "id and text of every token; without quotes, by its name in the vocabulary, a control token or a part of a "
    "character; a line begins with the position of its first"
)


class _Marks(NamedTuple):
    """What surrounds marked text; empty on a terminal with colours."""

    open: str
    close: str


def print_inspection(console: Console, inspection: Inspection, *, all_tokens: bool) -> None:
    """Print the header, then each sequence as text and as tokens."""
    marks = _marks(console, inspection.sequences) if inspection.verb else _Marks("", "")
    for name, value in (*inspection.facts, *_counts(inspection)):
        _print_fact(console, name, _escaped(value))
    _print(console, _legend(inspection, marks, coloured=_has_colours(console)))
    _print_fact(console, "listing", _LISTING)
    for sequence in inspection.sequences:
        console.print()
        _heading(console, f"{sequence.title}: {_tally(sequence, inspection.verb)}")
        _print_text(console, sequence.segments, marks)
        if sequence.tokens:
            _heading(console, "tokens")
            _print_tokens(console, sequence, marks, all_tokens=all_tokens)


def print_seed(console: Console, shown: SeedInspection) -> None:
    """Print the header, then each question with its answer."""
    for name, value in shown.facts:
        _print_fact(console, name, _escaped(value))
    no_marks = _Marks("", "")
    for exchange in shown.exchanges:
        console.print()
        _heading(console, f"{exchange.title}: {_escaped(exchange.outcome)}")
        _print_text(console, [Segment(exchange.question, "plain")], no_marks)
        if exchange.answer is not None:
            _heading(console, "answer")
            _print_text(console, [Segment(exchange.answer, "marked")], no_marks)


def _print_fact(console: Console, name: str, value: str) -> None:
    """Print a line of the header, which goes on below itself where it is long."""
    lines = textwrap.wrap(value, _HEADER_WIDTH - 12, break_long_words=False, break_on_hyphens=False) or [""]
    for head, line in zip((name, *("",) * len(lines)), lines, strict=False):
        _print(console, Text(f"{head:<12}{line}"))


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True, end="" if text.plain.endswith("\n") else "\n")


def _heading(console: Console, words: str) -> None:
    console.rule(Text(words, style="bold"), align="left", characters="-", style="dim")


def _has_colours(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _marks(console: Console, sequences: Iterable[TokenSequence]) -> _Marks:
    """Brackets that occur in no text."""
    if _has_colours(console):
        return _Marks("", "")
    texts = [segment.text for sequence in sequences for segment in sequence.segments]
    depth = next(n for n in count(2) if not any("[" * n in text or "]" * n in text for text in texts))
    return _Marks("[" * depth, "]" * depth)


def _counts(inspection: Inspection) -> list[tuple[str, str]]:
    shown = inspection.sequences
    tallies = [f"{sequence.title}: {_tally(sequence, inspection.verb)}" for sequence in shown]
    cut = sum(sequence.num_cut for sequence in shown)
    limit = "none" if inspection.max_length is None else f"{inspection.max_length:,}"
    return [
        ("length", "; ".join(tallies)),
        ("max_length", f"{limit}, {f'{cut:,} tokens cut' if cut else 'nothing cut'}"),
    ]


def _tally(sequence: TokenSequence, verb: str) -> str:
    if not sequence.num_tokens:
        return sequence.note
    tally = f"{len(sequence.tokens):,}"
    if sequence.num_cut:
        tally += f" of {sequence.num_tokens:,}"
    return f"{tally} tokens, {sequence.num_marked:,} {verb}" if verb else f"{tally} tokens"


def _legend(inspection: Inspection, marks: _Marks, *, coloured: bool) -> Text:
    legend = Text(f"{'marks':<12}")
    if coloured:
        if inspection.verb:
            legend.append(inspection.verb, _MARKED).append(", ")
        legend.append("context", _PLAIN).append(", ").append("not seen by the model", _CUT)
    elif inspection.verb:
        legend.append(f"{marks.open}{inspection.verb}{marks.close}, all else is context")
    else:
        legend.append("all is context")
    return legend.append("; ").append("\\n", _SIGN).append(" a line break, other unseen characters likewise")


def _print_text(console: Console, segments: Sequence[Segment], marks: _Marks) -> None:
    for is_cut, group in groupby(segments, key=lambda segment: segment.state == "cut"):
        if not is_cut:
            _print(console, _marked_text(list(group), marks))
            continue
        for segment in group:
            _print(console, Text(f"---- {segment.notice} ----", style="bold red"))
            _print(console, _visible(segment.text, _CUT))
        if segment is not segments[-1]:
            _print(console, Text("---- it goes on ----", style="bold red"))


def _marked_text(segments: Sequence[Segment], marks: _Marks) -> Text:
    text = Text()
    for state, group in groupby(segments, key=lambda segment: segment.state):
        style = _MARKED if state == "marked" else _PLAIN
        shown = Text.assemble(*(_visible(part.text, _control(style) if part.is_control else style) for part in group))
        text.append_text(_between(marks, shown) if state == "marked" else shown)
    return text


def _between(marks: _Marks, text: Text) -> Text:
    return Text.assemble(marks.open, text, marks.close)


def _control(style: str) -> str:
    return f"{style} underline"


def _visible(text: str, style: str) -> Text:
    """Text with a sign for every character that cannot be seen; a line break follows its sign."""
    shown = Text()
    for sign, group in groupby(text, key=_sign):
        characters = "".join(group)
        if sign is None:
            shown.append(characters, style)
            continue
        for character in characters:
            shown.append(sign, f"{style} {_SIGN}").append("\n" if character == "\n" else "")
    return shown


def _sign(character: str) -> str | None:
    """The sign for a character that cannot be seen; None for one that can."""
    if character == " " or not (unicodedata.category(character) in _UNSEEN or character.isspace()):
        return None
    code = ord(character)
    named = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return _NAMES.get(character, named)


def _escaped(text: str) -> str:
    return "".join(_sign(character) or character for character in text)


def _print_tokens(console: Console, sequence: TokenSequence, marks: _Marks, *, all_tokens: bool) -> None:
    """Print lines of tokens, each with the position of its first; the middle of a long sequence is left out."""
    tokens = sequence.tokens
    if all_tokens or len(tokens) <= _FIRST_TOKENS + _LAST_TOKENS:
        _print_flow(console, tokens, sequence.first_position, marks)
        return
    _print_flow(console, tokens[:_FIRST_TOKENS], sequence.first_position, marks)
    left_out = len(tokens) - _FIRST_TOKENS - _LAST_TOKENS
    _print(console, Text(f"---- {left_out:,} tokens not listed; --all-tokens lists them ----", style="bold"))
    _print_flow(console, tokens[-_LAST_TOKENS:], sequence.first_position + len(tokens) - _LAST_TOKENS, marks)


def _print_flow(console: Console, tokens: Sequence[ShownToken], first_position: int, marks: _Marks) -> None:
    cells = _cells(tokens, marks)
    start = 0
    while start < len(cells):
        end = _line_end(cells, start, console.width - 8)
        line = Text("  ").join(cells[start:end])
        _print(console, Text.assemble((f"{first_position + start:>6}  ", "dim"), line))
        start = end


def _line_end(cells: Sequence[Text], start: int, width: int) -> int:
    """The first cell that does not fit the line beginning at `start`, which has at least one."""
    used, end = 0, start
    while end < len(cells) and (end == start or used + cell_len(cells[end].plain) <= width):
        used += cell_len(cells[end].plain) + 2
        end += 1
    return end


def _cells(tokens: Sequence[ShownToken], marks: _Marks) -> list[Text]:
    cells: list[Text] = []
    for marked, group in groupby(tokens, key=lambda token: token.marked):
        run = [Text(f"{token.id} {_name(token)}", style=_MARKED if marked else "") for token in group]
        if marked:
            run[0] = Text.assemble(marks.open, run[0])
            run[-1] = Text.assemble(run[-1], marks.close)
        cells += run
    return cells


def _name(token: ShownToken) -> str:
    """The token's text in quotes, or its bare name."""
    if token.text is None:
        return _escaped(token.piece)
    escaped = token.text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(escaped)}"'
