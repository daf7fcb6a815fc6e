"""What the tuning stages do so that their model stops where its template ends a turn."""

from typing import Any

from deita_train.data.rendering import load_tokenizer
from deita_train.durable import read_json, write_json_atomically
from deita_train.inference.adapter_files import is_adapter
from deita_train.stages.context import StageContext
from deita_train.stages.models import model_path
from deita_train.training.end_of_turn import end_of_turn_ids, stop_at

_FILE = "end_of_turn.json"


def keep_end_of_turn(context: StageContext) -> None:
    """Find what ends a turn before anything is trained, where it may be another token than the end of sequence."""
    if context.config.get("end_of_turn"):
        tokenizer = load_tokenizer(str(model_path(context)), context.config["chat_template"])
        tokens = {str(tokenizer.convert_ids_to_tokens(token)): token for token in end_of_turn_ids(tokenizer)}
        write_json_atomically(context.prepared_dir / _FILE, tokens)


def stop_at_end_of_turn(context: StageContext) -> dict[str, Any]:
    """Let the published model stop there; an adapter has no generation_config.json, and its base's is what counts."""
    if not context.config.get("end_of_turn"):
        return {}
    tokens = read_json(context.prepared_dir / _FILE)
    if not is_adapter(context.model_dir):
        stop_at(context.model_dir, list(tokens.values()))
    return {"end_of_turn": list(tokens)}
