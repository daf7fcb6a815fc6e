"""Section `sft:`, supervised fine-tuning on the selected rows or on a dataset of its own."""

from deita_train.data.answer_marks import ends_in_eos
from deita_train.plan.identity import stated_fields
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.model_sections import Sft


def add_sft(builder: Builder, sft: Sft) -> None:
    """Add the training, and the stage that reads its data where it has its own."""
    model = builder.trained_model(sft.model, sft.revision, "sft")
    if sft.data is not None:
        data = builder.add_pool("sft_data", [sft.data], "sft.data")
    else:
        data = builder.required("select", "sft", "select: (or sft.data:)")
    template = builder.chat_template(sft.chat_template, "sft", model)
    builder.check_limits(model, "sft", ("trainer.max_length", sft.trainer.get("max_length")), resize=sft.resize)
    decides, how = builder.of_rendering(sft, "sft", template)
    identity = {
        **model.identity,
        **template.identity(),
        **decides,
        **builder.of_tuning(sft, "sft"),
        "cut_at_context": "max_length" not in sft.trainer,
        "loss": "per_conversation" if sft.is_per_conversation else "per_token",
        "parity": sft.parity,
        "end_of_turn": not ends_in_eos(template.text),
    }
    runtime = {**model.location, **how, **builder.training_runtime(sft, "sft")}
    builder.add(Node("sft", "sft", identity, runtime, {"data": data, **model.parents}, stated_fields(sft)))
