"""Documents: links that resolve, tables that are complete, a README on a screen and a half."""

import re
from pathlib import Path

import pytest

from birdinfer.audio.status import Status

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")], key=lambda path: path.as_posix()
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(page):
    text = re.sub(r"^(    |```).*?$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE)
    links = [target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for path, _, anchor in links:
        assert (page.parent / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (page.parent / path if path else page).read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


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
