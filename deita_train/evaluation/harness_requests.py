"""What tasks of lm-evaluation-harness ask of a model, apart from the model: requests that are planned, shared over
ranks and kept like any batch, and a model for the harness that has all their answers.

The harness's own cache is not used: it knows answers again by the question alone, whatever model gave them.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from transformers import PreTrainedTokenizerBase

from deita_train.errors import UserError

Template = Callable[..., str]
_GENERATE, _ROLLING = "generate_until", "loglikelihood_rolling"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        task: the task's name.
        document: the number of the question.
        type: what is asked of the model: a method's name of the harness's `LM`.
        arguments: as JSON: context and continuation, a text, or context and the settings of generation.
    """

    task: str
    document: int
    type: str
    arguments: str

    @property
    def values(self) -> tuple[Any, ...]:
        """The arguments."""
        return tuple(json.loads(self.arguments))

    @property
    def text(self) -> str:
        """All that the model reads."""
        return "".join(value for value in self.values if isinstance(value, str))


def build_requests(
    tasks: Mapping[str, Any], limit: int | None, template: Template | None, tokenizer_name: str, section: str
) -> list[Request]:
    """The requests of all tasks, in the order in which the harness's `evaluate` makes them.

    Args:
        tasks: the harness's tasks by name, loaded.
        limit: the first so many questions of each task; None for all.
        template: writes messages as text; None for tasks' plain prompts.
        tokenizer_name: of the template's tokenizer.
        section: of the recipe, for messages.

    Raises:
        UserError: a task cannot write its prompts, or a choice is empty.
    """
    requests = []
    for name, task in tasks.items():
        try:
            task.build_all_requests(limit=limit, **_building(template, tokenizer_name))
        except UserError:
            raise
        except Exception as error:  # prompts are templates and programs of the task
            said = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(". ")
            raise UserError(
                f"{section}.tasks: the prompts of {name} cannot be written ({said}). Correct its task file or its "
                "data, and state no more examples than its split for examples has rows."
            ) from error
        requests += [_request(name, instance, section) for instance in task.instances for _ in range(instance.repeats)]
    return requests


def _building(template: Template | None, tokenizer_name: str) -> dict[str, Any]:
    return {
        "rank": 0,
        "world_size": 1,
        "apply_chat_template": template is not None,
        "fewshot_as_multiturn": template is not None,
        "chat_template": template,
        "tokenizer_name": tokenizer_name if template is not None else "",
    }


def _request(task: str, instance: Any, section: str) -> Request:
    values = instance.args
    if instance.request_type == "loglikelihood" and not values[1].strip(" "):  # the delimiter stands before it
        raise UserError(
            f"{section}.tasks: question {instance.doc_id} of {task} has an empty text to choose; correct its data."
        )
    return Request(task, instance.doc_id, instance.request_type, json.dumps(values, ensure_ascii=False))


def plan_requests(requests: Sequence[Request], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of all requests of `batch_size` questions of one task and type, long questions first.

    Each batch has the same answers whoever computes it and whatever was computed before: they depend in their last bits
    on what is in the batch.

    Returns:
        Positions, the longest request of a batch first.
    """
    questions: dict[tuple[str, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, request in enumerate(requests):
        questions[request.task, request.type][request.document].append(position)
    batches = []
    for by_document in questions.values():
        longest = {document: max(lengths[place] for place in places) for document, places in by_document.items()}
        order = sorted(by_document, key=lambda document: (-longest[document], document))
        for start in range(0, len(order), batch_size):
            places = [place for document in order[start : start + batch_size] for place in by_document[document]]
            batches.append(sorted(places, key=lambda place: (-lengths[place], place)))
    return batches


def token_counts(requests: Sequence[Request], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of each request."""
    counts: list[int] = []
    for start in range(0, len(requests), 1024):
        texts = [request.text for request in requests[start : start + 1024]]
        counts += [len(ids) for ids in tokenizer(texts)["input_ids"]]
    return counts


def answered(model: Any, requests: Sequence[Request], seed: int) -> list[str]:
    """The model's answers to the requests of one batch, each as JSON.

    Args:
        model: the harness's model.
        requests: of one type.
        seed: of what is drawn, where a task has its answers drawn.
    """
    (type_,) = {request.type for request in requests}
    torch.manual_seed(seed)
    instances = [
        Instance(request_type=type_, doc={}, arguments=request.values, idx=place)
        for place, request in enumerate(requests)
    ]
    return [json.dumps(answer) for answer in getattr(model, type_)(instances, disable_tqdm=True)]


def cut_requests(requests: Sequence[Request], lengths: Sequence[int], model: Any, section: str) -> int:
    """How many requests do not fit in the model's context, so that their beginning is cut.

    Raises:
        UserError: the answers alone do not fit.
    """
    cut = 0
    for request, length in zip(requests, lengths, strict=True):
        room = model.max_length + 1
        if request.type == _GENERATE:
            room = model.max_length - _most_tokens(request, model)
            if room <= 0:
                raise UserError(
                    f"{section}.tasks: {request.task} has answers of up to {_most_tokens(request, model)} tokens, and "
                    f"the model's context is {model.max_length}; leave it out, or state max_gen_toks in its task file."
                )
        cut += request.type != _ROLLING and length > room
    return cut


def _most_tokens(request: Request, model: Any) -> int:
    settings = request.values[1]
    named = (settings.get(name) for name in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"))
    return next((int(value) for value in named if value is not None), model.max_gen_toks)


class AnsweredModel(LM):
    """A model for the harness's `evaluate` that has been asked everything already."""

    def __init__(
        self, requests: Sequence[Request], answers: Sequence[str], template: Template | None, name: str
    ) -> None:
        """Keep the answers, and the template that wrote the requests."""
        super().__init__()
        self._name = name
        self._template = template
        self._kept: dict[str, list[tuple[Request, str]]] = defaultdict(list)
        for request, answer in zip(requests, answers, strict=True):
            self._kept[request.type].append((request, answer))

    @property
    def tokenizer_name(self) -> str:
        """A name for the tokenizer of the template."""
        return self._name

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as text."""
        assert self._template is not None
        return self._template(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the likeliest."""
        return [(answer[0], answer[1]) for answer in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each text."""
        return list(self._answers(_ROLLING, requests))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The text that continues each context."""
        return list(self._answers(_GENERATE, requests))

    def _answers(self, type_: str, instances: Sequence[Any]) -> Iterator[Any]:
        for (request, answer), instance in zip(self._kept[type_], instances, strict=True):
            assert request.arguments == json.dumps(instance.args, ensure_ascii=False), f"{request.task} asks otherwise"
            yield json.loads(answer)


def chat_template_of(tokenizer: PreTrainedTokenizerBase, section: str) -> Template:
    """What writes messages by the tokenizer's chat template; like the harness, without a system message if it has none.

    Raises (when called):
        UserError: the template cannot write the messages.
    """

    def write(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        settings: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False, **settings)
            except jinja2.TemplateError:
                asked = [message for message in messages if message["role"] != "system"]
                text = tokenizer.apply_chat_template(asked, tokenize=False, **settings)
        except (jinja2.TemplateError, ValueError) as error:
            said = " ".join(str(error).split()).rstrip(". ")
            raise UserError(
                f"{section}.chat_template: the template cannot write the tasks' prompts ({said}); leave it out."
            ) from error
        return str(text)

    return write
