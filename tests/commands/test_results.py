import io
import json
import re
from dataclasses import asdict

import pytest
from rich.console import Console
from tiny_recipe import a_manifest, no_gpus, plan, recipe  # noqa: F401

from deita_train.commands.plan_tree import StageLine, print_stages
from deita_train.commands.results import print_plan, print_results
from deita_train.plan.unread import unread_lines
from deita_train.run.executor import _counts
from deita_train.table import Table, numbers, words

pytestmark = pytest.mark.usefixtures("no_gpus")
STAGES_HINT = "`--stages` prints the commands of the stages that are not done."
HINT = "`--commands` prints the steps of the sweep, and `--slurm` a script for a cluster."


def shown(made, width=240):
    console = Console(file=io.StringIO(), width=width)
    print_plan(console, made)
    return console.file.getvalue().splitlines()


def told(lines):
    """The words of the lines of stages that are to run."""
    return [line.split() for line in lines if "to run:" in line]


def test_a_recipe_of_one_cell_has_a_tree_of_sections(tmp_path):
    lines = shown(plan(tmp_path, recipe()))
    head = lines[: lines.index("", 2)]
    assert [line.partition("  cpu")[0].partition("  to run")[0].rstrip() for line in head] == [
        "tiny: 13 stages",
        "",
        "base",
        "  pretraining_data",
        "  base",
        "pool",
        "scorers",
        "  train_scorer.complexity",
        "  score.complexity",
        "  train_scorer.quality",
        "  score.quality",
        "embedding",
        "  embed",
        "select",
        "sft",
        "evaluate",
        "  heldout_data",
        "  evaluate.base",
        "  evaluate.sft",
    ]
    assert lines[-1] == STAGES_HINT and HINT not in lines


def test_the_plan_says_how_many_rows_were_embedded_and_saved(tmp_path):
    made = plan(tmp_path, recipe())
    until = "embed: in rank order until select keeps 10 rows (embedding.rows: walked)"
    assert f"{until}." in shown(made)
    node = made.cells[0].nodes["embed"]
    drops = {"not_reached": 30, "not_ranked": 4, "role_not_in_template": 2}
    manifest = a_manifest(node, key=node.key, config={}, rows_in=60, rows_out=24, drops=drops)
    made.store.path(node.id).mkdir(parents=True)
    (made.store.path(node.id) / "manifest.json").write_text(json.dumps(asdict(manifest)))
    assert f"{until}; 24 of 60 rows embedded, 34 saved." in shown(made)
    assert _counts(made, node) == "24 of 60 rows embedded, 34 saved, 2 dropped (role_not_in_template 2)"
    assert all("rank order" not in line for line in shown(plan(tmp_path, recipe(embedding__rows="all"))))
    tokens = plan(tmp_path, recipe(select__budget={"share": 0.2}))
    assert any("until select keeps 20% (embedding" in line for line in shown(tokens))


def test_a_sweep_names_the_cells(tmp_path):
    sweep = {"select.method": ["random"], "select.seed,sft.seed": [1, 2], "until": "sft"}
    made = plan(tmp_path, recipe(sweep=sweep))
    lines = shown(made)
    assert lines[0].strip() == "tiny: 17 stages in 3 cells"
    assert len(told(lines)) == 13 + 4
    for cell in ("random, seed 1", "random, seed 2"):
        place = lines.index(cell)
        assert [line.split()[0] for line in lines[place + 1 : place + 3]] == ["select", "sft"]
    assert lines[-2:] == [STAGES_HINT, HINT]


def test_brackets_of_a_recipe_are_no_markup(tmp_path):
    made = plan(tmp_path, recipe(sweep={"pool.instruction_share": [[0.0, 0.5]], "until": "pool"}))
    lines = shown(made)
    assert lines[lines.index("instruction share [0.0, 0.5]") + 1].split()[0] == "pool"


def table(lines):
    """The cells of the rows, without the frame."""
    return [[text.strip() for text in line.strip("│┃").replace("┃", "│").split("│")] for line in lines if "│" in line]


def test_result_tables_are_printed_as_they_are(tmp_path):
    (tmp_path / "report").mkdir()
    row = ["deita, seed 1", "[Errno 12] no [bold]room[/bold]", "1 ± 2"]
    result = Table((*words("cells", "why"), *numbers("[red]number")), (tuple(row),), "failed")
    (tmp_path / "report" / "result.json").write_text(json.dumps([asdict(result)]))
    console = Console(file=io.StringIO(), width=120)
    print_results(console, tmp_path)
    lines = console.file.getvalue().splitlines()
    assert table(lines) == [row] and any("[red]number" in line for line in lines)


def test_packing_on_a_cpu_is_said_to_be_slower_until_it_is_done(tmp_path):
    note = "train_scorer.quality, sft: packing: is slower on a CPU than batches of similar length, because attention"
    packed = recipe(sft__packing=True, scorers__quality__train__packing=True)
    assert [line for line in shown(plan(tmp_path, packed)) if line.startswith(note)]
    assert not [line for line in shown(plan(tmp_path, recipe())) if "packing: is" in line]


SWEEP = {"select.method": ["random"], "select.seed,sft.seed": [1, 2], "until": "sft"}


@pytest.mark.parametrize("sweep", [None, SWEEP])
def test_eighty_columns_hold_a_line_for_each_stage(tmp_path, sweep):
    made = plan(tmp_path, recipe(sweep=sweep))
    lines = shown(made, 80)
    stages = told(lines)
    assert [words[0] for words in stages] == [node.label for node in made.nodes]
    assert all(words[-5:] == ["to", "run:", "not", "made", "yet"] for words in stages)
    assert [words[1:4] == ["cpu", "x", "1"] for words in stages] == ["launch" in node.runtime for node in made.nodes]
    tables = lines[: next(place for place, line in enumerate(lines) if line.startswith("Disk for"))]
    assert max(map(len, (line for line in tables if not line.endswith(".")))) <= 80


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("with_keys", [True, False])
def test_no_width_breaks_a_label_or_an_id(tmp_path, width, with_keys):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    console = Console(file=io.StringIO(), width=width)
    print_plan(console, made, with_keys=with_keys)
    text = console.file.getvalue()
    for node in made.nodes:
        assert re.search(rf"(^|\s){re.escape(node.label)}\s", text)
        assert (f" {node.id} " in text) == with_keys


def test_a_long_reason_goes_on_in_its_own_column(tmp_path):
    stages = [
        StageLine("sft", "", "sft-0", "to run", "trainer.learning_rate: 2e-05 -> 1e-05; and 3 more", "zero3 x 8"),
        StageLine("pool", "", "pool-12", "done", "published", ""),
        StageLine("dpo", "", "dpo-3", "continues", "an earlier attempt was stopped", "ddp x 8"),
    ]
    console = Console(file=io.StringIO(), width=48)
    print_stages(console, "r: 3 stages", stages, has_cells=False, with_keys=True)
    # 4 of the label and 4 of its indent, 1, 9, 1, 7 and 1 before the last column, which has 21.
    assert console.file.getvalue().splitlines() == [
        "r: 3 stages",
        "",
        "sft      zero3 x 8 sft-0   to run:",
        "                           trainer.learning_rate:",
        "                           2e-05 -> 1e-05; and 3",
        "                           more",
        "pool               pool-12 done",
        "dpo      ddp x 8   dpo-3   continues: an earlier",
        "                           attempt was stopped",
        "",
    ]


def test_a_terminal_wraps_sentences_at_words(tmp_path):
    made = plan(tmp_path, recipe(sweep=SWEEP))
    console = Console(file=io.StringIO(), width=60, force_terminal=True, no_color=True, highlight=False)
    print_plan(console, made)
    lines = console.file.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines[-2:]) == HINT and len(lines[-2]) <= 60


def test_a_section_that_no_stage_reads_is_told(tmp_path):
    made = plan(tmp_path, recipe(perplexity={"model": "base"}, select__method="ifd"))
    expected = [
        f"{name}: no stage reads it (select.method ifd needs none)" for name in ("embedding", "scorers.quality")
    ]
    told = [line for line in shown(made) if "no stage reads it" in line]
    assert set(told) >= {f"{line}." for line in expected} and not any(line.startswith("perplexity") for line in told)
    assert unread_lines(plan(tmp_path, recipe())) == []
    read_by_a_cell = recipe(select__method="random", sweep={"select.method": ["deita"]})
    assert unread_lines(plan(tmp_path, read_by_a_cell)) == []
    assert unread_lines(plan(tmp_path, recipe(), until="embed")) == []


def test_what_a_chat_model_is_paid_for_and_nobody_reads_is_told(tmp_path):
    judge = {"base_url": "http://localhost:1/v1", "model": "m"}
    seeds = {"builtin": "quickstart", "rows": 8}
    evolve = {"seeds": seeds, "llm": "judge", "complexity": {}, "quality": {}}
    rated = {"llm": "judge"}
    data = recipe(llm={"judge": judge, "other": judge}, evolve=evolve, direct_score=rated)
    data["scorers"]["complexity"]["train"]["data"] = "evolve"
    assert unread_lines(plan(tmp_path, data)) == [
        "evolve.quality: no stage reads it (scorers.quality.train.data: evolve would)",
        "direct_score: no stage reads it (select.method deita needs none)",
        "llm.other: no section asks it",
    ]
    swept = data | {"sweep": {"evolve.llm": ["other"]}}
    assert "llm.other: no section asks it" not in unread_lines(plan(tmp_path, swept))
    alone = {"name": "labels", "llm": {"judge": judge}, "evolve": evolve}
    assert unread_lines(plan(tmp_path, alone)) == []


def test_a_chat_model_that_evaluates_is_asked(tmp_path):
    judge = {"base_url": "http://localhost:1/v1", "model": "m"}
    judged = {"questions": {"builtin": "everyday", "rows": 2}, "judge": "judge"}
    data = {"name": "judged", "llm": {"judge": judge, "model": judge}, "evaluate": {"llm": "model", "judged": judged}}
    assert unread_lines(plan(tmp_path, data)) == []
    data["evaluate"] = {"llm": "judge", "judged": judged}
    assert unread_lines(plan(tmp_path, data)) == ["llm.model: no section asks it"]
