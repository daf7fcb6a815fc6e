"""Mistakes in what a stage is given beside its data: models, chat templates, launches."""

from bad_input.case import COMMIT, SELECTED, Case, embedding, in_sft, template

MODELS = [
    # Models
    Case(
        "no such model folder",
        "plan recipe.yaml",
        ("recipe.yaml: embedding.model: ./mistral is neither a folder", "nor a Hub id"),
        embedding("./mistral"),
    ),
    Case(
        "a model folder without config.json",
        "plan recipe.yaml",
        ("recipe.yaml: embedding.model: empty is a folder without config.json",),
        embedding("empty"),
        {"empty/tokenizer.json": "{}"},
    ),
    Case(
        "a config.json that is cut off",
        "plan recipe.yaml",
        ("recipe.yaml: embedding.model: ", "config.json is not valid JSON", "again"),
        embedding("torn"),
        {"torn/config.json": '{"model_type": '},
    ),
    Case(
        "an unknown architecture",
        "stage embed",
        ("strange/config.json: transformers cannot read it", "nonesuch", "another model"),
        embedding("strange"),
        {"strange/config.json": '{"model_type": "nonesuch"}'},
        made=("pool",),
    ),
    Case(
        "a model without weights",
        "stage embed",
        ("bare holds no weights (model.safetensors)", "again"),
        embedding("bare"),
        {"bare/config.json": '{"model_type": "llama"}'},
        made=("pool",),
    ),
    Case(
        "weights that git-lfs has not fetched",
        "stage embed",
        ("lfs/model.safetensors is not a complete safetensors file", "git-lfs"),
        embedding("lfs"),
        {
            "lfs/config.json": '{"model_type": "llama"}',
            "lfs/model.safetensors": "version https://git-lfs.github.com/spec/v1\n",
        },
        made=("pool",),
    ),
    Case(
        "a model of the Hub without network",
        "plan recipe.yaml --stages",
        ("recipe.yaml: embedding.model: nobody/no-such-model is not a local path", "Check the name and the network"),
        embedding("nobody/no-such-model"),
    ),
    Case(
        "a model of the Hub that was never fetched",
        "stage embed",
        (f"nobody/no-such-model at {COMMIT} cannot be downloaded", "Check the network"),
        embedding(f"nobody/no-such-model\n  revision: {COMMIT}\n  chat_template: chatml"),
        made=("pool",),
    ),
    Case(
        "a revision of a local model",
        "plan recipe.yaml",
        ("recipe.yaml: embedding.revision: model is local", "Leave revision: out"),
        embedding("model\n  revision: main"),
    ),
    Case(
        "a tokenizer that merges a space with a digit",
        "stage train_scorer.complexity",
        (
            "merging does not write the digit 1 after the complexity prompt as one token",
            "pre-tokenize with individual digits",
        ),
        {"model: model\n      max": "model: merging\n      max"},
    ),
    # Chat templates
    Case(
        "an unknown chat template",
        "plan recipe.yaml",
        ("recipe.yaml: sft.chat_template: vicuna is unknown", "allowed: ", "vicuna_v1.1", ".jinja file"),
        template("vicuna"),
    ),
    Case(
        "a chat template with a syntax error",
        "plan recipe.yaml",
        ("recipe.yaml: sft.chat_template: mine.jinja: line 2 is not valid Jinja", "fix the template"),
        template("mine.jinja"),
        {"mine.jinja": "{% for m in messages %}\n{{ m['content'] }\n{% endfor %}\n"},
    ),
    Case(
        "a chat template that marks no answer",
        "plan recipe.yaml",
        ("recipe.yaml: sft.chat_template: mine.jinja", "does not mark what the assistant writes", "{% generation %}"),
        template("mine.jinja"),
        {"mine.jinja": "{% for m in messages %}{{ m['content'] }}{% endfor %}\n"},
    ),
    Case(
        "a chat template that is not UTF-8",
        "plan recipe.yaml",
        ("recipe.yaml: sft.chat_template: mine.jinja is not UTF-8", "Save the file as UTF-8"),
        template("mine.jinja"),
        {"mine.jinja": b"\xff\xfe{"},
    ),
    Case(
        "a chat template that refuses a row",
        "stage sft",
        ("sft: the chat template cannot write", "the template says: no system message", "another chat_template"),
        template("mine.jinja"),
        {"mine.jinja": "{{ raise_exception('no system message') }}{% generation %}{% endgeneration %}"},
        SELECTED,
        right=None,
    ),
    # Batches and launches
    Case(
        "a batch that the ranks do not divide",
        "plan recipe.yaml",
        ("recipe.yaml: sft.global_batch_size: 4 is not a multiple of 3", "nearest that fit: 3 or 6"),
        in_sft("launch: mine.yaml"),
        {"mine.yaml": "distributed_type: MULTI_GPU\nuse_cpu: true\nnum_processes: 3\n"},
    ),
    Case(
        "an unknown launch",
        "plan recipe.yaml",
        ("recipe.yaml: sft.launch: zerro2 is unknown", "zero2", "a path to an accelerate configuration"),
        in_sft("launch: zerro2"),
    ),
    Case(
        "a launch that wants GPUs",
        "plan recipe.yaml",
        ("recipe.yaml: sft.launch: zero2 needs GPUs", "cpu_zero2"),
        in_sft("launch: zero2"),
    ),
    Case(
        "a launch that would leave no model",
        "plan recipe.yaml",
        ("recipe.yaml: sft.launch: ", "mine.yaml would leave no model", "write zero3_save_16bit_model: true"),
        in_sft("launch: mine.yaml"),
        {
            "mine.yaml": "distributed_type: DEEPSPEED\nuse_cpu: true\nnum_processes: 2\n"
            "deepspeed_config: {zero_stage: 3}\n"
        },
    ),
    Case(
        "a launch file of something else",
        "plan recipe.yaml",
        ("recipe.yaml: sft.launch: ", "mine.yaml has no distributed_type", "accelerate config"),
        in_sft("launch: mine.yaml"),
        {"mine.yaml": "ranks: 2\n"},
    ),
    Case(
        "a launch file with words for numbers",
        "plan recipe.yaml",
        ("recipe.yaml: sft.launch: ", "mine.yaml: num_processes: 'two' is not a number of processes"),
        in_sft("launch: mine.yaml"),
        {"mine.yaml": "distributed_type: MULTI_GPU\nuse_cpu: true\nnum_processes: two\n"},
    ),
    Case(
        "a launch file that is no YAML",
        "plan recipe.yaml",
        ("recipe.yaml: sft.launch: ", "mine.yaml is not YAML", "line 2"),
        in_sft("launch: mine.yaml"),
        {"mine.yaml": "distributed_type: [\n"},
    ),
]
