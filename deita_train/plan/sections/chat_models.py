"""Chat models under `llm:`, as the stages that ask them read them."""

from typing import Any

from deita_train.llm.builtin import BUILTIN_VERSIONS
from deita_train.plan.sections.builder import Builder


def chat_model(builder: Builder, name: str, field: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Identity and runtime of a chat model under `llm:`.

    Of a model behind a server its name decides the content; where it answers, how fast and at what cost does not.

    Args:
        builder: of the recipe.
        name: the endpoint's.
        field: the dotted path of the field that names it.
        where: the dotted path of the section that asks.
    """
    endpoints = builder.recipe.llm or {}
    if name not in endpoints:
        known = f"it has {', '.join(endpoints)}" if endpoints else "the recipe has no llm:"
        raise builder.inputs.error(field, f"llm: has no endpoint {name!r}; {known}.")
    endpoint = endpoints[name]
    how = {"name": name, **endpoint.model_dump(exclude={"local"}, exclude_none=True)}
    runtime = {"answers": str(builder.inputs.answers_dir), "endpoint": how, "section": where}
    if endpoint.builtin is not None:
        return {"model": {"builtin": endpoint.builtin, "version": BUILTIN_VERSIONS[endpoint.builtin]}}, runtime
    if endpoint.local is None:
        return {"model": {"served": endpoint.model}}, runtime
    identity, location = builder.inputs.model(endpoint.local, None, f"llm.{name}", adapters=False, field="local")
    return {"model": identity}, {**runtime, "model": location}
