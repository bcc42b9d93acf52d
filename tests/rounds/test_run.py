"""Rounds of a noisy student on a tiny data set: what each leaves, when they end, and that a kill changes nothing."""

import contextlib
import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_bundles import write_sound
from tiny_clips import LABELS, RATE, call
from tiny_teachers import write_teacher

from birdinfer import Bundle
from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.evaluation.ablation import labelled_rows
from birdinfer.rounds import run as rounds_module
from birdinfer.rounds.callbacks import TABLE, RoundsCallback
from birdinfer.rounds.evaluate import Evaluated, Gain, gain_of
from birdinfer.rounds.run import RoundsSettings, run_rounds
from birdinfer.tables.pseudo_labels import read_pseudo_labels
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.recipe.toml import load_recipe, write_recipe


def name_of(index: int) -> str:
    """Two sites in turn, a day each."""
    return f"S{index % 2:02}_2025022{index}_010002"


def write_soundscapes(folder: Path, first: int, n_files: int) -> Path:
    """Files of four seconds, a call in each; and a truth beside them."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(first, first + n_files):
        name = name_of(index)
        order = [LABELS[(index + place) % 4] for place in range(4)]
        sound = np.concatenate([call(label, 1.0, 100 * index + place) for place, label in enumerate(order)])
        write_sound(folder / f"{name}.wav", sound, RATE)
        rows += [[f"{name}_{second + 1}", *(int(order[second] == label) for label in LABELS)] for second in range(4)]
    with (folder.parent / f"{folder.name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["row_id", *LABELS], *rows])
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory, plain_recipe, clips_dir):
    """One round after round 0, evaluated on three files that lie among the soundscapes, too."""
    place = tmp_path_factory.mktemp("rounds")
    (place / "tiny.toml").write_text(write_recipe(plain_recipe))
    sounds, evaluated = write_soundscapes(place / "sounds", 0, 5), write_soundscapes(place / "evaluated", 3, 3)
    return RoundsSettings(
        recipes=(place / "tiny.toml",), soundscapes=sounds, data=clips_dir, out=place / "out", n_rounds=1,
        judge_on=evaluated, truth=place / "evaluated.csv", folds=(0,), device="cpu", cache_dir=place / "cache",
        share=0.5, power=1.2, n_resamples=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(settings):
    return run_rounds(settings)


def test_a_round_trains_on_pseudo_labels_of_the_round_before(settings, finished):
    out = finished.out
    pseudo = read_pseudo_labels(out / "round1" / "pseudo")
    assert {window.filename for window in pseudo.windows} == {  # what is evaluated on gets none
        f"{name_of(index)}.wav" for index in range(3)
    }
    assert pseudo.teacher.bundle == Bundle.load(out / "round0" / "bundle").sha256()
    assert (pseudo.teacher.power, pseudo.teacher.families) == (1.2, ("cnn test_efficientnet",))
    recipe = load_recipe(out / "round1" / "run" / "recipe.toml")
    (source,) = recipe.data.sources
    assert (source.kind, source.share, source.same_family) == ("pseudo_labels", 0.5, True)
    assert not load_recipe(out / "round0" / "run" / "recipe.toml").data.sources
    # The record of round 1 holds no pseudo-labelled file, or none could be scored again.
    assert "@pseudo" not in (out / "round1" / "bundle" / "folds.csv").read_text()


def test_tables_and_the_best_bundle_are_written(finished):
    with (finished.out / TABLE).open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["round"], first["gain"], first["is_sure"]) == ("0", "", "yes")
    assert float(second["low"]) <= float(second["gain"]) <= float(second["high"])
    assert (second["is_sure"] == "yes") == (float(second["low"]) > 0)
    assert [first["best"], second["best"]].index("*") == finished.best
    kept, own = finished.out / "bundle", finished.out / f"round{finished.best}" / "bundle"
    assert (kept / "fold0.onnx").read_bytes() == (own / "fold0.onnx").read_bytes()
    Bundle.load(kept)


def test_rounds_that_are_there_are_continued_and_nothing_is_done_twice(settings, finished, monkeypatch):
    with pytest.raises(CheckpointError, match="--resume"):
        run_rounds(settings)
    with pytest.raises(CheckpointError, match="other recipes or settings"):
        run_rounds(replace(settings, share=0.4, resume=True))
    for name in ("train_folds", "export_run", "pseudo_label", "predict_to_csv"):
        monkeypatch.setattr(rounds_module, name, lambda *_: pytest.fail("again"))
    again = run_rounds(replace(settings, resume=True))
    assert [each.macro_auc for each in again.records] == [each.macro_auc for each in finished.records]


def test_thresholds_that_no_window_reaches_can_be_lowered_without_round_0_again(settings, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished.out / "round0", out / "round0")
    strict = replace(settings, out=out, keep=1.0, resume=True)
    own = {path: path.stat().st_mtime_ns for path in (out / "round0").rglob("*") if path.is_file()}
    (out / "rounds.json").write_bytes((finished.out / "rounds.json").read_bytes())
    with pytest.raises(ConfigError, match=r"--keep: is 1, no window reaches it .the highest is 0\.\d+. - lower it"):
        run_rounds(strict)
    again = run_rounds(replace(strict, keep=0.0))
    assert [each.macro_auc for each in again.records] == [each.macro_auc for each in finished.records]
    assert {path: path.stat().st_mtime_ns for path in own} == own
    with pytest.raises(CheckpointError, match="other recipes or settings"):  # round 1 is trained now
        run_rounds(replace(strict, keep=0.1))


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["train_folds", "export_run", "pseudo_label", "predict_to_csv"])
def test_a_killed_run_ends_with_the_same_bits(settings, finished, tmp_path, monkeypatch, at):
    """Killed just before a step, and just after it, of round 1; the same weights and scores come out."""
    killed, real = replace(settings, out=tmp_path / "killed"), getattr(rounds_module, at)
    calls = []

    def before(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return real(*arguments)

    def after(*arguments):
        real(*arguments)
        raise Killed

    for step, resume in ((before, False), (after, True)):
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(rounds_module, at, step)
            run_rounds(replace(killed, resume=resume))
    outcome = run_rounds(replace(killed, resume=True))
    for mine, theirs in zip(outcome.records, finished.records, strict=True):
        assert (mine.macro_auc, mine.gain) == (theirs.macro_auc, theirs.gain)
    for number in (0, 1):
        name = Path(f"round{number}") / "run" / "fold0" / "best.safetensors"
        ours, others = (load_checkpoint(folder / name).tensors for folder in (killed.out, finished.out))
        assert all((ours[key] == others[key]).all() for key in others)


def test_rounds_end_at_the_first_gain_that_is_not_sure(settings, tmp_path, monkeypatch):
    """Without any training: gains are given, and a bundle stands for each round."""
    gains = iter([Gain(0.05, 0.01, 0.09), Gain(0.02, -0.01, 0.05)])
    monkeypatch.setattr(rounds_module, "gain_of", lambda *_: next(gains))
    monkeypatch.setattr(rounds_module, "train_folds", lambda *_: {})
    taught = []

    def export(wanted, _):
        shutil.copytree(teacher, wanted.out)

    def label(bundle, *_):
        taught.append(bundle.folder.parent.name)
        return real(bundle, *_)

    real = rounds_module.pseudo_label
    monkeypatch.setattr(rounds_module, "export_run", export)
    monkeypatch.setattr(rounds_module, "pseudo_label", label)
    teacher, said = write_teacher(tmp_path / "given" / "teacher"), []

    class Lines(RoundsCallback):
        def on_message(self, line):
            said.append(line)

    outcome = run_rounds(replace(settings, out=tmp_path / "out", n_rounds=3, teacher=teacher), Lines())
    assert [record.is_sure for record in outcome.records] == [True, True, False]
    assert outcome.best == 1
    assert taught == ["given", "round1"]
    assert said[-1] == "round 2: the gain is not sure, round 1 is kept"


def test_all_recordings_of_a_site_are_held_out(settings):
    def held_out(**changes):
        return rounds_module._held_out(replace(settings, **changes))

    one_site = write_soundscapes(settings.soundscapes.parent / "one", 3, 1)
    assert held_out(judge_on=one_site) == {name_of(3)}
    assert held_out(judge_on=one_site, apart="site") == {name_of(1), name_of(3)}
    assert held_out() == {name_of(3), name_of(4)}
    # Recorders name their files alike: what lies in another folder is another recording.
    place = settings.soundscapes.parent / "alike"
    for site in ("a", "b"):
        write_soundscapes(place / "all" / site, 0, 1)
    write_soundscapes(place / "evaluated" / "a", 0, 1)
    assert held_out(judge_on=place / "evaluated", soundscapes=place / "all") == {f"a/{name_of(0)}"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truth": None}, "needs it"),
        ({"n_rounds": 0}, "at least 1"),
        ({"soundscapes": Path("nowhere")}, "is no folder"),
        ({"share": 0.99}, "--share"),
        ({"judge_on": None, "truth": None, "teacher": Path("b")}, "no out-of-fold clips"),
        ({"judge_on": None, "truth": None, "overrides": ("data.all_data=true",)}, "holds no clip out"),
    ],
)
def test_rounds_that_cannot_be_meant_are_refused(settings, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run_rounds(replace(settings, out=tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "rounds.json").exists()


def test_gain_is_paired_over_the_rows_that_both_have():
    rng = np.random.default_rng(0)
    truth = rng.random((40, 3)) < 0.4
    files = [f"f{row // 4}" for row in range(40)]
    names = tuple(f"{file}_{row}" for row, file in enumerate(files))
    good = Evaluated(names, labelled_rows(truth, files), truth + rng.normal(0, 0.3, truth.shape))
    bad = Evaluated(names, good.labelled, rng.random(truth.shape))
    gain = gain_of(bad, good, 200)
    assert gain.low > 0
    assert gain.gain == pytest.approx(good.macro_auc - bad.macro_auc)
    assert gain_of(good, good, 200) == Gain(0.0, 0.0, 0.0)
    assert not gain_of(good, good, 200).is_sure
    half = Evaluated(names[:20], labelled_rows(truth[:20], files[:20]), good.scores[:20])
    assert gain_of(bad, half, 200).gain == pytest.approx(
        half.macro_auc - Evaluated(names[:20], half.labelled, bad.scores[:20]).macro_auc
    )
