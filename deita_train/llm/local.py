"""A model's folder as an endpoint: its own chat template, and answers generated here in batches."""

import hashlib
from collections.abc import Iterator, Sequence

import torch

from deita_train.data.control_tokens import encode
from deita_train.data.rendering import load_tokenizer
from deita_train.data.row_refusal import RowRefused
from deita_train.data.template_text import rendered_text
from deita_train.errors import UserError
from deita_train.inference.forward import load_model
from deita_train.inference.generation import Generated, Prompt, context_length, generate, stop_ids
from deita_train.llm.answers import Answer, Failure
from deita_train.llm.endpoint import Endpoint
from deita_train.llm.requests import ChatRequest
from deita_train.models.adapter_files import is_adapter
from deita_train.models.model_folder import check_model_folder


class LocalModel:
    """The model, its tokenizer, and where its turns end. In bfloat16 on a GPU, in float32 on a CPU."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Load the model.

        Raises:
            UserError: the folder holds no model that can be loaded, or one without a chat template.
        """
        assert endpoint.local is not None, "only a local endpoint has a model's folder"
        folder = endpoint.local
        if not is_adapter(folder):
            check_model_folder(folder)
        self._tokenizer = load_tokenizer(str(folder))
        if self._tokenizer.chat_template is None:
            raise UserError(
                f"{endpoint.label}.local: the tokenizer in {folder} has no chat template, so it is unknown how the "
                "model is asked; name a model that was tuned to follow instructions."
            )
        device, dtype = (torch.device("cuda"), "bfloat16") if torch.cuda.is_available() else (_CPU, "float32")
        self._model = load_model(str(folder), dtype, device, head=True)
        self._stops = stop_ids(self._model, self._tokenizer)
        self._context = context_length(self._model)
        self._max_rows = endpoint.max_in_flight
        self._name = endpoint.model

    def answers(self, requests: Sequence[ChatRequest]) -> Iterator[list[tuple[int, Answer | Failure]]]:
        """The answers batch by batch, each with its request's position; first those that cannot be asked."""
        prompts: list[Prompt] = []
        places: list[int] = []
        failed: list[tuple[int, Answer | Failure]] = []
        for place, request in enumerate(requests):
            prompt = self._prompt(request)
            if isinstance(prompt, Failure):
                failed.append((place, prompt))
            else:
                prompts.append(prompt)
                places.append(place)
        if failed:
            yield failed
        for batch in generate(self._model, prompts, self._stops, self._max_rows):
            yield [(places[number], self._answer(prompts[number], written)) for number, written in batch]

    def _prompt(self, request: ChatRequest) -> Prompt | Failure:
        """A request as tokens, up to where the assistant begins; control tokens that a message spells stay text."""
        messages = [dict(message) for message in request.messages]
        try:
            asked = rendered_text(self._tokenizer, messages, add_generation_prompt=True, labelled=False)
        except RowRefused as error:
            return Failure(error.reason, error.detail)
        ids = encode(self._tokenizer, asked.text, asked.literals, add_special_tokens=False).ids
        room = request.max_tokens if self._context is None else min(request.max_tokens, self._context - len(ids))
        if room < 1:
            return Failure("prompt_too_long", f"{len(ids):,} tokens leave no room in a context of {self._context:,}")
        seed = int.from_bytes(hashlib.sha256(request.key(self._name).encode()).digest()[:7], "big")
        return Prompt(ids, room, request.temperature, seed)

    def _answer(self, prompt: Prompt, written: Generated) -> Answer | Failure:
        text = str(self._tokenizer.decode(written.ids, skip_special_tokens=True))
        reason = "stop" if written.ended else "length"
        if not text.strip():
            return Failure("no_content", f"the answer is empty (finish_reason {reason})")
        return Answer(text, reason, len(prompt.ids), len(written.ids) + written.ended)


_CPU = torch.device("cpu")
