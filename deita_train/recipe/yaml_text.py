"""A recipe's data as YAML text that :func:`deita_train.recipe.yaml_source.load_yaml` reads back."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML


def to_yaml(data: Mapping[str, Any]) -> str:
    """The mapping in block style, its keys in their order; text that looks like something else stands in quotes."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(dict(data), text)
    return text.getvalue()
