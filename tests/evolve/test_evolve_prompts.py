import re
from pathlib import Path

import pytest

from deita_train.errors import UserError
from deita_train.evolve.operations import OPERATIONS
from deita_train.evolve.prompts import PROMPTS_DIR, prompt_names, read_prompts

RANK = "{% for item in items %}{{ item.number }}: {{ item.text }}\n{% endfor %}"
SETS = ("complexity", "quality", "tags")


def refusal(of, folder):
    with pytest.raises(UserError) as caught:
        read_prompts(of, folder)
    return str(caught.value)


def folder_with(tmp_path, **texts):
    for name, text in texts.items():
        (tmp_path / f"{name}.jinja").write_text(text, encoding="utf-8")
    return tmp_path


def test_there_is_a_file_for_each_prompt_and_no_other():
    files = {str(path.relative_to(PROMPTS_DIR)) for path in PROMPTS_DIR.rglob("*") if path.is_file()}
    assert files == {f"{of}/{name}.jinja" for of in SETS for name in prompt_names(of)}
    assert len(files) == 4 + 5 + 2 * 2 + 1


@pytest.mark.parametrize("of", SETS)
def test_the_packages_prompts_pass_the_checks_on_a_users(of):
    # The same files as a user's folder: each is checked then.
    assert read_prompts(of, PROMPTS_DIR / of) == read_prompts(of, None)


@pytest.mark.parametrize("name", OPERATIONS["complexity"])
def test_an_operation_on_an_instruction(name):
    instruction = "Schreibe {{ein}} Gedicht.\n====================\n{% raw %}"
    prompt = read_prompts("complexity", None).render(name, instruction=instruction)
    # The fence is a line longer than the longest run within: 20 equals signs.
    assert prompt.count(f"\n{'=' * 21}\n{instruction}\n{'=' * 21}\n") == 1
    assert "<evolved>" in prompt and "language" in prompt and not prompt.endswith("\n")


@pytest.mark.parametrize("name", OPERATIONS["quality"])
def test_an_operation_on_a_response(name):
    prompt = read_prompts("quality", None).render(name, instruction="The question", response="The answer")
    fence = "=" * 12
    assert f"\n{fence}\nThe question\n{fence}\n" in prompt and f"\n{fence}\nThe answer\n{fence}\n" in prompt
    assert prompt.index("The question") < prompt.index("The answer")


def test_each_operation_asks_for_something_else():
    for dimension, names in OPERATIONS.items():
        prompts = read_prompts(dimension, None)
        given = {"instruction": "I", "response": "R" if dimension == "quality" else None}
        assert len({prompts.render(name, **given) for name in names}) == len(names)


@pytest.mark.parametrize("dimension", ["complexity", "quality"])
def test_a_ranking_lists_all_texts_with_their_numbers(dimension):
    prompt = read_prompts(dimension, None).render_ranking(["first", "second", "third"], instruction="The question")
    fence = "=" * 12
    for number, text in enumerate(["first", "second", "third"], start=1):
        assert prompt.count(f"[{number}]\n{fence}\n{text}\n{fence}\n") == 1
    assert re.search(r'\{ "1": <score>, "2": <score>, "3": <score> \}', prompt)
    assert ("The question" in prompt) == (dimension == "quality")


def test_the_identity_holds_the_texts_that_a_stage_uses():
    prompts = read_prompts("complexity", None)
    rank = (PROMPTS_DIR / "complexity" / "rank.jinja").read_text(encoding="utf-8")
    assert prompts.identity(["rank"]) == {"rank": rank}
    assert list(prompts.identity(OPERATIONS["complexity"])) == sorted(OPERATIONS["complexity"])


def test_a_prompts_own_words():
    prompts = read_prompts("complexity", None)
    own = prompts.own_words("deepen")
    assert own[:4] == ["the", "text", "between", "the"]
    assert "instruction" in own and "jinja" not in own and "fence" not in own


def test_a_users_prompt_takes_the_place_of_ours(tmp_path):
    mine = "Mach es schwerer, in der Sprache des Textes:\n{{ instruction }}"
    (tmp_path / ".DS_Store").write_bytes(b"\xff")
    prompts = read_prompts("complexity", folder_with(tmp_path, deepen=mine))
    assert prompts.render("deepen", instruction="Was?") == "Mach es schwerer, in der Sprache des Textes:\nWas?"
    ours = read_prompts("complexity", None)
    assert {name for name, text in prompts.texts.items() if text != ours.texts[name]} == {"deepen"}


def test_a_users_ranking_may_write_loops_conditions_and_ranges(tmp_path):
    text = "{% for i in range(2) %}.{% endfor %}{% for item in items %}{{ item.number }}: {{ item.text }}\n{% endfor %}"
    prompts = read_prompts("complexity", folder_with(tmp_path, rank=text))
    assert prompts.render_ranking(["a", "b"]) == "..1: a\n2: b"


@pytest.mark.parametrize(
    ("of", "name", "text", "parts"),
    [
        ("complexity", "deepen", "{{ instruction }}\n{% if %}", ["deepen.jinja:2", "not valid Jinja"]),
        ("complexity", "deepen", "{{ instruction | nonsense }}", ["deepen.jinja", "nonsense"]),
        (
            "complexity",
            "deepen",
            "Make it harder.",
            ["deepen.jinja", "does not write instruction", "{{ instruction }}"],
        ),
        ("complexity", "deepen", "{{ instruction }} {{ respons }}", ["deepen.jinja", "respons", "instruction, fence"]),
        ("complexity", "deepen", "{{ instruction }} {{ response }}", ["deepen.jinja", "response"]),
        ("complexity", "deepen", "{{ instruction }}{{ instruction.nothing.at_all }}", ["cannot be filled in"]),
        ("complexity", "deepen", "{{ instruction }}{% include 'x' %}", ["cannot be filled in"]),
        ("complexity", "deepen", "{{ instruction.__class__.__mro__ }}", ["cannot be filled in"]),
        ("complexity", "deepen", "{{ instruction }}{{ 1 // 0 }}", ["cannot be filled in"]),
        ("quality", "detail", "{{ instruction }}", ["detail.jinja", "does not write response"]),
        ("quality", "rank", "{% for item in items %}{{ item.number }} {{ item.text }}{% endfor %}", ["instruction"]),
        ("complexity", "rank", "{{ items[0].number }} {{ items[0].text }}", ["item.text", "{% for item in items %}"]),
        ("complexity", "rank", "{% for item in items %}{{ item.text }}{% endfor %}", ["item.number"]),
        ("tags", "tags", "Tags?", ["does not write instruction"]),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(tmp_path, of, name, text, parts):
    message = refusal(of, folder_with(tmp_path, **{name: text}))
    assert message.startswith("prompts: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("file", "is_near"),
    [("deppen.jinja", True), ("detail.jinja", False), ("deepen.txt", True), ("deepen", True), ("README.md", False)],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path, file, is_near):
    (folder_with(tmp_path, rank=RANK) / file).write_text("{{ instruction }}")
    message = refusal("complexity", tmp_path)
    assert str(tmp_path / file) in message and "add_constraints.jinja" in message
    assert ("Is deepen.jinja meant?" in message) == is_near


def test_a_folder_without_prompts_and_no_folder_are_refused(tmp_path):
    assert "holds no prompt of quality" in refusal("quality", tmp_path)
    assert "is not a folder" in refusal("quality", tmp_path / "nowhere")
    (tmp_path / "detail.jinja").write_bytes(b"\xff\xfe{{ instruction }}")
    assert "is not UTF-8" in refusal("quality", tmp_path)


def test_no_line_of_a_prompt_is_longer_than_a_screen():
    lines = [line for path in Path(PROMPTS_DIR).rglob("*.jinja") for line in path.read_text().splitlines()]
    assert len(lines) > 100 and max(map(len, lines)) <= 100
