"""Tokenizers with the settings of current model families, trained on a few words, and the families' own templates."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TRL_TEMPLATES = Path(find_spec("trl").submodule_search_locations[0]) / "chat_templates"
_CONTROL = re.compile(r"<[|\uff5c][^<>|\uff5c\s]+[|\uff5c]>|<(?:start|end)_of_turn>|\[/?[A-Z_]+\]")
_WORDS = "Hello there how are you Fine thank you Good morning the weather in Oslo user assistant system model tool"
_CORPUS = [
    _WORDS,
    f"\n\n{_WORDS}.",
    "1+1? 2!\n",
    "good: ok\n\n\n",
    '{"name": "weather", "city": "Oslo"}',
    "Wow!! Great!",
] * 9
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# Not known to trl, as many fine-tuned models have one: ChatML with a sentence of its own where no system message is.
SMOLLM = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou answer briefly.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Mistral and Mixtral, Granite 3 and OLMo 2 publish theirs, without their tools; none is known to trl.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GRANITE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|start_of_role|>system<|end_of_role|>You are Granite, developed by "
    "IBM.<|end_of_text|>\n' }}{% endif %}{% for message in messages %}{{ '<|start_of_role|>' + message['role'] + "
    "'<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
OLMO = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """Settings of a family's tokenizer.

    Attributes:
        template: its template's name in trl, or its text; empty for a base model without one.
        names: its special tokens by their role.
        added: more control tokens.
        pieces: whether its vocabulary has SentencePiece's form instead of bytes.
        adds_bos: whether the tokenizer begins every text with its own beginning of sequence.
        rstrip: whether control tokens take in the white space to their right.
    """

    template: str
    names: dict[str, str]
    added: tuple[str, ...] = ()
    pieces: bool = False
    adds_bos: bool = False
    rstrip: bool = False

    @property
    def chat_template(self) -> str:
        """The template that the family publishes; empty for none."""
        if not self.template or "{" in self.template:
            return self.template
        return (TRL_TEMPLATES / f"{self.template}.jinja").read_text(encoding="utf-8")


_BAR = "<\uff5c{}\u2581of\u2581sentence\uff5c>"
_QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
FAMILIES = {
    "qwen2.5": Family("qwen2_5", _QWEN),
    "qwen3": Family("qwen3", _QWEN),
    "llama3": Family("llama3", {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, adds_bos=True),
    "gemma2": Family("gemma", {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}, pieces=True),
    "gemma3": Family("gemma3", {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}, pieces=True),
    "phi3": Family(
        "phi3", {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}, pieces=True, rstrip=True
    ),
    "smollm2": Family(SMOLLM, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}),
    "glm4": Family("glm4moe", {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
    "gpt-oss": Family("gptoss", {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"}),
    "deepseek": Family("deepseekv3", {"bos_token": _BAR.format("begin"), "eos_token": _BAR.format("end")}),
    "cohere": Family("cohere2", {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"}),
    "mistral": Family(MISTRAL, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, pieces=True),
    "granite": Family(GRANITE, {"bos_token": "<|end_of_text|>", "eos_token": "<|end_of_text|>"}),
    "olmo2": Family(OLMO, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}),
    "qwen3.5": Family("qwen3_5_nothink", _QWEN),
    "gpt2": Family("", {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}),
}


def make_tokenizer(family: Family, folder: Path | None = None) -> PreTrainedTokenizerFast:
    """The family's tokenizer with a small vocabulary; saved to `folder` if given."""
    control = [*family.names.values(), *family.added, *_CONTROL.findall(family.chat_template)]
    made = _piece_model() if family.pieces else _byte_model()
    special = [
        AddedToken(name, rstrip=family.rstrip and name.startswith("<|"), normalized=False, special=True)
        for name in dict.fromkeys(control)
    ]
    made.add_special_tokens(special)
    made.add_tokens([AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>")])
    if family.adds_bos:
        bos = family.names["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **family.names)
    tokenizer.chat_template = family.chat_template or None
    if folder is not None:
        tokenizer.save_pretrained(folder)
    return tokenizer


def _byte_model() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    made.train_from_iterator(_CORPUS, trainer)
    return made


def _piece_model() -> Tokenizer:
    """SentencePiece's BPE as LLaMA's and Gemma's: spaces are pieces, unknown characters bytes; merges spell <s>."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    characters = sorted(
        {character for text in _CORPUS for character in text.replace(" ", "\u2581")} | set("<s>/\u2581\n")
    )
    merges = [("\u2581", "t"), ("t", "h"), ("\u2581t", "he"), ("h", "e"), ("<", "s"), ("<s", ">"), ("\n", "\n")]
    vocabulary = dict.fromkeys(["<unk>", *pieces, *characters, *(a + b for a, b in merges)])
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made
