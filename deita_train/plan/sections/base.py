"""Section `base:`, a miniature base model that the run makes itself."""

from deita_train.data.shipped_templates import shipped_template
from deita_train.plan.chat_templates import DEFAULT_CHAT_TEMPLATE
from deita_train.plan.identity import stated_fields
from deita_train.plan.node import Node
from deita_train.plan.sections.builder import Builder
from deita_train.recipe.model_sections import Base


def add_base(builder: Builder, base: Base) -> None:
    """Add the pretraining of the miniature and the stage that reads its text."""
    pretrain = base.pretrain
    data = builder.add_pool("pretraining_data", [pretrain.data], "base.pretrain.data")
    identity = {
        "architecture": base.architecture.model_dump(),
        "chat_template": shipped_template(DEFAULT_CHAT_TEMPLATE),
        "max_length": pretrain.max_length,
        "cut_at_context": "max_length" not in pretrain.model_fields_set,
        **builder.of_training(pretrain, "base.pretrain"),
    }
    runtime = builder.training_runtime(pretrain, "base.pretrain")
    builder.add(Node("base", "base", identity, runtime, {"data": data}, stated_fields(pretrain)))
