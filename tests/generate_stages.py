"""What the tests of answers share: questions, and a stage over them in this process."""

import datasets
from pass_stages import TEMPLATE

from deita_train.data.questions import FEATURES
from deita_train.stages.context import Progress, StageContext

TOKENS = 10
CONTEXT = 320
LAUNCH = {"config_file": "cpu", "num_processes": 1, "distributed_type": "NO", "use_cpu": True}


def question(name, *turns, **fields):
    empty = dict.fromkeys(FEATURES)
    return {**empty, "id": name, "turns": list(turns), **fields}


QUESTIONS = [
    question("one", "How are you today?"),
    question("two", "Name three rivers of Europe, please.", "Why?", category="writing"),
    question("system", "Who?", "And then?", "Why?", system="Be brief.", category="math"),
    question("long", "I do not know. " * 60, "Why?"),
    question("middle", "I do not know. " * 5, "The answer is twelve. " * 40, "Why?", category="stem"),
    question("last", "The answer is twelve."),
]


def generate_context(folder, questions=QUESTIONS, **changes):
    """A stage over `questions` with the model of `folder/model`."""
    if not (folder / "questions").exists():
        table = datasets.Dataset.from_list(questions, features=FEATURES)
        table.save_to_disk(str(folder / "questions" / "data"))
    identity = {
        "max_new_tokens": TOKENS, "temperature": 0.0, "chat_template": TEMPLATE, "dtype": "float32",
        "resize": False, "seed": None,
    }  # fmt: skip
    runtime = {"launch": LAUNCH, "max_batch_tokens": None, "section": "evaluate", "max_refused_share": 0.0}
    identity |= {name: value for name, value in changes.items() if name in identity}
    runtime |= {name: value for name, value in changes.items() if name in runtime}
    assert set(changes) <= set(identity) | set(runtime)
    work = folder / "work"
    (work / "prepared").mkdir(parents=True, exist_ok=True)
    parents = {"questions": folder / "questions", "model": folder}
    return StageContext("generate", "generate.base", identity, runtime, parents, work, 0, 1, Progress(None))
