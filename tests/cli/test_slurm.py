"""``--cluster slurm`` of train and tune: what is submitted, what is printed, what is refused; no SLURM is needed."""

import shlex
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from tiny_clips import TINY_FRONTEND, write_clips

from birdinfer.training.launch.slurm import JobArray, submit_all
from birdinfer.training.recipe.schema import DataConfig, LoopConfig, ModelConfig, Recipe
from birdinfer.training.recipe.toml import load_recipe, write_recipe

PROGRAM = [sys.executable, "-m", "birdinfer"]
PROGRAMS = {"sinfo": "echo birds", "squeue": "", "scancel": 'echo "$@" >> cancelled'}
SBATCH = 'printf "%s\\n" "$@" > said$((n = $(cat n 2>/dev/null || echo 0) + 1)); echo $n > n; echo 4$n'
RECIPE = Recipe(
    name="tiny",
    data=DataConfig(n_folds=3),
    frontend=TINY_FRONTEND,
    model=ModelConfig(backbone="test_efficientnet", pretrained=False),
    loop=LoopConfig(batch_size=4),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), clips_per_label=3)


@pytest.fixture
def place(tmp_path, clips, monkeypatch):
    """Where commands are typed: two recipes, a space, clips; and no SLURM."""
    (tmp_path / "data").symlink_to(clips)
    (tmp_path / "a.toml").write_text(write_recipe(RECIPE))
    (tmp_path / "b.toml").write_text(write_recipe(msgspec.structs.replace(RECIPE, name="other")))
    (tmp_path / "space.toml").write_text("[optim.lr]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return tmp_path


@pytest.fixture
def slurm(place, monkeypatch):
    """Small scripts in the place of SLURM; sbatch notes its words in said1, said2, ..."""
    monkeypatch.setenv("PATH", f"{place / 'programs'}:/bin")
    (place / "programs").mkdir()
    for name, line in {**PROGRAMS, "sbatch": SBATCH}.items():
        (place / "programs" / name).write_text(f"#!/bin/bash\n{line}\n")
        (place / "programs" / name).chmod(stat.S_IRWXU)
    return place


def submissions(shell):
    """The words of each sbatch in a printed script."""
    lines = [line for line in shell.splitlines() if line.startswith("job=$(")]
    return [shlex.split(line.removeprefix("job=$(").removesuffix(")")) for line in lines]


class TestPrint:
    def test_shows_an_array_of_folds_and_leaves_nothing(self, place, birdinfer):
        code, printed, errors = birdinfer(
            "train", "--recipe", "a.toml", "--fold", "0,2", "--set", "optim.lr=0.1", "--runs-dir", "my runs",
            "--cache-dir", "c", "--cluster", "slurm", "--partition", "birds", "--gres", "gpu:1", "--print",
        )  # fmt: skip
        assert (code, errors) == (0, "")
        (words,) = submissions(printed)
        assert {"--array=0,2", "--job-name=tiny", "--partition=birds", "--gres=gpu:1"} <= set(words)
        assert words[words.index("my runs/tiny/logs/fold.sbatch") + 1 :] == [
            *PROGRAM, "train", "--recipe", "my runs/tiny/recipe.toml", "--name", "tiny", "--runs-dir", "my runs",
            "--data", "data", "--cache-dir", "c",
        ]  # fmt: skip
        assert sorted(path.name for path in place.iterdir()) == ["a.toml", "b.toml", "data", "space.toml"]

    def test_shows_the_recipe_that_jobs_will_train_whatever_becomes_of_the_file(self, place, birdinfer):
        words = ("train", "--recipe", "a.toml", "--set", "optim.lr=0.1", "--cluster", "slurm", "--print")
        printed = birdinfer(*words)[1]
        text = printed.split("cat > runs/tiny/recipe.toml <<'END'\n")[1].split("\nEND\n")[0]
        (place / "frozen.toml").write_text(text)
        assert load_recipe(place / "frozen.toml") == load_recipe(place / "a.toml", ["optim.lr=0.1"])

    def test_several_recipes_are_an_array_each(self, place, birdinfer):
        printed = birdinfer(
            "train", "--recipe", "a.toml", "--recipe", "b.toml", "--fold", "all", "--cluster", "slurm", "--print"
        )[1]
        assert [words[words.index("--name") + 1] for words in submissions(printed)] == ["tiny", "other"]
        assert all("--array=0-2" in words for words in submissions(printed))
        assert "dependency" not in printed

    def test_debug_is_one_small_fold(self, place, birdinfer):
        (words,) = submissions(birdinfer("train", "--recipe", "a.toml", "--debug", "--cluster", "slurm", "--print")[1])
        assert "--array=0" in words
        assert "--debug" not in words  # the recipe that it makes is what is trained
        assert words[words.index("--name") + 1] == "tiny-debug"

    def test_several_processes_have_a_script_of_their_own(self, place, birdinfer):
        printed = birdinfer(
            "train", "--recipe", "a.toml", "--cluster", "slurm", "--nodes", "2", "--processes", "2", "--print"
        )[1]
        assert {"--nodes=2", "--ntasks-per-node=2"} <= set(submissions(printed)[0])
        assert "MASTER_ADDR" in printed

    def test_a_template_of_ones_own_is_filled_in(self, place, birdinfer):
        (place / "my.sbatch").write_text("#!/bin/zsh\n@@{setup}\nsrun mine\n")
        words = ("train", "--recipe", "a.toml", "--cluster", "slurm", "--template", "my.sbatch", "--print")
        printed = birdinfer(*words, "--setup", "module load a", "--setup", "module load b")[1]
        assert "#!/bin/zsh\nmodule load a\nmodule load b\nsrun mine\nEND\n" in printed


class TestSubmit:
    WORDS = ("train", "--recipe", "a.toml", "--quiet", "--cluster", "slurm")

    def test_folds_are_assigned_and_the_recipe_is_written_before_jobs_wait(self, slurm, birdinfer):
        code, printed, errors = birdinfer(*self.WORDS, "--fold", "all")
        assert (code, errors) == (0, "")
        assert printed.startswith("runs/tiny: job 41, folds 0, 1, 2\n")
        run_dir = slurm / "runs" / "tiny"
        assert (run_dir / "folds.csv").is_file()
        assert load_recipe(run_dir / "recipe.toml") == RECIPE
        assert (run_dir / "logs" / "fold.sbatch").is_file()

    def test_all_runs_are_submitted_or_none(self, slurm, birdinfer):
        with (slurm / "programs" / "sbatch").open("a") as file:
            file.write("[[ $n == 1 ]] || { echo 'sbatch: error: Job violates limit' >&2; exit 1; }\n")
        code, printed, errors = birdinfer(*self.WORDS, "--recipe", "b.toml")
        assert (code, printed, errors) == (2, "", "birdinfer: sbatch: Job violates limit\n")
        assert (slurm / "cancelled").read_text() == "41\n"

    def test_what_cannot_be_trained_is_not_submitted(self, slurm, birdinfer):
        code, _, errors = birdinfer(*self.WORDS, "--recipe", "b.toml", "--set", "model.backbone=sparrownet")
        assert (code, len(errors.splitlines())) == (2, 1)
        assert "sparrownet" in errors
        assert not (slurm / "n").exists()

    def test_a_fold_that_the_recipe_does_not_have_is_refused(self, slurm, birdinfer):
        code, _, errors = birdinfer(*self.WORDS, "--fold", "3")
        assert (code, errors) == (2, "birdinfer: --fold: is 3, the recipe has folds 0 to 2\n")


def test_of_two_that_submit_the_same_at_once_one_does(slurm):
    array = JobArray(
        name="tiny", folder=slurm / "runs" / "tiny", kind="fold", tasks=(0,), script="#!/bin/bash\n",
        command=("birdinfer",),
    )  # fmt: skip
    (slurm / "programs" / "squeue").write_text("#!/bin/bash\n[[ ! -e queued ]] || cat queued\n")
    queue = f"sleep 0.3; echo '41|0|tiny|{array.mark}' > queued; echo 41"
    (slurm / "programs" / "sbatch").write_text(f"#!/bin/bash\n{queue}\n")
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(submit_all, [array]) for _ in range(2)]
    (refused,) = [one.exception() for one in both if one.exception()]
    assert "fold 0 is in the queue already, as 41_0" in str(refused)
    assert [each.job for one in both if not one.exception() for each in one.result()] == ["41"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--cluster", "pbs"), "--cluster: is 'pbs', allowed is slurm"),
        (("--partition", "gpu"), "--partition: is for jobs of a cluster - add --cluster slurm, or leave it out"),
        (("--print",), "--print: is for jobs of a cluster"),
        (("--processes", "2"), "--processes: is for jobs of a cluster"),
        (("--cluster", "slurm", "--devices", "0,1"), "--devices: is for this machine, --cluster for another"),
        (("--cluster", "slurm"), "--cluster: is slurm, there is no sbatch here - run it on a login node"),
        (("--cluster", "slurm", "--time", "1"), "--time: is 1, 60 s; two minutes of it go to saving"),
        (("--cluster", "slurm", "--sbatch", "array=1"), "--sbatch: is 'array=1'; birdinfer itself sets array"),
        (("--cluster", "slurm", "--template", "no.sbatch"), "no.sbatch: no such template"),
        (("--cluster", "slurm", "--processes", "3"), "loop.batch_size: is 4, 3 processes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(place, birdinfer, options, error):
    code, printed, errors = birdinfer("train", "--recipe", "a.toml", *options)
    assert (code, printed, len(errors.splitlines())) == (2, "", 1)
    assert f"birdinfer: {error}" in errors
    assert not (place / "runs").exists()


def test_processes_of_torchrun_submit_nothing(place, birdinfer, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, errors = birdinfer("train", "--recipe", "a.toml", "--cluster", "slurm", "--print")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "--cluster: was given to torchrun, each process would submit - use --processes instead" in errors


class TestSearch:
    WORDS = ("tune", "--recipe", "a.toml", "--space", "space.toml", "--trials", "8", "--cluster", "slurm")

    def test_workers_share_a_study_and_the_best_is_trained_after_them(self, place, birdinfer):
        code, printed, errors = birdinfer(
            *self.WORDS, "--workers", "4", "--then-train", "all", "--device", "cpu", "--print"
        )
        assert (code, errors) == (0, "")
        workers, folds = submissions(printed)
        assert "--array=0-3" in workers
        assert workers[workers.index("runs/tiny-tune/logs/worker.sbatch") + 1 :] == [
            *PROGRAM, "tune", "--recipe", "runs/tiny-tune/recipe.toml", "--space", "runs/tiny-tune/space.toml",
            "--study", "tiny-tune", "--runs-dir", "runs", "--data", "data", "--fold", "0", "--trials", "8",
            "--repeats", "1", "--sampler", "tpe",
            "--pruner", "halving", "--seed", "0", "--storage", "journal", "--device", "cpu",
        ]  # fmt: skip
        assert {"--array=0-2", "--dependency=afterok:$job", "--kill-on-invalid-dep=yes"} <= set(folds)
        assert folds[folds.index("runs/tiny-tune-best/logs/fold.sbatch") + 1 :] == [
            *PROGRAM, "train", "--recipe", "runs/tiny-tune/best.toml", "--name", "tiny-tune-best",
            "--runs-dir", "runs", "--data", "data", "--device", "cpu",
        ]  # fmt: skip

    def test_the_second_job_waits_for_the_number_of_the_first(self, slurm, birdinfer):
        code, printed, _ = birdinfer(*self.WORDS, "--then-train", "0,1", "--quiet")
        assert code == 0
        assert printed.splitlines()[-1] == "squeue -j 41,42 shows them, scancel 41 42 ends them"
        assert "--array=0-1" in (slurm / "said2").read_text().splitlines()
        assert "--dependency=afterok:41" in (slurm / "said2").read_text().splitlines()

    @pytest.mark.parametrize(
        "options",
        [
            ("--partition", "bats"), ("--time", "1"), ("--template", "no.sbatch"), ("--devices", "cpu,cpu"),
            ("--then-train", "3"), ("--workers", "0"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_submitted_begins_no_study(self, slurm, birdinfer, options):
        code, printed, errors = birdinfer(*self.WORDS, "--quiet", *options)
        assert (code, printed, len(errors.splitlines())) == (2, "", 1)
        assert not (slurm / "runs").exists()

    def test_a_study_that_cannot_be_begun_is_not_submitted(self, slurm, birdinfer):
        code, _, errors = birdinfer(*self.WORDS, "--quiet", "--set", "model.backbone=sparrownet")
        assert (code, len(errors.splitlines())) == (2, 1)
        assert not (slurm / "n").exists()

    def test_a_search_alone_is_followed_by_nothing(self, place, birdinfer):
        assert len(submissions(birdinfer(*self.WORDS, "--print")[1])) == 1

    def test_the_best_of_an_earlier_search_is_not_trained_over(self, slurm, birdinfer):
        last = slurm / "runs" / "tiny-tune-best" / "fold0" / "last.safetensors"
        last.parent.mkdir(parents=True)
        last.touch()
        code, _, errors = birdinfer(*self.WORDS, "--then-train", "0", "--quiet")
        assert (code, len(errors.splitlines())) == (2, 1)
        assert "last.safetensors: is already there, of an earlier search" in errors
        assert not (slurm / "n").exists()

    def test_a_template_is_one_for_workers_and_not_for_the_folds_after_them(self, place, birdinfer):
        (place / "my.sbatch").write_text("#!/bin/zsh\nsrun mine\n")
        printed = birdinfer(*self.WORDS, "--template", "my.sbatch", "--then-train", "0", "--print")[1]
        workers, folds = printed.split("cat > ")[-2:]
        assert "#!/bin/zsh\nsrun mine\nEND\n" in workers
        assert 'srun "$@" --fold "$SLURM_ARRAY_TASK_ID" --resume' in folds
