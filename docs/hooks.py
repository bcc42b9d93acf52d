"""What mkdocs does beside reading docs/: navigation, pages of other folders, and references read from the code.

A page that holds ``<!-- generated: NAME -->`` gets there what the function NAME of this module returns.
"""

import ast
import inspect
import itertools
import posixpath
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec
from mkdocs.structure.files import File

from birdinfer import _MODULES
from birdinfer.cli.app import COMMANDS, load_command
from birdinfer.cli.help import GROUPS
from birdinfer.inference.external.known_models import known_models
from birdinfer.postprocess.base import Step
from birdinfer.postprocess.steps import catalogue
from birdinfer.system.toml import toml_value
from birdinfer.training.recipe.reference import recipe_keys

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))
from docstrings import as_markdown  # noqa: E402
from pictures import PICTURES, draw_pictures  # noqa: E402

OTHERS = {
    "train/README.md": "recipes.md",
    "submission/README.md": "kaggle.md",
    "exports/README.md": "bundles.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files outside docs/ that are pages, too -> their names there."""
DRAWN = Path(tempfile.mkdtemp(prefix="birdinfer-pictures-"))
GENERATED = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    """Take the navigation from the tables of docs/README.md: a section for each heading, in their order."""
    config.nav = [{"Documents": "README.md"}, *navigation((ROOT / "docs" / "README.md").read_text())]
    return config


def navigation(index: str) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Yield a section with its pages for each heading of the index that has a table of pages."""
    for title, section in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", index, re.MULTILINE | re.DOTALL):
        pages = re.findall(r"^\| \[([^\]]+)\]\(([^)#]+)\) \|", section, re.MULTILINE)
        if pages:
            yield {title: [{name[:1].upper() + name[1:]: page_of("docs/README.md", path)} for name, path in pages]}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of other folders, and draw the gallery's pictures."""
    for path, name in OTHERS.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    draw_pictures(DRAWN)
    for picture in PICTURES:
        name = f"{picture.name}.png"
        files.append(File.generated(config, f"images/drawn/{name}", abs_src_path=str(DRAWN / name)))
    return files


def on_shutdown() -> None:
    """Remove the pictures, which are in the site now."""
    shutil.rmtree(DRAWN, ignore_errors=True)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in what is generated, and let links between folders lead to the pages of the site."""
    sources = {name: path for path, name in OTHERS.items()}
    path = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    linked = LINK.sub(lambda found: f"{found[1]}{page_of(path, found[2])}{found[3]}", markdown)
    return GENERATED.sub(lambda found: globals()[found[1]](), linked)


def page_of(source: str, link: str) -> str:
    """Return what a link of a file of the repository is in the site."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return OTHERS.get(path) or posixpath.relpath(path, "docs")


def commands() -> str:
    """Describe every command with its options, by groups, as ``birdinfer --help`` has them."""
    lines = []
    for group, names in GROUPS.items():
        lines.append(f"## {group}\n")
        for name in names:
            command = load_command(name)
            children = getattr(command, "commands", {})
            if children:
                lines += [f"### birdinfer {name}\n", COMMANDS[name] + "\n"]
            else:
                lines += _command(name, command, "###")
            for child_name, child in children.items():
                lines += _command(f"{name} {child_name}", child, "####")
    return "\n".join(lines)


def _command(name: str, command: Any, level: str) -> list[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join(["birdinfer", name, *(_metavar(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"{level} birdinfer {name}\n", f"```text\n{usage}\n```\n", command.help, ""]
    rows = [(_metavar(each), each.help or "", "") for each in arguments if each.help]
    rows += [(f"{', '.join(each.opts)} {_metavar(each)}".strip(), each.help or "", _default(each)) for each in options]
    if rows:
        lines += ["| | | left out |", "|---|---|---|"]
        lines += [f"| {_code(first)} | {_cell(text)} | {_code(default)} |" for first, text, default in rows]
    examples = (command.epilog or "").split("\n\n")[1:]
    return [*lines, "", "```bash", *examples, "```", ""] if examples else [*lines, ""]


def _metavar(parameter: Any) -> str:
    """What an option or argument takes: as its help names it, or its choices."""
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar is not None:
        return str(parameter.metavar)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper() + ("..." if parameter.nargs == -1 else "")
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    kinds = [each for each in (*get_args(annotation), annotation) if inspect.isclass(each) and issubclass(each, Enum)]
    return "|".join(str(each.value) for each in kinds[0]) if kinds else ""


def _default(parameter: Any) -> str:
    value = parameter.default
    if isinstance(value, Enum):
        value = value.value
    is_shown = isinstance(value, int | float | str | Path) and not isinstance(value, bool)
    return str(value) if is_shown else ""


def _code(text: str) -> str:
    return text and f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def keys() -> str:
    """List every key of a recipe, a table for each section."""
    lines, section = [], None
    for key in recipe_keys():
        head = key.name.rpartition(".")[0]
        if head != section:
            section = head
            title = "[[data.sources]]" if head == "data.sources" else f"[{head}]" if head else "top level"
            lines += ["", f"## {title}\n"]
            lines += ["| key and default | meaning, and what is allowed |", "|---|---|"]
        meaning = " ".join([key.meaning.replace("``", "`"), _code(key.allowed)]).strip()
        name = key.name.rpartition(".")[2]
        lines.append(f"| {_code(f'{name} = {key.default}')} | {_cell(meaning)} |")
    return "\n".join(lines)


def steps() -> str:
    """Describe every step of post-processing: its formula and source, its keys with defaults and ranges."""
    return "\n".join(line for name, kind in catalogue().items() for line in _step(name, kind))


def _step(name: str, kind: type[Step]) -> list[str]:
    meanings = _field_texts(kind)
    lines = [f"## {name}\n", inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0] + "\n"]
    lines += [f"{text}\n" for text in _formulas(kind)]
    lines += ["| key | default | range | |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        given = field.default if field.default is not msgspec.NODEFAULT else field.default_factory
        value = given() if callable(given) else given
        default = "needed" if value is msgspec.NODEFAULT else f"`{_cell(toml_value(msgspec.to_builtins(value)))}`"
        low_high = kind.ranges.get(field.name)
        allowed = f"{low_high[0]:g} to {low_high[1]:g}" if low_high else ""
        lines.append(f"| `{field.encode_name}` | {default} | {allowed} | {_cell(meanings.get(field.name, ''))} |")
    return [*lines, ""]


def _formulas(kind: type[Step]) -> Iterator[str]:
    """The docstrings of the functions that a step calls: these hold its formula; else that of its module."""
    module = sys.modules[kind.__module__]
    called = [
        node.func.id
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind.bind))))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.func.id.startswith("_")
    ]
    texts = [
        _prose(inspect.getdoc(function) or "")
        for name in dict.fromkeys(called)
        if inspect.isfunction(function := getattr(module, name, None)) and function.__module__ == module.__name__
    ]
    if not any("=" in text or "proportional" in text for text in texts):
        texts = [_prose(module.__doc__ or "")]
    # What a kernel is for follows its own formula in short.
    yield from [*texts[:1], *(text.partition("\n\n")[0] for text in texts[1:])]


def _prose(docstring: str) -> str:
    """A docstring's paragraphs without its examples and the shape that it returns."""
    text = as_markdown(docstring, with_examples=False)
    text = re.sub(r"^Returns \[.*?(?=\n\n|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    return text.replace("*", r"\*").replace("_", r"\_") if "`" not in text else text


def _field_texts(kind: type) -> dict[str, str]:
    """Field -> its docstring, of base classes, too."""
    found: dict[str, str] = {}
    for base in reversed([each for each in kind.__mro__ if each.__module__.startswith("birdinfer.")]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = str(text.value.value).replace("``", "`")  # type: ignore[union-attr]
    return found


def models() -> str:
    """Describe every public model that birdinfer knows."""
    lines = []
    for model in known_models().values():
        package, file = model.package, model.file
        published = f"{file.n_bytes or 0:,} bytes from its authors" if file.url else ""
        facts = {
            "species": model.n_labels or "none, or as its list has them",
            "input": f"{model.window_seconds:g} s at {model.sample_rate / 1000:g} kHz",
            "licence": f"{model.licence}: {model.terms}",
            "list of labels": model.labels,
            "activation": "found from its values" if model.activation == "auto" else model.activation,
            "comes from": f"`{package.install}`" if package else published,
            "SHA-256": file.sha256 and f"`{file.sha256[:16]}...`",
            "to do by hand": model.obstacle,
            "published at": f"<{model.page}>",
        }
        lines += [f"## {model.name}\n", f"{model.title}\n", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(str(fact))} |" for name, fact in facts.items() if fact]
        lines.append("")
    return "\n".join(lines)


def pictures() -> str:
    """Show every picture with its command and what can be seen in it."""
    return "\n".join(
        f"## {each.title}\n\n```bash\n{each.command}\n```\n\n{each.text}\n\n"
        f"![{each.title}](images/drawn/{each.name}.png)\n"
        for each in PICTURES
    )


def api() -> str:
    """List the public names for mkdocstrings, functions first, then classes, in alphabetical order."""
    order: Callable[[str], tuple[bool, str]] = lambda name: (name[0].isupper(), name.lower())  # noqa: E731
    return "\n\n".join(f"::: {_MODULES[name]}.{name}" for name in sorted(_MODULES, key=order))
