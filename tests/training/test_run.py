import csv
import hashlib
import json
import math
import re

import msgspec
import pytest
import torch
from tiny_clips import LABELS, write_clips

from birdinfer.cli import train as command
from birdinfer.cli.app import main
from birdinfer.cli.train import TrainingProgress
from birdinfer.errors import BirdinferError, CheckpointError, ConfigError, MissingExtraError, OutputError
from birdinfer.system.locks import locked
from birdinfer.training import run as run_module
from birdinfer.training.callbacks import FoldResult, FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EpochRow, load_checkpoint
from birdinfer.training.plan import debug
from birdinfer.training.recipe.schema import DataConfig
from birdinfer.training.recipe.toml import load_recipe, write_recipe
from birdinfer.training.run import Run, train_run
from birdinfer.training.run_log import score_text
from birdinfer.training.summary import summarise


class Recorder(TrainingCallback):
    def __init__(self):
        self.messages, self.results = [], []

    def on_message(self, line):
        self.messages.append(line)

    def on_fold_end(self, result, run=""):
        self.results.append(result)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, plain_recipe, clips_dir):
    """All three folds of a run."""
    run_dir, reporter = tmp_path_factory.mktemp("runs") / "tiny", Recorder()
    results = train_run(
        Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=run_dir, folds=None, device="cpu"), reporter
    )
    return run_dir, results, reporter


class TestTrain:
    def test_every_fold_leaves_its_files(self, finished):
        run_dir, results, _ = finished
        names = {"best.safetensors", "last.safetensors", "history.csv", "oof.csv", "metrics.json", "recipe.toml"} | {
            "classes.csv", "taxa.csv"
        }  # fmt: skip
        assert [result.fold for result in results] == [0, 1, 2]
        for fold in range(3):
            assert {path.name for path in (run_dir / f"fold{fold}").iterdir()} == names
            assert load_checkpoint(run_dir / f"fold{fold}" / "best.safetensors").fold == fold

    def test_folds_are_written_with_labels_as_text(self, finished):
        with (finished[0] / "folds.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["filename", "primary_label", "group", "fold"]
        assert {row["primary_label"] for row in rows} == set(LABELS)
        assert {row["fold"] for row in rows} == {"0", "1", "2"}

    def test_every_clip_is_validated_once(self, finished):
        names = []
        for fold in range(3):
            with (finished[0] / f"fold{fold}" / "oof.csv").open(newline="") as file:
                names += [row["filename"] for row in csv.DictReader(file)]
        assert len(names) == len(set(names)) == 24

    def test_metrics_and_summary(self, finished):
        run_dir, results, _ = finished
        metrics = json.loads((run_dir / "fold1" / "metrics.json").read_text())
        assert metrics["macro_auc"] == results[1].macro_auc
        assert metrics["n_training_clips"] + metrics["n_validation_clips"] == 24
        assert metrics["versions"]["torch"] == torch.__version__
        summary = json.loads((run_dir / "summary.json").read_text())
        assert summary["mean_macro_auc"] == pytest.approx(sum(result.macro_auc for result in results) / 3)
        assert summary["n_failed"] == 0

    def test_metrics_and_summary_say_where_and_by_what(self, finished, clips_dir):
        run_dir, results, _ = finished
        digest = hashlib.sha256((run_dir / "recipe.toml").read_bytes()).hexdigest()
        for name in ("summary.json", "fold2/metrics.json"):
            found = json.loads((run_dir / name).read_text())
            assert (found["run"], found["data"]) == (str(run_dir.resolve()), str(clips_dir.resolve()))
            assert (found["recipe"], found["recipe_sha256"]) == ("recipe.toml", digest)
        assert found["val_loss"] == results[2].val_loss > 0
        summary = json.loads((run_dir / "summary.json").read_text())
        for loss in ("train_loss", "val_loss"):
            assert summary[f"mean_{loss}"] == pytest.approx(sum(getattr(one, loss) for one in results) / 3)

    def test_each_fold_has_a_log(self, finished):
        logs = [(finished[0] / "logs" / f"fold{fold}.log").read_text() for fold in range(3)]
        assert "training on the CPU with" in logs[0]
        for fold, log in enumerate(logs):
            assert re.search(
                rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d fold {fold}: .* 0\.10 M parameters$", log, re.MULTILINE
            )
            assert re.search(r" epoch   1/1: loss .*, lr [\d.e-]+, .* GB\) \*$", log, re.MULTILINE)
            assert re.search(r" macro AUC .*, best epoch 1, ", log.splitlines()[-1])

    def test_the_recipe_reads_back(self, finished, plain_recipe):
        assert load_recipe(finished[0] / "fold0" / "recipe.toml") == plain_recipe

    def test_says_what_it_runs_on(self, finished):
        assert finished[2].messages[0].startswith("training on the CPU with")

    def test_what_is_there_is_not_touched(self, finished, plain_recipe, clips_dir):
        with pytest.raises(CheckpointError, match=r"fold0.*is already there - continue with --resume"):
            train_run(
                Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=finished[0], folds=(0,), device="cpu"),
            )

    def test_resuming_what_is_finished_says_so(self, finished, plain_recipe, clips_dir):
        reporter = Recorder()
        before = (finished[0] / "fold0" / "last.safetensors").stat().st_mtime_ns
        (result,) = train_run(
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=finished[0], folds=(0,), device="cpu", resume=True),
            reporter,
        )
        assert f"{finished[0] / 'fold0'} is finished already" in reporter.messages
        assert result == finished[1][0]
        assert (finished[0] / "fold0" / "last.safetensors").stat().st_mtime_ns == before

    def test_a_fold_that_another_process_trains_is_left_to_it(self, plain_recipe, clips_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(run_module, "_PATIENCE_SECONDS", 0.2)
        run, reporter = (
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(0,), device="cpu", resume=True),
            Recorder(),
        )
        with (
            locked(tmp_path / "fold0"),
            pytest.raises(OutputError, match=r"fold0: another process is at work there - wait for its end"),
        ):
            train_run(run, reporter)
        assert f"another process is at work in {tmp_path / 'fold0'}, waiting for it" in reporter.messages
        assert not list(tmp_path.glob("fold0/*.safetensors"))

    def test_resuming_with_another_recipe_is_refused(self, finished, plain_recipe, clips_dir):
        other = msgspec.structs.replace(plain_recipe, seed=9)
        with pytest.raises(CheckpointError, match="seed = 0, asked is 9"):
            train_run(
                Run(recipe=other, data_dir=clips_dir, run_dir=finished[0], folds=(0,), device="cpu", resume=True),
            )

    def test_other_data_is_refused(self, finished, plain_recipe, tmp_path):
        data = write_clips(tmp_path / "data", clips_per_label=3)
        with pytest.raises(CheckpointError, match=r"folds\.csv: 12 clips of .* are not in the data any more"):
            train_run(
                Run(recipe=plain_recipe, data_dir=data, run_dir=finished[0], folds=(0,), device="cpu", resume=True),
            )

    def test_a_fold_that_fails_does_not_stop_the_others(self, plain_recipe, clips_dir, tmp_path, monkeypatch):
        real = run_module.train_fold

        def fail_on_fold_1(job, *arguments):
            if job.number == 1:
                raise RuntimeError("CUDA out of memory\nTried to allocate")
            return real(job, *arguments)

        monkeypatch.setattr(run_module, "train_fold", fail_on_fold_1)
        results = train_run(
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path / "r", folds=None, device="cpu"),
        )
        assert [result.problem for result in results] == ["", "CUDA out of memory Tried to allocate", ""]
        assert json.loads((tmp_path / "r" / "summary.json").read_text())["n_failed"] == 1
        with pytest.raises(RuntimeError, match="out of memory"):
            train_run(
                Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path / "single", folds=(1,), device="cpu"),
            )

    def test_a_fold_that_does_not_exist(self, plain_recipe, clips_dir, tmp_path):
        with pytest.raises(ConfigError, match="is 3, the recipe has folds 0 to 2"):
            train_run(
                Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(3,), device="cpu"),
            )

    def test_folds_from_a_column_with_a_leak(self, plain_recipe, tmp_path):
        data = write_clips(tmp_path / "data", clips_per_label=3)
        table = (data / "train.csv").read_text().splitlines()
        rows = [f"{row.rsplit(',', 1)[0]},same author,{1 + index % 2}" for index, row in enumerate(table[1:])]
        (data / "train.csv").write_text("\n".join([f"{table[0]},my_fold", *rows]))
        recipe = msgspec.structs.replace(plain_recipe, data=DataConfig(n_folds=2, fold_column="my_fold", max_clips=9))
        reporter = Recorder()
        train_run(Run(recipe=recipe, data_dir=data, run_dir=tmp_path / "run", folds=(0,), device="cpu"), reporter)
        assert any("1 authors are on both sides of a fold" in line for line in reporter.messages)
        with (tmp_path / "run" / "folds.csv").open(newline="") as file:
            assert [row["fold"] for row in csv.DictReader(file)].count("-3") == 12 - 9

    def test_a_fold_left_without_clips_by_the_choice_of_a_few(self, plain_recipe, clips_dir, tmp_path):
        recipe = msgspec.structs.replace(plain_recipe, data=DataConfig(n_folds=3, max_clips=1))
        results = train_run(
            Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path / "all", folds=None, device="cpu"),
        )
        assert all("has no clips to" in result.problem for result in results)
        with pytest.raises(ConfigError, match="has no clips to"):
            train_run(
                Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path / "one", folds=(0,), device="cpu"),
            )


def test_summary_leaves_out_what_has_no_score(tmp_path):
    results = [
        FoldResult(fold=0, problem="", macro_auc=0.8),
        FoldResult(fold=1, problem="", macro_auc=0.9),
        FoldResult(fold=2, problem="failed"),
        FoldResult(fold=3),
    ]
    summary = summarise(results, tmp_path)
    assert summary["mean_macro_auc"] == pytest.approx(0.85)
    assert summary["std_macro_auc"] == pytest.approx(math.sqrt(0.005))
    assert summary["n_failed"] == 1
    assert summarise([FoldResult(fold=0)], tmp_path)["mean_macro_auc"] is None


def test_debug_is_the_same_recipe_on_less(plain_recipe):
    small = debug(plain_recipe)
    assert (small.name, small.data.max_clips, small.loop.epochs) == ("tiny-debug", 1_000, 2)
    assert small.model == plain_recipe.model


@pytest.mark.parametrize(("n_frozen", "expected"), [(0, 0), (1, 1), (8, 1), (29, 1), (30, 2)])
def test_debug_has_an_epoch_of_norms_that_move_unless_they_never_do(plain_recipe, n_frozen, expected):
    recipe = msgspec.structs.replace(
        plain_recipe,
        model=msgspec.structs.replace(plain_recipe.model, weights="before.safetensors"),
        optim=msgspec.structs.replace(plain_recipe.optim, frozen_norm_epochs=n_frozen),
        loop=msgspec.structs.replace(plain_recipe.loop, epochs=30),
    )
    assert debug(recipe).optim.frozen_norm_epochs == expected


class TestCommand:
    @pytest.fixture
    def arguments(self, plain_recipe, clips_dir, tmp_path):
        path = tmp_path / "tiny.toml"
        path.write_text(write_recipe(plain_recipe))
        return ["train", "--recipe", path, "--data", clips_dir, "--runs-dir", tmp_path / "runs", "--device", "cpu"]

    def test_trains_a_fold_and_says_so(self, birdinfer, arguments, tmp_path):
        code, out, err = birdinfer(*arguments, "--fold", "1", "--run", "mine", "--set", "optim.lr=1e-4")
        assert code == 0
        assert "mine/fold1: macro AUC" in out
        assert "epoch   1/1" in err
        assert load_checkpoint(tmp_path / "runs" / "mine" / "fold1" / "best.safetensors").recipe.optim.lr == 1e-4

    def test_quiet_debug(self, birdinfer, arguments, tmp_path):
        code, out, err = birdinfer(*arguments, "--debug", "--quiet")
        assert (code, err) == (0, "")
        assert "tiny-debug/fold0" in out
        assert len((tmp_path / "runs" / "tiny-debug" / "fold0" / "history.csv").read_text().splitlines()) == 1 + 2

    def test_all_folds_one_of_which_fails(self, birdinfer, arguments, monkeypatch):
        real = run_module.train_fold

        def fail_on_fold_1(job, *rest):
            if job.number == 1:
                raise ConfigError("augment.background_dir", "[gone]")
            return real(job, *rest)

        monkeypatch.setattr(run_module, "train_fold", fail_on_fold_1)
        code, out, err = birdinfer(*arguments, "--fold", "all")
        assert code == 3
        assert "fold 1 failed: augment.background_dir: [gone]" in err
        assert "over 2 folds, 1 failed" in out

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--fold", "two"], "--fold: is 'two'"),
            (["--run", "../elsewhere"], "is no name for a folder"),
            (["--set", "optim.lr=7"], "optim.lr: is 7"),
        ],
    )
    def test_refusals_are_one_line(self, birdinfer, arguments, more, words):
        code, out, err = birdinfer(*arguments, *more)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1

    def test_a_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setattr("birdinfer.cli.options.find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"birdinfer\[train\]"):
            command.train()


class TestProgressInATerminal:
    def test_bar_with_loss_score_and_speed(self, monkeypatch):
        import io

        from rich.console import Console

        screen = io.StringIO()
        monkeypatch.setattr(
            "birdinfer.cli.console.stderr",
            lambda: Console(file=screen, force_terminal=True, width=140, highlight=False),
        )
        with TrainingProgress(quiet=False) as progress:
            progress.on_fold_start(
                FoldStart(
                    fold=0,
                    n_training=10,
                    n_validation=5,
                    epochs=2,
                    steps_per_epoch=10,
                    first_step=5,
                    batch_size=4,
                    precision="bf16",
                )
            )
            progress.on_step(10, 0.25)
            progress.on_epoch_end(EpochRow(1, 0.25, 0.3, 0.75, 0.8, 0.5, 1e-3, 2.0, 0.1, 2_000.0), is_best=True)
            progress.on_step(20, 0.125)
            progress.on_fold_end(FoldResult(fold=0))
            progress.on_fold_end(FoldResult(fold=1, problem="no [bold] luck"))
        shown = screen.getvalue()
        for words in (
            "in bf16, resumed at step 5",
            "10% waiting for data, GPU 2.0 GB",
            "loss 0.1250, macro AUC 0.7500",
            "samples/s",
            "no [bold] luck",
        ):
            assert words in shown

    def test_a_score_that_does_not_exist_is_a_dash(self):
        assert score_text(None) == "-"


def test_default_recipe_is_used_where_it_is(monkeypatch, tmp_path, clips_dir):
    """Without --recipe: efficientnet_b0 of the working folder's train/, else the one that comes with birdinfer."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "train_run", lambda run, *_: seen.append((run.recipe.name, run.recipe.seed)) or [])
    for _ in range(2):
        with pytest.raises(SystemExit):
            main(["train", "--data", str(clips_dir)])
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / "efficientnet_b0.toml").write_text("seed = 1")
    assert seen == [("efficientnet_b0", 0), ("efficientnet_b0", 1)]


def test_of_several_recipes_a_failure_says_whose_it_is(monkeypatch, tmp_path, clips_dir, capsys):
    def train_or_fail(run, reporter, name):
        result = FoldResult(fold=0, problem="no luck" if run.recipe.name == "beta" else "")
        reporter.on_fold_end(result, name)
        return [result]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "train_run", train_or_fail)
    for name in ("alpha", "beta"):
        (tmp_path / f"{name}.toml").write_text("")
    with pytest.raises(SystemExit) as left:
        main(["train", "--recipe", "alpha.toml", "--recipe", "beta.toml", "--data", str(clips_dir), "--quiet"])
    assert left.value.code == 3
    assert capsys.readouterr().err == "beta, fold 0 failed: no luck\n"


def interrupted(*_):
    raise KeyboardInterrupt


class TestFoldsOfARunThatNeverCameToTrain:
    def begun(self, recipe, clips_dir, run_dir, monkeypatch):
        """A run whose folds are assigned and that was killed before its first checkpoint."""
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "open_source", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train_run(
                    Run(recipe=recipe, data_dir=clips_dir, run_dir=run_dir, folds=(0,), device="cpu"),
                )
        return (run_dir / "folds.csv").stat().st_mtime_ns

    def test_the_same_recipe_continues_with_them(self, plain_recipe, clips_dir, tmp_path, monkeypatch):
        """Two folds that are started at once must not pull folds.csv from under each other."""
        written = self.begun(plain_recipe, clips_dir, tmp_path / "r", monkeypatch)
        train_run(
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path / "r", folds=(1,), device="cpu"),
        )
        assert (tmp_path / "r" / "folds.csv").stat().st_mtime_ns == written

    def test_another_recipe_assigns_its_own(self, plain_recipe, clips_dir, tmp_path, monkeypatch):
        self.begun(plain_recipe, clips_dir, tmp_path / "r", monkeypatch)
        before = (tmp_path / "r" / "folds.csv").read_text()
        other = msgspec.structs.replace(plain_recipe, seed=7)
        train_run(Run(recipe=other, data_dir=clips_dir, run_dir=tmp_path / "r", folds=(0,), device="cpu"))
        assert (tmp_path / "r" / "folds.csv").read_text() != before


@pytest.mark.parametrize(
    ("section", "keys", "words"),
    [
        ("model", {"backbone": "efficientnet_b00"}, "timm knows no 'efficientnet_b00'"),
        ("model", {"family": "crnn"}, "'crnn' is unknown"),
        ("model", {"weights": "none.safetensors"}, "no such weights"),
        ("loss", {"name": "bbce"}, "'bbce' is unknown"),
        ("loop", {"amp": "fp16"}, "a CPU has none"),
        ("augment", {"background_dir": "none"}, "'none' is no folder"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_clips_are_read(section, keys, words, plain_recipe, tmp_path):
    """A night's search for duplicates must not end at a typing error."""
    wrong = msgspec.structs.replace(getattr(plain_recipe, section), **keys)
    recipe = msgspec.structs.replace(plain_recipe, **{section: wrong})
    with pytest.raises(BirdinferError, match=words):
        train_run(
            Run(
                recipe=recipe, data_dir=tmp_path / "no data at all", run_dir=tmp_path / "run", folds=(0,), device="cpu"
            ),
        )
    assert not (tmp_path / "run").exists()


def test_folds_that_are_trained_one_by_one_are_summed_up_together(plain_recipe, clips_dir, tmp_path):
    for fold in (1, 0):
        (result,) = train_run(
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(fold,), device="cpu"),
        )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == [0, 1]
    assert summary["folds"][0]["macro_auc"] == result.macro_auc
