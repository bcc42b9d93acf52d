import json
import sys

import pytest
from made_wheels import write_wheel
from make_bundles import LABELS
from packed_submission import write_sample

import birdinfer as package

NEEDS = ["numpy", "msgspec>=0.19", "onnxruntime>=1.20; extra == 'cpu'"]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """All wheels that a submission needs, and no account in the environment."""
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    folder = tmp_path / "wheels"
    write_wheel(folder, f"birdinfer-{package.__version__}", needs=NEEDS)
    write_wheel(folder, "msgspec-0.20.0", "cp312-cp312-manylinux_2_28_x86_64")
    write_wheel(folder, "onnxruntime-1.23.0", "cp312-cp312-manylinux_2_28_x86_64")
    return folder


@pytest.fixture
def pack(birdinfer, bundle, wheels, tmp_path):
    """Pack for a competition that asks for the bundle's species, or for one of which only their number is known."""

    def run(*options, sample=True):
        out = tmp_path / "submission" / "x"
        usual = ["--engine", "onnxruntime", "--wheels", wheels]
        if sample:
            usual += ["--sample", write_sample(tmp_path / "sample.csv", LABELS, 2026)]
        return birdinfer("kaggle", "pack", "--bundle", bundle, "--out", out, *usual, *options)

    return run


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A Kaggle client for which everything is new and works."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "kaggle"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\nfrom pathlib import Path\n"
        "made = Path(__file__).with_name('made')\nverb = ' '.join(sys.argv[1:3])\n"
        "if verb == 'datasets status' and not made.exists():\n    sys.exit('404 Client Error: Not Found')\n"
        "if verb == 'datasets create':\n    made.touch()\n"
        "print({'datasets create': 'Your private Dataset is being created.',\n"
        '       \'datasets status\': \'{"status": "ready", "current_version_number": 1}\',\n'
        "       'kernels push': 'Kernel version 1 successfully pushed.',\n"
        "       'kernels status': 'x has status \"KernelWorkerStatus.COMPLETE\"',\n"
        "       'competitions submissions': 'ref,fileName,date,description,status,publicScore,privateScore\\n'\n"
        "           '7,x.csv,2026-05-01 10:00:00.5,[bold] try,SubmissionStatus.COMPLETE,0.91234,\\n',\n"
        "       'competitions submit': 'Successfully submitted to BirdCLEF [2026]'}[verb])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


class TestPack:
    def test_lists_files_with_their_sizes_and_what_comes_next(self, pack, tmp_path):
        code, out, err = pack("--owner", "someone")
        assert code == 0
        names = [line.split("MB  ")[1] for line in out.splitlines()]
        assert {"fold0.onnx", "manifest.json", f"birdinfer-{package.__version__}-py3-none-any.whl"} <= set(names)
        assert names[-1] == "in all, of 20,000 MB that Kaggle takes"
        folder = tmp_path / "submission" / "x"
        assert f"next: birdinfer kaggle dry-run {folder}, then birdinfer kaggle push {folder}" in err

    def test_missing_wheels_are_exit_3_with_the_command_that_gets_them(self, pack, wheels, tmp_path):
        next(wheels.glob("onnxruntime-*")).unlink()
        code, _, err = pack("--owner", "someone")
        assert code == 3
        assert "missing wheel: onnxruntime>=1.20, needed by birdinfer\n" in err
        assert "pip download" in err
        assert "--python-version=3.12" in err
        assert (tmp_path / "submission" / "x" / "dataset" / "manifest.json").is_file()

    def test_what_pip_could_not_fetch_and_what_stays_behind_are_reported(
        self, birdinfer, make_bundle, wheels, monkeypatch
    ):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        next(wheels.glob("onnxruntime-*")).unlink()
        folder = make_bundle()
        (folder / "notes [1].txt").write_text("mine")
        (folder / "fold1.onnx").rename(folder / "fold & 1.onnx")
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"fold1.onnx"', '"fold & 1.onnx"'))
        options = ("--out", folder.parent / "x", "--wheels", wheels, "--engine", "onnxruntime", "--download")
        code, _, err = birdinfer("kaggle", "pack", "--bundle", folder, *options)
        assert code == 3
        assert "left behind, because the manifest does not need them: notes [1].txt\n" in err
        assert "renamed for Kaggle: fold & 1.onnx is fold_1.onnx\n" in err
        assert "pip says: No matching distribution found for onnxruntime>=1.20\n" in err

    def test_missing_species_are_exit_3_with_the_option_that_accepts_them(self, pack, tmp_path):
        code, _, err = pack("--owner", "someone", sample=False)
        assert code == 3
        assert "missing species: the bundle knows 4 species, birdclef-2026 asks for 234: 230 would hold" in err
        assert 'pack another bundle; or the same with --option="--missing-species prior" if that is meant' in err
        code, _, err = pack("--owner", "someone", "--option=--missing-species prior", sample=False)
        assert code == 0
        assert "missing species: " in err
        assert "if that is meant" not in err
        sample = write_sample(tmp_path / "other.csv", ("houspa", *LABELS), 2026)
        code, _, err = pack("--owner", "someone", "--sample", sample, sample=False)
        assert code == 3
        assert "1 of its species are not in the bundle: houspa" in err

    def test_without_an_account_it_is_packed_and_the_user_is_warned(self, pack, monkeypatch, tmp_path):
        code, _, err = pack()
        assert code == 0
        assert "no account: pack again with --owner NAME before you push" in err
        monkeypatch.setenv("KAGGLE_USERNAME", "from-environment")
        assert "no account" not in pack()[2]
        facts = json.loads((tmp_path / "submission" / "x" / "kernel" / "kernel-metadata.json").read_text())
        assert facts["id"].startswith("from-environment/")

    def test_further_options_of_predict_reach_the_notebook(self, pack, tmp_path):
        assert pack("--option=--overlap 2.5", "--budget-minutes", "42")[0] == 0
        script = (tmp_path / "submission" / "x" / "kernel" / "birdinfer.py").read_text()
        assert "--overlap" in script
        assert "2.5" in script
        assert "42" in script

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--competition", "birdclef-2205"), "'birdclef-2205' is not known - did you mean birdclef-2025?"),
            (("--engine", "cuda:fp16"), "needs a GPU, submissions run without"),
            (("--engine", "tensorflow"), "tensorflow"),
            (("--budget-minutes", "900"), "allows 90 minutes"),
            (("--option", "--post 'x"), "cannot be split"),
            (("--wheels", "/nowhere"), "/nowhere: no such folder of wheels"),
            (("--title", "tiny"), "has 4 characters"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_exit_2(self, pack, options, words, tmp_path):
        code, out, err = pack(*options)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
        assert not (tmp_path / "submission").exists()


class TestPush:
    def test_goes_all_the_way(self, birdinfer, pack, client, tmp_path):
        pack("--owner", "someone", "--title", "birdinfer linear")
        code, out, err = birdinfer("kaggle", "push", tmp_path / "submission" / "x", "--submit")
        assert code == 0
        assert out == "https://www.kaggle.com/code/someone/birdinfer-linear-submission\n"
        assert "data set someone/birdinfer-linear: version 1 is ready\n" in err
        assert "Successfully submitted to BirdCLEF [2026]\n" in err
        assert "next: once Kaggle has scored it, birdinfer kaggle scores birdclef-2026\n" in err

    def test_says_what_is_left_to_do(self, birdinfer, pack, client, tmp_path):
        pack("--owner", "someone")
        code, _, err = birdinfer("kaggle", "push", tmp_path / "submission" / "x")
        assert code == 0
        assert "next: wait until it has run, then submit" in err

    def test_prints_commands_and_sends_nothing(self, birdinfer, pack, tmp_path, monkeypatch):
        pack("--owner", "someone", "--title", "birdinfer linear")
        monkeypatch.setenv("PATH", str(tmp_path))
        code, out, _ = birdinfer("kaggle", "push", tmp_path / "submission" / "x", "--print", "-m", "one [bold] try")
        assert code == 0
        assert out.startswith("kaggle datasets create --path ")
        assert "--message 'one [bold] try' --keep-tabular  # every other time\n" in out
        assert len(out.splitlines()) == 6

    def test_an_unnamed_account_is_exit_2(self, birdinfer, pack, client, tmp_path):
        pack()
        code, _, err = birdinfer("kaggle", "push", tmp_path / "submission" / "x")
        assert code == 2
        assert "was packed without an account - pack again with --owner NAME" in err


@pytest.mark.parametrize("command", ["pack", "push"])
def test_without_the_extra_the_command_that_installs_it_is_named(birdinfer, monkeypatch, command, tmp_path):
    for module in ("pack", "push"):
        monkeypatch.delitem(sys.modules, f"birdinfer.kaggle.{module}", raising=False)

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name in ("birdinfer.kaggle.pack", "birdinfer.kaggle.push"):
                raise ModuleNotFoundError("No module named 'packaging'", name="packaging")

    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    options = ("--bundle", tmp_path, "--out", tmp_path) if command == "pack" else (tmp_path,)
    code, _, err = birdinfer("kaggle", command, *options)
    assert code == 2
    assert 'packaging: is not installed - pip install "birdinfer[kaggle]"' in err


class TestScores:
    def test_are_a_line_each_whole_in_a_pipe(self, birdinfer, client):
        code, out, _ = birdinfer("kaggle", "scores")
        assert code == 0
        cells = " ".join(out.splitlines()[1].split())
        assert cells == "2026-05-01 10:00 0.91234 - - - not by kaggle push [bold] try"

    def test_of_an_unknown_competition(self, birdinfer, client):
        code, _, err = birdinfer("kaggle", "scores", "birdclef-2035")
        assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", [(), ("fetch",), ("scores",), ("pack",), ("dry-run",), ("push",)])
def test_explains_itself(birdinfer, command):
    code, out, _ = birdinfer("kaggle", *command, "-h")
    assert code == 0
    assert "Usage:" in out
