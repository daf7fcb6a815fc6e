"""The recipe's reference is what the schema gives, and leaves nothing out."""

import re
from pathlib import Path

from deita_train.recipe.data_sections import Origin, Preferences, Section
from deita_train.recipe.model_sections import Dpo
from deita_train.recipe.reference import field_texts, reference, refused_fields_tables
from deita_train.recipe.schema import Recipe, Select
from deita_train.recipe.trainer_fields import refused_fields, trainer_fields
from deita_train.selection.settings import METHODS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "recipe.md"


def sections(of=Section):
    found = [section for section in of.__subclasses__() if section.__module__.startswith("deita_train.")]
    return found + [deeper for section in found for deeper in sections(section)]


def row(key, under):
    """The cells of a key in the table under a heading."""
    table = reference().split(f"\n## `{under}`\n")[1].split("\n## ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith(f"| `{key}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_what_the_schema_gives():
    written = "run: python -m deita_train.recipe.reference > docs/recipe.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), written


def test_the_page_on_training_has_every_refused_field_with_its_reason():
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    tables = refused_fields_tables()
    assert tables in page, f"docs/training.md should have:\n{tables}"
    for section in ("sft", "dpo", "base.pretrain"):
        for name, text in refused_fields(section).items():
            reason = text.split(": ", 1)[1]
            assert re.search(rf"^\| .*`{name}`.* \| {re.escape(reason)} \|$", tables, re.MULTILINE), name


def test_the_fields_that_others_make_idle_are_there():
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    table = page.split("| field | refused |\n")[1].split("\n\n")[0].splitlines()[1:]
    named = {name for line in table for name in re.findall(r"`([a-z_0-9]+)`", line.split("|")[1])}
    assert len(named) > 15
    assert named <= {*trainer_fields("sft"), *trainer_fields("dpo")} - {*refused_fields("sft")}


def test_every_field_has_its_docstring():
    assert len(sections()) > 25 and Recipe in sections()
    for section in sections():
        texts = field_texts(section)
        assert set(texts) == set(section.model_fields), section
        assert [name for name, text in texts.items() if not text.endswith(".") or "|" in text] == [], section


def test_a_field_that_a_section_states_again_has_the_section_s_text():
    assert field_texts(Preferences)["split"] == field_texts(Origin)["split"]
    assert field_texts(Preferences)["seed"] != field_texts(Origin)["seed"]


def test_rows_of_the_tables():
    assert row("threshold", "select")[:3] == ["`threshold`", "number > -1", "`0.9`"]
    assert row("budget", "select")[1:3] == ["whole number > 0 or [section](#selectbudget)", ""]
    assert row("share", "select.budget")[1] == "number > 0, ≤ 1"
    assert row("score", "select")[1:3] == ["`evol`, `complexity`, `quality` or [section](#selectscore)", "`evol`"]
    assert row("columns", "compare")[1:3] == ["mapping of text", "`{}`"]
    assert row("preferences", "dpo") == [
        "`preferences`", "[section](#dpopreferences)", "required", field_texts(Dpo)["preferences"],
    ]  # fmt: skip
    assert row("method", "select")[1].count("`") == 2 * len(METHODS) and "method" in Select.model_fields


def test_every_section_is_there_and_every_link_leads_to_one():
    headings = re.findall(r"^## `(.*)`$", reference(), re.MULTILINE)
    links = set(re.findall(r"\(#(\w+)\)", reference()))
    assert len(links) > 15
    assert links <= {heading.replace(".", "") for heading in headings}
    tops = {heading for heading in headings if "." not in heading}
    assert tops == set(Recipe.model_fields) - {"name", "description", "seed", "report_to", "trust_remote_code", "sweep"}
