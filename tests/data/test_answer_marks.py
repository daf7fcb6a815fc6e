"""What a template's text says of its answers."""

from importlib.resources import files

import pytest

from deita_train.data.answer_marks import ends_in_eos, marked_answers

BLOCK = "{{%- generation -%}}{}{{%- endgeneration -%}}"


def test_the_marked_parts_in_order():
    text = "a{% generation %}b{% endgeneration %}c{%- generation -%}\nd\n{%- endgeneration -%}"
    assert marked_answers(text) == ["b", "\nd\n"]


def test_of_the_shipped_templates():
    folder = files("deita_train.data").joinpath("templates")
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}
    assert len(texts) == 6
    other = {name for name, text in texts.items() if not ends_in_eos(text)}
    assert other == {"chatml.jinja", "llama3.jinja"}


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("{{ message['content'] + eos_token }}", True),
        ("{{ message['content'] }}{{ eos_token }}", True),
        ("{{- message.content ~ eos_token -}}\n", True),
        ("{{ message['content'] + '<|im_end|>' + eos_token }}", True),
        ("{{ message['content'] + '<|im_end|>' }}", False),
        ("{{ message['content'] + eos_token + '\\n' }}", False),
        ("{{ message['content'] + ('<|eot_id|>' if more else eos_token) }}", False),
        ("{{ '<|eot_id|>' if more else eos_token }}", False),
        ("{% if loop.last %}{{ eos_token }}{% endif %}", False),
        ("{{ message['content'] + my_eos_token }}", False),
    ],
)
def test_only_what_is_plain_counts(answer, plain):
    assert ends_in_eos(BLOCK.format(answer)) is plain
    assert ends_in_eos(BLOCK.format("{{ eos_token }}") + BLOCK.format(answer)) is plain


def test_a_template_without_marks_says_nothing():
    assert not ends_in_eos("{{ messages[0]['content'] + eos_token }}")
