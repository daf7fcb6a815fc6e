"""Checks on a chat template before anything is rendered: valid Jinja, with the assistant's words marked."""

from collections.abc import Iterator

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deita_train.errors import UserError

# What transformers adds to Jinja's own functions, and what Jinja itself gives within macros, loops and blocks.
_GIVEN = frozenset(
    {"raise_exception", "strftime_now", "messages", "tools", "documents", "add_generation_prompt"}
    | {"caller", "varargs", "kwargs", "loop", "self", "super"}
)
_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_MARK = "generation_support"


class _Generation(Extension):
    """The `generation` block that transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method(_MARK), [], [], body).set_lineno(line)


def check_chat_template(text: str, *, marked: bool) -> None:
    """Check that ``text`` is a Jinja template that can be filled, and whose output does not depend on the date.

    Args:
        text: the template.
        marked: whether it must also mark the assistant's words.

    Raises:
        UserError: naming the template's line, or what to put around the assistant's words.
    """
    template = _compiled(text)
    for node in template.find_all(_FILES):
        raise UserError(
            f"line {node.lineno} reads another file (include, import or extends), and a chat template is one file; put "
            "the other's text in its place"
        )
    for name, line in _unknown_functions(template):
        raise UserError(
            f"line {line} uses {name}, which neither Jinja nor transformers gives a chat template; define it in the "
            "template, or replace it with fixed text"
        )
    if "strftime_now" in text and "macro strftime_now" not in text:
        raise UserError(
            "it writes the current date (strftime_now), so the same rows would become different tokens tomorrow; "
            "replace it with fixed text"
        )
    if marked and not _is_marked(template):
        raise UserError(
            "it does not mark what the assistant writes, so there would be nothing to train on; put the assistant's "
            "words and the end-of-turn token between {% generation %} and {% endgeneration %} (in a comment they mark "
            "nothing)"
        )


def _compiled(text: str) -> nodes.Template:
    """The parsed template, which also compiles: an unknown filter or a `break` outside a loop shows only then.

    Raises:
        UserError: it does not.
    """
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    try:
        jinja.compile(text)
        return jinja.parse(text)
    except TemplateSyntaxError as error:
        reason = (error.message or "").rstrip(".")
        raise UserError(f"line {error.lineno} is not valid Jinja: {reason}; fix the template") from None
    except SyntaxError as error:  # of the Python code that Jinja makes, whose lines are not the template's
        raise UserError(
            f"it is not valid Jinja: {error.msg}; fix the template (a break or continue within a generation block "
            "cannot leave a loop around it)"
        ) from None


def _unknown_functions(template: nodes.Template) -> Iterator[tuple[str, int]]:
    """Names that nobody defines and that the template calls or reads a part of, each with the line.

    A name that is also used plainly, as in `{% if tool_choice %}` or `x is defined`, may be optional: it is no fault.
    Nor is a tokenizer's special token, such as `eos_token`: which ones there are is not known here.
    """
    known = _GIVEN | set(ImmutableSandboxedEnvironment().globals) | _defined(template)
    parts: tuple[type[nodes.Call | nodes.Getattr | nodes.Getitem], ...] = (nodes.Call, nodes.Getattr, nodes.Getitem)
    fatal = [part.node for part in template.find_all(parts)]
    used = [node for node in template.find_all(nodes.Name) if node.ctx == "load" and node.name not in known]
    plain = {node.name for node in used if not any(node is base for base in fatal)}
    for node in used:
        if node.name not in plain and not node.name.endswith("_token"):
            yield node.name, node.lineno


def _defined(template: nodes.Template) -> set[str]:
    """The names that the template itself gives a value, anywhere."""
    stored = {node.name for node in template.find_all(nodes.Name) if node.ctx != "load"}
    return stored | {macro.name for macro in template.find_all(nodes.Macro)}


def _is_marked(template: nodes.Template) -> bool:
    calls = (block.call.node for block in template.find_all(nodes.CallBlock))
    return any(isinstance(called, nodes.ExtensionAttribute) and called.name == _MARK for called in calls)
