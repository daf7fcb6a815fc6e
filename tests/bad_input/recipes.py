"""Mistakes in a recipe, found before anything is read: the file, its keys, its values, what its sections need."""

from bad_input.case import EMBEDDING, SCORER_TRAINER, SFT_TRAINER, Case, embedding, in_sft, scorer
from bad_input.folder import RECIPE

POOL_SECTION = "pool:\n  dataset: pool.jsonl\n"
DPO_ALONE = {RECIPE[RECIPE.index("sft:") : RECIPE.index("dpo:")]: ""}

RECIPES = [
    # The recipe as a file
    Case(
        "no such recipe",
        "plan recipy.yaml",
        ("recipy.yaml: no such file", "did you mean recipe.yaml?"),
        right="plan recipe.yaml",
    ),
    Case(
        "the recipe is empty",
        "plan recipe.yaml",
        ("recipe.yaml:1: the file is empty", "a mapping of sections"),
        files={"recipe.yaml": ""},
    ),
    Case(
        "the recipe is a list",
        "plan recipe.yaml",
        ("recipe.yaml:1: ['pool'] is a list", "a mapping of sections"),
        files={"recipe.yaml": "- pool\n"},
    ),
    Case(
        "an indentation that is no YAML",
        "plan recipe.yaml",
        ("recipe.yaml:17: not YAML", "check the indentation"),
        {"method: random": "method: random: deita"},
    ),
    Case(
        "a bracket is not closed",
        "plan recipe.yaml",
        ("recipe.yaml:9: not YAML", "begins on line 8", "close the bracket"),
        {"{dataset: labels.jsonl}": "{dataset: labels.jsonl"},
    ),
    Case(
        "a key is there twice",
        "plan recipe.yaml",
        ("recipe.yaml:3: seed: the key is repeated (first on line 2)", "keep one"),
        {"seed: 7": "seed: 7\nseed: 8"},
    ),
    # Keys
    Case(
        "a section is misspelt",
        "plan recipe.yaml",
        ("recipe.yaml:13: embeding: unknown key", "did you mean embedding?"),
        {"embedding:": "embeding:"},
    ),
    Case(
        "a key is misspelt",
        "plan recipe.yaml",
        ("recipe.yaml:18: select.budgt: unknown key", "did you mean budget?"),
        {"budget: 4": "budgt: 4"},
    ),
    Case(
        "a deep key is misspelt",
        "plan recipe.yaml",
        ("recipe.yaml:10: scorers.complexity.train.max_lenght: unknown key", "did you mean max_length?"),
        scorer("max_lenght: 256"),
    ),
    Case(
        "a trainer field is misspelt",
        "plan recipe.yaml",
        ("recipe.yaml:23: sft.trainer.learning_rat", "unknown field of SFTConfig", "did you mean learning_rate?"),
        {SFT_TRAINER: "{learning_rat: 1e-3}"},
    ),
    Case(
        "a trainer field has gone",
        "plan recipe.yaml",
        ("recipe.yaml:12: scorers.complexity.train.trainer.warmup_ratio: gone", "write warmup_steps"),
        {SCORER_TRAINER: "{warmup_ratio: 0.1}"},
    ),
    Case(
        "a field of peft is misspelt",
        "plan recipe.yaml",
        ("recipe.yaml:22: sft.peft.lora_alfa: unknown field", "did you mean lora_alpha?"),
        in_sft("peft: {r: 4, lora_alfa: 8}"),
    ),
    Case(
        "a trainer field is the framework's",
        "plan recipe.yaml",
        ("recipe.yaml:23: sft.trainer.gradient_accumulation_steps", "global_batch_size"),
        {SFT_TRAINER: "{gradient_accumulation_steps: 4}"},
    ),
    Case(
        "a trainer field without effect",
        "plan recipe.yaml",
        ("recipe.yaml:23: sft.trainer.eval_steps: would have no effect", "state evaluate: instead"),
        {SFT_TRAINER: "{eval_steps: 10}"},
    ),
    Case(
        "a warm-up that its scheduler does not read",
        "plan recipe.yaml",
        ("recipe.yaml:23: sft.trainer.warmup_steps: would have no effect", "write constant_with_warmup"),
        {SFT_TRAINER: "{lr_scheduler_type: constant, warmup_steps: 3}"},
    ),
    Case(
        "an optimizer whose package is not installed",
        "validate recipe.yaml",
        ("recipe.yaml: sft.trainer.optim: ", "install `bitsandbytes`"),
        {SFT_TRAINER: "{optim: paged_adamw_8bit, max_length: 256}"},
    ),
    # Values
    Case("packing: no", "plan recipe.yaml", ("recipe.yaml:23: sft.trainer.packing: ",), {SFT_TRAINER: "{packing: no}"}),
    Case(
        "no for false in trainer",
        "plan recipe.yaml",
        ("recipe.yaml:23: sft.trainer.gradient_checkpointing: 'no' is text; expected true or false",),
        {SFT_TRAINER: "{gradient_checkpointing: no}"},
    ),
    Case(
        "no for false in a section",
        "plan recipe.yaml",
        ("recipe.yaml:15: embedding.center: 'no' is text; expected true or false", "YAML 1.2 reads no as text"),
        embedding("model\n  center: no"),
    ),
    Case(
        "a number in quotes",
        "plan recipe.yaml",
        ("recipe.yaml:26: dpo.global_batch_size: '16' is text; expected a whole number", "without quotes"),
        {"global_batch_size: 2": 'global_batch_size: "16"'},
    ),
    Case(
        "text for a number",
        "plan recipe.yaml",
        ("recipe.yaml:19: select.threshold: 'high' is text; expected a number",),
        {"budget: 4": "budget: 4\n  threshold: high"},
    ),
    Case(
        "a revision that YAML reads as a number",
        "plan recipe.yaml",
        ("recipe.yaml:15: embedding.revision: 1234567 is a whole number; expected text", "put it in quotes"),
        embedding("model\n  revision: 1234567"),
    ),
    Case(
        "a budget of 0",
        "plan recipe.yaml",
        ("recipe.yaml:18: select.budget: 0", "expected more than 0 or a mapping"),
        {"budget: 4": "budget: 0"},
    ),
    Case(
        "an unknown method",
        "plan recipe.yaml",
        ("recipe.yaml:17: select.method: 'randum' is not allowed", "did you mean random?"),
        {"method: random": "method: randum"},
    ),
    Case(
        "an unknown format",
        "plan recipe.yaml",
        ("recipe.yaml:5: pool.format: 'shargpt' is not allowed", "did you mean sharegpt?"),
        {"dataset: pool.jsonl": "dataset: pool.jsonl\n  format: shargpt"},
    ),
    Case(
        "two mistakes at once",
        "plan recipe.yaml",
        ("recipe.yaml:18: select.budget", "recipe.yaml:22: sft.global_batch_size"),
        {"budget: 4": "budget: 0", "vicuna_v1.1\n  global_batch_size: 4": "vicuna_v1.1\n  global_batch_size: 0"},
    ),
    # What a section needs
    Case(
        "select without a pool",
        "plan recipe.yaml",
        ("recipe.yaml: select: needs pool:", "Add it, or leave select: out"),
        {POOL_SECTION: "", f"{EMBEDDING}\n  max_length: 256\n": ""},
    ),
    Case(
        "deita without the scores",
        "plan recipe.yaml",
        ("recipe.yaml: select: needs scorers.quality:", "select.method deita ranks by it", "reads none: random"),
        {"method: random": "method: deita"},
    ),
    Case(
        "dpo without sft",
        "plan recipe.yaml",
        ("recipe.yaml: dpo: needs sft: (or dpo.model)", "Add it, or leave dpo: out"),
        DPO_ALONE,
    ),
    Case(
        "a base that is not there",
        "plan recipe.yaml",
        ("recipe.yaml: embedding: needs base:", "model: base"),
        embedding("base"),
    ),
    # Sweeps
    Case(
        "a sweep of an unknown section",
        "plan recipe.yaml",
        ("recipe.yaml: sweep.selct.budget: ", "no section selct"),
        {"evaluate:": "sweep: {selct.budget: [1, 2]}\nevaluate:"},
    ),
    Case(
        "a sweep without a list",
        "plan recipe.yaml",
        ("recipe.yaml: sweep.select.budget: 3 is not a list", "[1, 2, 3]"),
        {"evaluate:": "sweep: {select.budget: 3}\nevaluate:"},
    ),
    Case(
        "a sweep with a wrong value",
        "plan recipe.yaml",
        ("select.budget: 0", "expected more than 0 or a mapping", "in the sweep's cell budget 0"),
        {"evaluate:": "sweep: {select.budget: [3, 0]}\nevaluate:"},
    ),
    Case(
        "a sweep until an unknown stage",
        "plan recipe.yaml",
        ("recipe.yaml: sweep.until selct: the recipe has no such stage", "select"),
        {"evaluate:": "sweep: {select.budget: [3], until: selct}\nevaluate:"},
    ),
]
