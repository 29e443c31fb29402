"""Prompts: messages with variables, in Jinja2 or Python's format syntax, checked before a version is made of them.

A prompt may have any variables; a release that pins it may not, until something fills them: the server (`FILLED`), the prompt's own
`defaults`, or the release's `variables`. Templates run in a sandbox and reach no attribute that begins with an underscore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from string import Formatter
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import PROMPT_CHARS, PROMPT_MESSAGES

ROLES = ("system", "developer", "user", "assistant")
SYNTAXES = ("jinja2", "fstring")
FILLED = ("question", "context", "history")
"""What the server fills for each call: the last user message, the numbered passages that were retrieved, the turns before."""
SETTINGS: dict[str, dict[str, tuple[type, ...]]] = {
    "retrieval": {"k": (int,), "mode": (str,), "min_score": (float, int)},
    "answer": {"sentences": (int,), "min_score": (float, int), "citations": (bool,), "refusal": (str,)},
}
MODES = ("hybrid", "text", "vector")


def checked(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt's manifest, complete: messages, syntax, the variables found in them, defaults, parameters, settings. Other keys are kept.

    BadInput names the message and what is wrong with it: a role there is none of, a template that does not parse, a setting that is unknown.
    """
    syntax = manifest.get("syntax") or "jinja2"
    if syntax not in SYNTAXES:
        raise BadInput(f"A prompt's syntax cannot be {syntax!r}.", f"Syntaxes: {', '.join(SYNTAXES)}.")
    messages = _messages(manifest.get("messages"))
    found: dict[str, None] = {}
    for number, message in enumerate(messages, 1):
        for text in _texts(message["content"]):
            found.update(dict.fromkeys(_variables(text, syntax, f"message {number} ({message['role']})")))
    more = {"defaults": _mapping(manifest, "defaults"), "parameters": _mapping(manifest, "parameters"), "settings": _mapping(manifest, "settings")}
    check_settings(more["settings"], "the prompt's settings")
    strange = [name for name in more["defaults"] if name not in found]
    if strange:
        raise BadInput(f"The prompt has a default for {strange[0]!r}, which no message uses.", f"Its variables: {', '.join(found) or 'none'}.")
    if not more["defaults"]:
        del more["defaults"]
    return {**manifest, "messages": messages, "syntax": syntax, "variables": list(found), **more}


def check_filled(manifest: Mapping[str, Any], given: Iterable[str] = ()) -> None:
    """BadInput, naming variable and message, where a prompt needs a variable that neither the server, its defaults nor `given` fill."""
    there = {*FILLED, *(manifest.get("defaults") or {}), *given}
    syntax = str(manifest.get("syntax") or "jinja2")
    for number, message in enumerate(manifest.get("messages") or (), 1):
        for text in _texts(message["content"]):
            where = f"message {number} ({message['role']})"
            for name in _variables(text, syntax, where):
                if name not in there and not _optional(text, syntax, name):
                    raise BadInput(
                        f"The prompt's variable {name!r} in {where} is filled by nothing.",
                        f'Filled for each call: {", ".join(FILLED)}. Give {name} a default in the prompt ("defaults": {{"{name}": ...}}) or a value in the '
                        f'release\'s params ("variables": {{"{name}": ...}}), or write {{{{ {name} | default("") }}}}.',
                    )


def renderer(manifest: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Callable[[Mapping[str, Any]], list[dict[str, Any]]]:
    """A function from values to the prompt's messages, filled. `given` wins over the prompt's defaults, and the call's values over both.

    The function raises BadInput, naming the message, where a template fails on its values.
    """
    syntax = str(manifest.get("syntax") or "jinja2")
    known = {**(manifest.get("defaults") or {}), **(given or {})}
    compiled = [(m["role"], [_compile(text, syntax) for text in _texts(m["content"])], m["content"]) for m in manifest["messages"]]

    def render(values: Mapping[str, Any]) -> list[dict[str, Any]]:
        full, made = {**known, **values}, []
        for number, (role, templates, content) in enumerate(compiled, 1):
            try:
                filled = [template(full) for template in templates]
            except Exception as error:
                raise BadInput(f"The prompt's message {number} ({role}) cannot be filled: {error}.", f"Given are: {', '.join(full)}.") from None
            made.append({"role": role, "content": filled[0] if isinstance(content, str) else _refilled(content, filled)})
        return made

    return render


def check_settings(settings: Mapping[str, Any], where: str = "the settings") -> None:
    """BadInput for a setting of retrieval or answer that is unknown, of a wrong type, or out of range."""
    for group, allowed in SETTINGS.items():
        values = settings.get(group)
        if values is None:
            continue
        if not isinstance(values, Mapping):
            raise BadInput(f"{where}: {group} must be an object, not {values!r}.", f"It may have: {', '.join(allowed)}.")
        for key, value in values.items():
            if key not in allowed:
                raise BadInput(f"{where}: {group} has no setting {key!r}.", f"It may have: {', '.join(allowed)}.")
            if not isinstance(value, allowed[key]) or (isinstance(value, bool) and bool not in allowed[key]):
                raise BadInput(f"{where}: {group}.{key} is {value!r}; a {allowed[key][0].__name__} is needed.")
            if key in ("k", "sentences") and not 1 <= value <= 100:
                raise BadInput(f"{where}: {group}.{key} is {value}; it must be from 1 to 100.")
            if key == "min_score" and not 0 <= value <= 1:
                raise BadInput(f"{where}: {group}.min_score is {value}; scores go from 0 to 1.")
            if key == "mode" and value not in MODES:
                raise BadInput(f"{where}: {group}.mode is {value!r}.", f"Modes: {', '.join(MODES)}.")


def _messages(messages: Any) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        messages = [{"role": "system", "content": messages}]
    if not isinstance(messages, Sequence) or not messages:
        raise BadInput("A prompt needs messages.", 'For example: {"messages": [{"role": "system", "content": "Answer from: {{ context }}"}]}')
    if len(messages) > PROMPT_MESSAGES:
        raise BadInput(f"A prompt of {len(messages)} messages; at most {PROMPT_MESSAGES} are allowed.")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str | list):
            raise BadInput(f"The prompt's message {number} needs a role and a content.", '{"role": "system", "content": "..."}')
        if message["role"] not in ROLES:
            raise BadInput(f"The prompt's message {number} has the role {message['role']!r}.", f"Roles: {', '.join(ROLES)}.")
        size = sum(len(text) for text in _texts(message["content"]))
        if size > PROMPT_CHARS:
            raise BadInput(f"The prompt's message {number} has {size} characters; at most {PROMPT_CHARS} are allowed.")
    return [dict(message) for message in messages]


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]


def _refilled(content: Sequence[Any], texts: Sequence[str]) -> list[Any]:
    left = iter(texts)
    return [{**part, "text": next(left)} if isinstance(part, Mapping) and isinstance(part.get("text"), str) else part for part in content]


def _mapping(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = manifest.get(key) or {}
    if not isinstance(value, Mapping):
        raise BadInput(f"The prompt's {key} must be an object, not {value!r}.")
    return dict(value)


@lru_cache(maxsize=1)
def _sandbox() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


def _variables(text: str, syntax: str, where: str) -> list[str]:
    """The variables of a template in the order they come; BadInput where it does not parse or reaches for what it may not."""
    if syntax == "fstring":
        return list(dict.fromkeys(_fields(text, where)))
    from jinja2 import TemplateError, meta, nodes

    try:
        _sandbox().from_string(text)
        tree = _sandbox().parse(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise BadInput(
            f"The prompt's {where} is not a Jinja2 template{f', line {line}' if line else ''}: {error}.",
            'Write a variable as {{ question }}; put braces that mean themselves between {% raw %} and {% endraw %}, or use syntax "fstring".',
        ) from None
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        name = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", "")
        if isinstance(name, str) and name.startswith("_"):
            raise BadInput(f"The prompt's {where} reaches for {name!r}.", "Templates may not use names that begin with an underscore.")
    if any(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise BadInput(f"The prompt's {where} includes another template.", "A prompt stands alone: copy the text in.")
    free = meta.find_undeclared_variables(tree)
    return list(dict.fromkeys(node.name for node in tree.find_all(nodes.Name) if node.name in free))


def _fields(text: str, where: str) -> Iterator[str]:
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise BadInput(f"The prompt's {where} is not a format string: {error}.", "Write a variable as {question}, and a brace as {{ or }}.") from None
    for _, name, spec, _ in parts:
        if name is None:
            continue
        if not name.isidentifier():
            raise BadInput(f"The prompt's {where} has the field {{{name}}}.", "A field is one plain name, such as {question}; a brace is {{ or }}.")
        yield name
        if spec:
            yield from _fields(spec, where)


def _optional(text: str, syntax: str, name: str) -> bool:
    """Whether a Jinja2 template does without a variable: it asks `is defined`, or has a `default` for it."""
    if syntax == "fstring":
        return False
    from jinja2 import nodes

    tree = _sandbox().parse(text)
    guarded = [f.node for f in tree.find_all(nodes.Filter) if f.name in ("default", "d")]
    guarded += [t.node for t in tree.find_all(nodes.Test) if t.name in ("defined", "undefined")]
    return any(isinstance(node, nodes.Name) and node.name == name for node in guarded)


def _compile(text: str, syntax: str) -> Callable[[Mapping[str, Any]], str]:
    if syntax == "fstring":
        list(_fields(text, "message"))
        return lambda values: text.format_map(values)
    if "{" not in text:
        return lambda values: text
    template = _sandbox().from_string(text)
    return lambda values: str(template.render(values))
