"""Docstrings as Markdown, for mkdocstrings: roles as code, examples as blocks."""

import inspect
import re
from typing import Any

from griffe import Extension


def as_markdown(docstring: str, *, with_examples: bool = True) -> str:
    """Return a docstring whose own markup is Markdown's, with its examples in blocks or without them."""
    text = inspect.cleandoc(docstring)
    block = (lambda found: f"```pycon\n{found[0].strip()}\n```") if with_examples else ""
    text = re.sub(r"^>>> .*?(?=\n\n|\Z)", block, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r":\w+:`~?\.?([\w.]+)`", lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    text = re.sub(r"^::\n\n|::(?=\n\n)", lambda found: "" if found[0].endswith("\n") else ":", text, flags=re.MULTILINE)
    return re.sub(r"``([^`\n]+)``(?!`)", r"`\1`", text).strip()


class Markdown(Extension):
    """Rewrites every docstring that is shown."""

    def on_instance(self, *, obj: Any, **options: Any) -> None:
        """Called by griffe for each module, class, function and attribute, once it is read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
