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


@pytest.mark.parametrize(
    "comment", ["{#- Added {% generation %} / {% endgeneration %} -#}\n", "{# {% generation %} #}"]
)
def test_marks_in_a_comment_mark_nothing(comment):
    check_chat_template(comment + UNMARKED, marked=False)
    with pytest.raises(UserError, match="does not mark what the assistant writes"):
        check_chat_template(comment + UNMARKED, marked=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n{{ messages[0].content | nosuch }}", "^line 2 is not valid Jinja: No filter named 'nosuch'; fix"),
        ("\n\n{{ messages is nosuch }}", "^line 3 is not valid Jinja: No test named 'nosuch'"),
        ("\n{% include 'x' %}", r"^line 2 reads another file \(include, import or extends\)"),
        ("{% from 'x' import y %}", "^line 1 reads another file"),
        ("\n{{ now().strftime('%Y') }}", "^line 2 uses now, which neither Jinja nor transformers gives"),
        ("{{ today.year }}", "^line 1 uses today, "),
        ("{{ env['HOME'] }}", "^line 1 uses env, "),
        ("{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "'break' outside loop"),
    ],
)
def test_a_template_that_no_row_can_fill_is_refused(text, problem):
    with pytest.raises(UserError, match=problem):
        check_chat_template(text, marked=False)


@pytest.mark.parametrize(
    "text",
    [
        "{% if date_string is defined %}{{ date_string.upper() }}{% endif %}",
        "{% if tool_choice %}{{ tool_choice.name }}{% endif %}",
        "{% macro write(m) %}{{ m.content }}{% endmacro %}{% for m in messages %}{{ write(m) }}{% endfor %}",
        "{% set ns = namespace(found=false) %}{{ ns.found }}{{ range(2) | list | tojson }}{{ eos_token.strip() }}",
        "{% for message in messages %}{% endfor %}{{ message.content }}",
    ],
)
def test_names_that_may_be_given_or_are_defined_are_no_fault(text):
    check_chat_template(text, marked=False)
