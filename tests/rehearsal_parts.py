"""What the tests of rehearsals share: a machine without a Hub, and files of one's own that recipes name."""

import json
import os
from contextlib import chdir
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from deita_train.run.child.stand_ins import make_stand_ins
from deita_train.run.rehearsal.at_hand import Reach
from deita_train.run.rehearsal.rehearsal import made_small, rehearse
from deita_train.run.rehearsal.stand_ins import StandIns, as_plain, request_for
from deita_train.store.locks import PARENT_VARIABLE
from deita_train.training.miniature import train_tokenizer

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
ADDRESS = "http://127.0.0.1:9/v1"


def chat(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def judged_rows(questions=60, systems=6):
    """Answers of several systems to each question, one system after another, with a judge's rating."""
    return [
        {
            "id": f"{system}/{question}",
            "conversations": chat(f"What is {question} and {question}?", f"{2 * question}, says system {system}."),
            "win_probability": (system * 7 + question) % 10 / 10,
        }
        for system in range(systems)
        for question in range(questions)
    ]


def pool_rows(number=60):
    return [{"id": f"row{one}", "conversations": chat(f"Name colour {one}.", f"Green {one}.")} for one in range(number)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_own_model(folder, marks=(), **shape):
    """A small model of one's own with its weights, and with `marks` as single tokens."""
    tokenizer = train_tokenizer(["Name a colour. Green."] * 9, 400, "", folder)
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4} | shape
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)


def write_own_files(folder):
    """What the shipped recipes call the user's own."""
    write_lines(folder / "real_pool_sharegpt.jsonl", judged_rows())
    for name in ("my_pool", "my_heldout", "my_seeds"):
        write_lines(folder / f"{name}.jsonl", pool_rows())
    # Recipes state chatml for both, and real_cpu.yaml the upper half of the second one's 30 layers.
    for name, layers in (("my_model", 3), ("SmolLM2-135M-Instruct", 30)):
        write_own_model(folder / name, marks=("<|im_start|>", "<|im_end|>"), num_hidden_layers=layers)


def stand_ins(data, folder):
    """The stand-ins of a recipe, made in this process."""
    return StandIns(**make_stand_ins(as_plain(request_for(data, Reach())), folder))


def small_recipe(data, folder):
    """The recipe that a rehearsal would carry out, and what was replaced."""
    return made_small(data, stand_ins(data, folder / "made"), ADDRESS, hub_answers=False)


def rehearsed(recipe, runs, *sets, **options):
    """A rehearsal inside this process; what it printed, and how it ended."""
    text = StringIO()
    mine = {name: value for name, value in os.environ.items() if name != PARENT_VARIABLE}
    with patch.dict(os.environ, {**mine, "OMP_NUM_THREADS": "1"}, clear=False), chdir(Path.cwd()):
        done = rehearse(recipe, sets, runs, Console(file=text, width=200), **options)
    return text.getvalue(), done
