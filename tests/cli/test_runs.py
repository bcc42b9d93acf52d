"""``birdinfer runs``, in this process."""

import pytest
from tiny_runs import epochs, write_run

from birdinfer.system.toml import write_toml


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, auc in zip(("first", "second"), (0.5, 0.75), strict=True):
        write_run(tmp_path / "runs" / name, [epochs(auc)])
        (tmp_path / "runs" / name / "recipe.toml").write_text(write_toml({"name": name, "optim": {"lr": auc / 100}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_compared_and_a_score_is_noted(birdinfer, folder):
    pytest.importorskip("matplotlib")
    code, out, _ = birdinfer("runs", "--note", "first", "--public", "0.875", "--text", "one [of] them")
    assert code == 0
    assert " ".join(out.split()) == "runs/first: public 0.8750, one [of] them; macro AUC of its folds 0.5000"
    code, out, err = birdinfer("runs", "--sort", "score", "-o", "table.csv", "--plot", "runs.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert next(line for line in lines if "first" in line).split() == [
        "first", "0/1", "1", "0.5000", "0.5000", "-", "0.8750", "-"
    ]  # fmt: skip
    assert "  second: optim.lr=0.0075" in lines
    assert (folder / "table.csv").read_text().startswith("run,folds,finished,")
    assert (folder / "runs.png").read_bytes().startswith(b"\x89PNG")
    assert birdinfer("runs", "-o", "-")[1] == (folder / "table.csv").read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--public", "0.5"], "name its run with --note"),
        (["--note", "third", "--public", "0.5"], "third: no such run"),
        (["--sort", "luck"], "allowed are name, score, public, trained"),
        (["nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(birdinfer, folder, words, problem):
    code, _, err = birdinfer("runs", *words)
    assert code == 2
    assert problem in " ".join(err.split())
