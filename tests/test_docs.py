"""Documents: links that resolve, tables that are complete, a README on a screen and a half."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from birdinfer.audio.status import Status
from birdinfer.detections import clips, similar
from birdinfer.detections.formats import csv, kaleidoscope, parquet, raven
from birdinfer.inference.embeddings import INDEX_COLUMNS, RECORDINGS_COLUMNS
from birdinfer.training.recipe.reference import recipe_keys
from birdinfer.version import __version__

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")], key=lambda path: path.as_posix()
)


def anchor_of(heading):
    """The name by which a link finds a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(page):
    text = re.sub(r"^(    |```).*?$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE)
    links = [target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for path, _, anchor in links:
        assert (page.parent / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (page.parent / path if path else page).read_text(), re.MULTILINE)
            assert anchor in map(anchor_of, headings)


def test_every_page_stands_in_the_list_of_documents():
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text()))
    assert listed == {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}


def test_readme_fits_a_screen_and_a_half_and_has_a_picture():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 5_000
    assert re.search(r"!\[[^\]]{20,}\]\(docs/images/", text)


def test_predict_explains_every_status():
    text = (ROOT / "docs" / "predict.md").read_text()
    assert re.findall(r"^\| `([\w -]+)` \|", text, re.MULTILINE) == [status.value for status in Status]


LOOKED_FOR = {
    "export to Raven": "Selection Table|`raven`",
    "what `status` means": "`truncated`",
    "which key sets mixup": "mixup_probability",
    "run BirdNET": "birdinfer models get birdnet-2.4",
    "resume a run": "--resume",
    "what INT8 costs": "macro AUC, fp32",
}
"""What a reader looks for -> what stands where the list of documents sends him."""


@pytest.mark.parametrize("what", LOOKED_FOR)
def test_the_list_of_documents_leads_to_what_is_looked_for(what):
    index = (ROOT / "docs" / "README.md").read_text()
    line = rf"^\| {re.escape(what)} \| \[[^\]]+\]\(([\w.]+)#?([\w-]*)\) \|"
    (path, anchor), *others = re.findall(line, index, re.MULTILINE)
    assert not others
    sections = re.split(r"^(?=#+ )", (ROOT / "docs" / path).read_text(), flags=re.MULTILINE)
    of_anchor = [each for each in sections if not anchor or anchor_of(each.partition("\n")[0].lstrip("# ")) == anchor]
    assert re.search(LOOKED_FOR[what], "".join(of_anchor))


def test_every_module_of_pictures_is_in_the_gallery():
    """Some are drawn by the commands that are run there."""
    commands = {
        "ablation": '"score"',
        "detections": '"detect"',
        "reliability": '"calibrate"',
        "soundscape": '"--plots"',
    }
    drawn = (ROOT / "docs" / "pictures.py").read_text()
    modules = {path.stem for path in ROOT.glob("birdinfer/plots/*.py")} - {"__init__", "style"}
    assert {name for name in modules if commands.get(name, f"birdinfer.plots.{name} import") not in drawn} == set()


def test_outputs_explains_every_column():
    text = " ".join((ROOT / "docs" / "outputs.md").read_text().split())
    tables = (csv.COLUMNS, kaleidoscope.COLUMNS, parquet.COLUMNS, raven.COLUMNS, clips.COLUMNS, similar.COLUMNS)
    columns = {name for names in (*tables, INDEX_COLUMNS, RECORDINGS_COLUMNS) for name in names}
    assert {name for name in columns if f"`{name}`" not in text} == set()


def test_every_key_of_a_recipe_has_a_meaning():
    assert [key.name for key in recipe_keys() if not key.meaning] == []


def test_recipe_keys_names_the_keys_of_mixup():
    text = (ROOT / "docs" / "recipe_keys.md").read_text()
    keys = [key.name for key in recipe_keys("mixup") if key.name.startswith("augment.mixup")]
    assert re.findall(r"`(augment\.mixup\w+)`", text) == keys


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_no_other_server(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"commands.html", "steps.html", "recipes.html"} <= {page.name for page in pages}
    for page in pages:
        fetched = re.findall(r"<(?:script|img|iframe)[^>]* src=\W?https?:|<link[^>]* href=\W?https?:", page.read_text())
        assert fetched == [], page
    assert '<h3 id="birdinfer-predict">' in (tmp_path / "site" / "commands.html").read_text()
    assert "mixup_probability" in (tmp_path / "site" / "recipe_keys.html").read_text()
    assert "PredictionSettings" in (tmp_path / "site" / "api.html").read_text()
    assert max(path.stat().st_size for path in (tmp_path / "site").rglob("*.png")) < 500_000


def test_the_citation_names_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
