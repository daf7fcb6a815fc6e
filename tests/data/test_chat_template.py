from importlib.resources import files

import pytest

from deita_train.data.chat_template import check_chat_template
from deita_train.errors import UserError

SHIPPED = sorted(
    path.name for path in files("deita_train.data").joinpath("templates").iterdir() if path.name.endswith(".jinja")
)
UNMARKED = (
    "{% for m in messages %}\n{{ m['content'] | trim }}\n{% if m['role'] == 'x' %}{% continue %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("name", SHIPPED)
def test_our_own_templates_pass(name):
    text = files("deita_train.data").joinpath(f"templates/{name}").read_text(encoding="utf-8")
    check_chat_template(text, marked=True)


def test_there_are_own_templates():
    assert "vicuna_v1.1.jinja" in SHIPPED


@pytest.mark.parametrize("mark", ["{% generation %}", "{%- generation -%}", "{%-generation-%}"])
def test_a_template_with_marks(mark):
    check_chat_template(f"{mark}{{{{ x }}}}{{% endgeneration %}}", marked=True)


def test_marks_are_wanted_only_where_something_is_learnt():
    check_chat_template(UNMARKED, marked=False)
    with pytest.raises(UserError, match="does not mark what the assistant writes"):
        check_chat_template(UNMARKED, marked=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{% for m in messages %}\n{{ m['content'] }\n{% endfor %}", 2),
        ("\n\n{% generation %}{{ x }}", 3),
        ("{{ x }}\n{% endfor %}", 2),
    ],
)
def test_a_syntax_error_has_its_line(text, line):
    with pytest.raises(UserError, match=f"^line {line} is not valid Jinja: "):
        check_chat_template(text, marked=True)


def test_a_template_that_writes_the_date_is_refused():
    with pytest.raises(UserError, match="writes the current date"):
        check_chat_template("{{ strftime_now('%d %b %Y') }}", marked=False)
