"""The recipes of today's bases: planned, and their data and trainings tried with a miniature of each architecture.

The Hub cannot be asked here: a model's own template and its miniature come from `model_families.py`.
"""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import huggingface_hub
import pytest
from recipe_files import RECIPES, commands, files_below, header, parsed
from test_model_families import write_family
from tiny_recipe import data_lines

from deita_train.data import sources
from deita_train.data.sources import SourceRow
from deita_train.plan import inputs, model_templates
from deita_train.plan.plan import make_plan
from deita_train.plan.unread import unread_lines
from deita_train.recipe.loading import load_recipe
from deita_train.stages import stage_model as stage_models
from deita_train.stages.training.trial import try_trainings

# By the beginning of a model's id: its family, and whether the base of that name has a template of its own.
MODELS = {
    "HuggingFaceTB/SmolLM2-": ("smollm2", False),
    "Qwen/Qwen3-": ("qwen3", True),
    "meta-llama/Llama-3": ("llama3", False),
    "allenai/OLMo-2-": ("olmo2", False),
    "google/gemma-3-1b-it": ("gemma3", True),
    "google/gemma-3-270m": ("gemma3", False),
}
# By recipe: the model that is trained, and the one that scores and embeds.
BASES = {
    "gemma-3-1b": ("google/gemma-3-1b-it", "google/gemma-3-270m"),
    "llama-3.1-8b-lora": ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-1B"),
    "olmo2-1b": ("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-0425-1B"),
    "qwen3-1.7b-24gb": ("Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-0.6B-Base"),
    "qwen3-8b": ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-0.6B-Base"),
    "qwen3-sizes": ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B-Base"),
    "smollm2-1.7b": ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-135M"),
    "smollm2-135m": ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
}
WITH_DPO = ("llama-3.1-8b-lora", "qwen3-8b")
WHOLE = ("olmo2-1b", "qwen3-8b", "smollm2-1.7b", "smollm2-135m")  # the others train adapters
FILES = [f"modern/{name}.yaml" for name in BASES]
CPU = "modern/real_cpu.yaml"
OF_YOURS = ("x-file=real_pool_sharegpt.jsonl", "x-model=my_model")
CHAT = [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Green."}]
TURNS = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Green."}]
ROWS = {
    "AndrewZeng/deita_sota_pool": {"conversations": CHAT},
    "hkust-nlp/deita-complexity-scorer-data": {
        "input": "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
        "##Query: Name a colour.  \n##Complexity: ",
        "target": "2",
    },
    "hkust-nlp/deita-quality-scorer-data": {
        "input": "You are a helpful assistant. Please identify the quality score of the Response corresponding to the "
        "Question. \n #Question#:\nName a colour.\n#Response#:\nGreen. \n##Quality: ",
        "target": "3",
    },
    "HuggingFaceH4/ultrafeedback_binarized": {
        "prompt": "Name a colour.",
        "messages": TURNS,
        "chosen": TURNS,
        "rejected": [TURNS[0], {"role": "assistant", "content": "I will not."}],
    },
}


def family_of(name):
    return next(found for beginning, found in MODELS.items() if name.startswith(beginning))


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """A miniature of each family; of a base without a template its copy without one."""
    made = {}
    for family, has_template in set(MODELS.values()):
        folder = tmp_path_factory.mktemp(family)
        write_family(family, folder)
        if not has_template:
            (folder / "chat_template.jinja").unlink()
        made[family, has_template] = folder
    return made


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch, miniatures):
    """A Hub that has one commit of everything, and of each model the miniature's files."""
    monkeypatch.setattr(inputs, "resolve_commit", lambda *_: "0" * 40)
    monkeypatch.chdir(tmp_path)
    plain = model_templates.own_template

    def own_template(identity, location):
        return (
            plain({}, str(miniatures[family_of(identity["hub"])])) if "hub" in identity else plain(identity, location)
        )

    def published(dataset, **_):
        for number in range(8):
            yield SourceRow(number, f"{dataset}, row {number}", {"id": f"row{number}", **ROWS[dataset]})

    monkeypatch.setattr(model_templates, "own_template", own_template)
    monkeypatch.setattr(stage_models, "hub_folder", lambda name, *_, **__: miniatures[family_of(name)])
    monkeypatch.setattr(sources, "hub_rows", published)
    return tmp_path


@pytest.fixture
def of_yours(hub, miniatures):
    """The file and the model that the CPU recipe asks for, by the names of its command."""
    shutil.copytree(miniatures["smollm2", False], hub / "my_model")
    rows = "".join(
        f'{{"conversations": [{{"from": "human", "value": "What is {n}?"}}, {{"from": "gpt", "value": "{n}, {k}."}}], '
        f'"win_probability": 0.{k}}}\n'
        for n in range(60)
        for k in range(6)
    )
    (hub / "real_pool_sharegpt.jsonl").write_text(rows)


def planned(file, folder, *sets, gpus=4):
    return make_plan(RECIPES / file, sets, folder / "runs", planned_gpus=gpus)


def test_every_recipe_is_known_here():
    assert files_below("modern") == sorted([*FILES, CPU])
    assert len(FILES) == 8


@pytest.mark.parametrize("name", BASES)
def test_the_bases_are_these_and_trained_so(name):
    recipe = load_recipe(RECIPES / f"modern/{name}.yaml").recipe
    scorers = (recipe.scorers.complexity, recipe.scorers.quality)
    assert {recipe.embedding.model, *(scorer.train.model for scorer in scorers)} == {BASES[name][1]}
    assert recipe.sft.model == BASES[name][0]
    assert all(scorer.train.peft for scorer in scorers) and bool(recipe.sft.peft) == (name not in WHOLE)
    assert (recipe.dpo is not None) == (name in WITH_DPO)
    assert (recipe.sft.chat_template is None) == family_of(recipe.sft.model)[1]


@pytest.mark.parametrize("file", FILES)
def test_it_is_planned_with_the_same_keys_on_one_gpu_and_on_four(file, hub):
    plans = [planned(file, hub, gpus=gpus) for gpus in (1, 4)]
    assert unread_lines(plans[0]) == []
    assert len({tuple(node.id for node in plan.nodes) for plan in plans}) == 1
    cells = {"modern/qwen3-sizes.yaml": 1 + 12}
    assert len(plans[0].cells) == cells.get(file, 1)


@pytest.mark.parametrize("file", FILES)
def test_its_rows_fit_its_template_and_tokenizer(file, hub):
    sets = ["pool.rows=8", "select.budget=4", "select.allow_fewer=true", "evaluate.heldout.rows=8"]
    sets += ["dpo.preferences.sample=8"] if Path(file).stem in WITH_DPO else []
    lines = data_lines(planned(file, hub, *sets))
    assert lines and not any(re.search("refused|without|cannot|dropped", line) for line in lines), lines


@pytest.mark.parametrize("file", FILES)
def test_its_trainings_are_tried_on_a_miniature_of_the_architecture(file, hub, monkeypatch, miniatures):
    """The adapter's layers are there, and the installed trl takes each field."""

    def cached(name, file, **_):
        return str(miniatures[family_of(name)] / file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    found = try_trainings(planned(file, hub).nodes, elsewhere=True)
    assert (found.problems, found.notes) == ([], [])


def test_the_cpu_recipe_has_one_file_and_one_model(hub, of_yours):
    plan = planned(CPU, hub, *OF_YOURS, gpus=0)
    assert unread_lines(plan) == []
    assert [cell.label for cell in plan.cells[1:4]] == ["deita, seed 1", "deita, seed 2", "deita, seed 3"]
    assert len(plan.cells) == 1 + 3 * 3
    kinds = [node.kind for node in plan.nodes]
    assert {kind: kinds.count(kind) for kind in ("train_scorer", "score", "embed", "sft")} == {
        "train_scorer": 1, "score": 1, "embed": 1, "sft": 9
    }  # fmt: skip
    data = plan.loaded.cells[0].recipe
    shares = [
        data.evaluate.heldout.instruction_share,
        data.scorers.quality.train.data.instruction_share,
        data.scorers.quality.train.heldout.instruction_share,
        data.pool.instruction_share,
    ]
    assert all(before[1] <= after[0] for before, after in pairwise(shares))  # nothing is in two
    lines = data_lines(planned(CPU, hub, *OF_YOURS, "evaluate.heldout.rows=8",
                               "select.budget=20", gpus=0))  # fmt: skip
    assert lines and not any("refused" in line for line in lines), lines


@pytest.mark.parametrize("file", [*FILES, CPU])
def test_its_header_says_what_a_reader_needs(file, hub, of_yours, monkeypatch):
    text = "\n".join(header(file))
    for label in ("Model", "Lengths", "Time") if file == CPU else ("Template", "Hardware", "Values"):
        assert re.search(rf"^ {label}\s", text, re.MULTILINE), label
    found = commands(file)
    assert found[0][:3] == ["deita-train", "run", f"recipes/{file}"]
    for words in found:
        _, sets, until, gpus = parsed(words, monkeypatch)
        assert make_plan(RECIPES / file, sets, hub / "runs", until, gpus or 4).nodes
