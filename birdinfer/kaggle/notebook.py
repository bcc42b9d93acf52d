"""The notebook that runs on Kaggle: a competition and a few settings -> birdinfer.ipynb, and the same as a script.

The cells are text in ``notebook_cells.txt``, in the percent format (``# %%`` begins a cell); this module writes the
settings, as the first code cell. Notebook and script are therefore one program, and a test runs what Kaggle runs. The
first cells need only the standard library, because they install birdinfer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.kaggle.competitions import Competition
from birdinfer.system.files import write_atomic

ENGINE_WHEELS = {"cpu": "onnxruntime-", "openvino": "openvino-"}
"""Extra of birdinfer -> prefix of the wheel that it needs: packed wheels decide which extras are installed."""
PUBLIC_FILES = 16  # of the public run: four rounds on Kaggle's four cores, of which the forecast uses three
_TEMPLATE = Path(__file__).with_name("notebook_cells.txt")
_MARK = "# %%"


@dataclass(frozen=True, kw_only=True, slots=True)
class NotebookSettings:
    """What a notebook does."""

    competition: Competition
    budget_minutes: float  # for the whole notebook: the competition's limit minus a margin
    engine: str  # as ``birdinfer predict --engine`` takes it
    options: tuple[str, ...] = ()  # further options of ``birdinfer predict``: ``("--overlap", "2.5")``


class Cell(NamedTuple):
    """One cell."""

    kind: Literal["markdown", "code"]
    source: str  # without a line end behind the last line


def cells(settings: NotebookSettings) -> list[Cell]:
    """Return the cells in order: heading, settings, those of the template; ConfigError for an impossible budget."""
    limit = settings.competition.minutes_limit
    if not 0 < settings.budget_minutes <= limit:
        what = f"is {settings.budget_minutes:g}, {settings.competition.slug} allows {limit} minutes"
        raise ConfigError("budget_minutes", what, "leave some minutes to spare")
    heading = (
        f"# birdinfer: {settings.competition.slug}\n\n"
        "Two inputs: the competition, and the data set with the bundle (`manifest.json`, `*.onnx`) and the wheels.\n"
        f"Internet off, accelerator none. The competition allows {limit} minutes."
    )
    own = [Cell("markdown", heading), Cell("code", _settings_source(settings))]
    return own + _parsed(_TEMPLATE.read_text(encoding="utf-8"))


def write_notebook(path: Path, settings: NotebookSettings) -> None:
    """Write the notebook (nbformat 4.5), without outputs, atomically."""
    notebook = {
        "cells": [_as_json(index, cell) for index, cell in enumerate(cells(settings))],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    write_atomic(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def write_script(path: Path, settings: NotebookSettings) -> None:
    """Write the same cells as a Python script in the percent format, atomically."""
    write_atomic(path, "\n\n".join(_as_script(cell) for cell in cells(settings)) + "\n")


def code_of(notebook: Path) -> str:
    """Join the code cells of any notebook into one script.

    Raises ConfigError if it is none, or has lines that only Jupyter understands (``!pip``, ``%matplotlib``).
    """
    if not notebook.is_file():
        raise InputNotFoundError(notebook, "is missing", "birdinfer kaggle pack makes it")
    try:
        found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = "\n\n".join("".join(cell["source"]) for cell in found if cell["cell_type"] == "code")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(notebook, "is no notebook", "pack again") from error
    magic = next((line for line in code.splitlines() if line.lstrip().startswith(("!", "%"))), None)
    if magic is not None:
        raise ConfigError(notebook, f"{magic.strip()!r} needs Jupyter", "use subprocess.run")
    return code + "\n"


def _settings_source(settings: NotebookSettings) -> str:
    competition = settings.competition
    values: dict[str, object] = {
        "COMPETITION": competition.slug,
        "YEAR": competition.year,
        "SAMPLE_NAME": competition.sample_name,
        "TEST_FOLDER": competition.test_folder,
        "TRAIN_FOLDER": competition.train_folder,
        "N_HIDDEN_FILES": competition.n_hidden_files,
        "HIDDEN_FILE_SECONDS": competition.hidden_file_seconds,
        "PUBLIC_FILES": PUBLIC_FILES,
        "ENGINE_WHEELS": ENGINE_WHEELS,
        "BUDGET_MINUTES": settings.budget_minutes,
        "ENGINE": settings.engine,
        "OPTIONS": list(settings.options),
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join(["import time", "", "BEGAN = time.monotonic()  # the whole notebook counts", *lines])


def _parsed(text: str) -> list[Cell]:
    parsed = []
    for piece in f"\n{text}".split(f"\n{_MARK}")[1:]:
        mark, _, body = piece.partition("\n")
        if mark.strip() == "[markdown]":
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            parsed.append(Cell("markdown", "\n".join(lines)))
        else:
            parsed.append(Cell("code", body.strip()))
    return parsed


def _as_script(cell: Cell) -> str:
    if cell.kind == "code":
        return f"{_MARK}\n{cell.source}"
    return "\n".join([f"{_MARK} [markdown]", *(f"# {line}".rstrip() for line in cell.source.splitlines())])


def _as_json(index: int, cell: Cell) -> dict[str, object]:
    source = cell.source.splitlines(keepends=True)
    common: dict[str, object] = {"cell_type": cell.kind, "id": f"cell-{index:02d}", "metadata": {}, "source": source}
    return common | ({"execution_count": None, "outputs": []} if cell.kind == "code" else {})
