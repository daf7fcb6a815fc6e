import io
import re

import pytest
from rich.console import Console

from deita_train.commands.inspection import Inspection
from deita_train.commands.inspection_display import print_inspection
from deita_train.stages.inspection.row_view import Segment, ShownToken, TokenSequence


def printed(inspection, *, all_tokens=False, **console):
    file = io.StringIO()
    print_inspection(Console(file=file, width=60, **console), inspection, all_tokens=all_tokens)
    return file.getvalue()


def inspection(segments, tokens=(), num_tokens=None, verb="trained", max_length=9, **sequence):
    shown = TokenSequence("text", tuple(segments), tuple(tokens), num_tokens or len(tokens), **sequence)
    return Inspection((("stage", "sft"),), (shown,), max_length, verb)


def body(text):
    """What stands below the header and the sequence's heading."""
    return text.split("\n\n", 1)[1].split("\n", 1)[1]


ROW = inspection(
    [
        Segment("<s>", "plain", is_control=True),
        Segment("Q\nA:", "plain"),
        Segment(" Yes", "marked"),
        Segment("</s>", "marked", is_control=True),
        Segment("more\n", "cut", notice="cut here: 4 tokens beyond max_length 9 (5 characters)"),
    ],
    [
        ShownToken(1, None, "<s>", False),
        ShownToken(7, "Q", "Q", False),
        ShownToken(8, "\n", "Ċ", False),
        ShownToken(9, "A:", "A:", False),
        ShownToken(10, ' "Yes', 'Ġ"Yes', True),
        ShownToken(2, None, "</s>", True),
    ],
    num_tokens=10,
)


def test_piped_output_marks_what_is_trained():
    assert printed(ROW) == (
        "stage       sft\n"
        "length      text: 6 of 10 tokens, 2 trained\n"
        "max_length  9, 4 tokens cut\n"
        "marks       [[trained]], all else is context; \\n a line break, other unseen characters likewise\n"
        "listing     id and text of every token; without quotes, by its name in the vocabulary, a control\n"
        "            token or a part of a character; a line begins with the position of its first\n"
        "\n" + "text: 6 of 10 tokens, 2 trained ".ljust(60, "-") + "\n"
        "<s>Q\\n\n"
        "A:[[ Yes</s>]]\n"
        "---- cut here: 4 tokens beyond max_length 9 (5 characters) ----\n"
        "more\\n\n" + "tokens ".ljust(60, "-") + "\n"
        '     0  1 <s>  7 "Q"  8 "\\n"  9 "A:"  [[10 " \\"Yes"\n'
        "     5  2 </s>]]\n"
    )


def test_colours_need_no_marks():
    text = printed(ROW, force_terminal=True, color_system="standard")
    assert "\x1b[1;32m Yes\x1b[0m" in text
    assert "\x1b[9;31mmore\x1b[0m" in text
    assert "[[" not in text


def test_a_terminal_without_colours_has_marks():
    text = printed(ROW, force_terminal=True, color_system="standard", no_color=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == printed(ROW)
    assert "\x1b[1;32m" not in text


@pytest.mark.parametrize(
    ("text", "marked"), [("a[[1]]", "[[[a[[1]]]]]"), ("x]]", "[[[x]]]]]"), ("[[[", "[[[[[[[]]]]"), ("[1]", "[[[1]]]")]
)
def test_the_marks_are_longer_than_any_brackets_of_the_text(text, marked):
    shown = printed(inspection([Segment(text, "marked")], [ShownToken(1, text, text, True)]))
    assert body(shown).splitlines()[0] == marked


def test_characters_that_cannot_be_seen_are_written_out():
    text = "a\tb\rc\x1b[31md\u202ee\u00a0f\u2028g h"
    shown = printed(inspection([Segment(text, "plain")], [ShownToken(1, text, "x", False)]))
    written = "a\\tb\\rc\\x1b[31md\\u202ee\\xa0f\\u2028g h"
    assert body(shown).splitlines()[0] == written
    assert body(shown).splitlines()[2].endswith(f'1 "{written}"')


def test_what_a_prompt_lost_stands_in_its_place():
    segments = [
        Segment("head", "plain"),
        Segment("lost", "cut", notice="shortened here"),
        Segment("tail", "plain"),
    ]
    assert body(printed(inspection(segments, verb=""))).splitlines() == [
        "head",
        "---- shortened here ----",
        "lost",
        "---- it goes on ----",
        "tail",
    ]


def numbers(text):
    """The ids that the listing shows, from tokens whose text is their id."""
    return [int(word.strip('"[]')) for line in body(text).splitlines() for word in line.split() if word[-1:] in '"]']


@pytest.mark.parametrize(("count", "shown"), [(300, 300), (301, 300), (1000, 300)])
def test_a_long_listing_leaves_out_its_middle(count, shown):
    tokens = [ShownToken(n, str(n), str(n), marked=True) for n in range(count)]
    row = inspection([], tokens)
    listed = numbers(printed(row))
    assert listed == [*range(240), *range(count - 60, count)]
    assert len(listed) == shown
    assert (f"---- {count - 300:,} tokens not listed; --all-tokens lists them ----" in printed(row)) == (count > 300)
    assert numbers(printed(row, all_tokens=True)) == list(range(count))


def test_a_line_of_the_listing_begins_with_its_position():
    tokens = [ShownToken(n, str(n), str(n), marked=False) for n in range(100, 120)]
    lines = body(printed(inspection([], tokens, first_position=40))).splitlines()[1:]
    assert len(lines) > 1
    for line in lines:
        position, first = line.split()[:2]
        assert int(position) - 40 == int(first) - 100
        assert len(line) <= 60


def test_a_sequence_that_is_not_there_says_why():
    shown = TokenSequence("turn 2 of 2", (), (), 0, note="not scored: no_response")
    text = printed(Inspection((("stage", "score.quality"),), (shown,), None, ""))
    assert "length      turn 2 of 2: not scored: no_response\n" in text
    assert "max_length  none, nothing cut\n" in text
    assert "marks       all is context; " in text
