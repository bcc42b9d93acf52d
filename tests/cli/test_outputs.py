"""No command destroys what it reads or what birdinfer has not written, and no wrong path is a fault of birdinfer.

All commands, all outputs, eight kinds of target; all paths, all kinds of wrong file. The commands and their paths are
read from the command line itself: a new one has to be listed here.
"""

import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
from make_bundles import LABELS

from birdinfer.cli.app import COMMANDS, load_command
from birdinfer.inference.bundle import Bundle
from birdinfer.tables.reviews import ANSWER

TABLE, PICTURE, FOLDER, GRAPH, PAGE = "out.csv", "out.png", "out", "out.onnx", "out.html"
OUTPUTS = {
    "predict --output": TABLE, "blend --output": TABLE, "prior --output": TABLE, "submission convert --output": TABLE,
    "score --plot": PICTURE, "plot --out": PICTURE, "calibrate --plot": PICTURE,
    "predict --plots": FOLDER, "demo --out": FOLDER, "bundle adopt --bundle": FOLDER, "kaggle pack --out": FOLDER,
    "export --out": FOLDER, "train --runs-dir": FOLDER, "train --cache-dir": FOLDER, "tune --runs-dir": FOLDER,
    "tune --cache-dir": FOLDER, "detect --output": FOLDER, "predict --embeddings": FOLDER, "head fit --output": FOLDER,
    "pseudo-label --output": FOLDER, "predict --group-tables": FOLDER,
    "rounds --out": FOLDER, "rounds --cache-dir": FOLDER,
    "detect --embeddings": FOLDER, "similar --output": FOLDER,
    "models get --output": FOLDER, "models location --output": GRAPH,
    "kaggle fetch --output": FOLDER, "runs --output": TABLE, "runs --plot": PICTURE,
    "data --output": FOLDER, "look --output": PAGE,
    "scale gather --output": FOLDER, "scale gather --submission": TABLE,
    "scale plan --scratch": FOLDER, "scale run --scratch": FOLDER, "scale work --scratch": FOLDER,
}  # fmt: skip
"""What each command writes; the ending is the one that it may have."""
INPUTS = {
    "runs folder", "recipes show recipe", "recipes check recipe",
    "data folder", "data --recipe", "look files", "look --data", "look --augmented",
    "pseudo-label soundscapes", "pseudo-label --bundle", "rounds recipe", "rounds --soundscapes", "rounds --data",
    "rounds --teacher", "rounds --judge-on", "rounds --truth",
    "predict inputs", "predict --bundle", "predict --sample-submission", "blend tables", "blend --bundle",
    "blend --taxonomy", "score submission", "score truth", "score --oof", "score --bundle", "score --taxonomy",
    "prior labels", "prior --soundscapes", "prior --taxonomy", "bundle adopt graph", "bundle adopt --labels",
    "bundle adopt --head", "bundle adopt --frontend",
    "bundle show folder", "bundle set folder", "kaggle pack --bundle", "kaggle pack --wheels", "kaggle pack --sample",
    "kaggle dry-run --sample", "kaggle push packed", "kaggle scores --runs",
    "kaggle dry-run packed", "kaggle dry-run --python", "submission check table", "submission check --sample",
    "submission convert table", "submission convert --sample", "train --recipe", "train --finetune-for-int8",
    "train --data", "train --weights", "train --template", "tune --recipe", "tune --space", "tune --data",
    "detect recordings", "detect --bundle", "detect --thresholds", "detect --species", "detect --location-model",
    "detect --location-labels", "calibrate reviews", "calibrate --bundle", "calibrate --truth", "bundle embed folder",
    "similar sounds", "similar --in", "similar --queries", "similar --bundle", "similar --recordings",
    "head fit --embeddings", "head fit --labels", "head fit --bundle", "models get --labels",
    "models get --species", "bundle adopt --species", "bundle adopt --taxonomy", "bundle remove folder",
    "scale plan --bundle", "scale gather --thresholds", "scale gather --species", "scale gather --sample-submission",
    "tune --template", "plot runs", "export --run", "export --data", "export --judge-on", "export --truth",
}  # fmt: skip
SHARED = {
    "--runs-dir",
    "--cache-dir",
    "--plots",
    "--group-tables",
    "--scratch",
}  # folders that may hold other things, inputs among them
TARGETS = ("input", "link", "hard link", "folder", "sound", "model", "other file", "device")
REFUSALS = (
    "an input of this command|is a folder|is a file|is no file|ends in|has no ending|belongs to the system|of birdinfer"
    "|is a link to|holds other things|lies in|no folder of detections|gives embeddings"
)
NEEDS = {
    "train": "torch",
    "rounds": "torch",
    "tune": "optuna",
    "export": "torch",
    "kaggle": "packaging",
    "plot": "matplotlib",
}

SCORES = "row_id,aaa,bbb\nsite_0_5,0.25,0.5\nsite_0_10,0.75,0.5\n"
CONTENTS = {
    "other.csv": SCORES, "truth.csv": "row_id,aaa,bbb\nsite_0_5,0,1\nsite_0_10,1,0\n",
    "labels.csv": "filename,start,end,primary_label\nsite_0.ogg,00:00:00,00:00:05,aaa\n",
    "taxonomy.csv": "primary_label,scientific_name,common_name,class_name\naaa,A a,A,Aves\nbbb,B b,B,Aves\n",
    "labels.txt": "aaa\nbbb\n", "graph.onnx": "a graph", "thresholds.csv": f"label,threshold\n{LABELS[0]},0.5\n",
    "reviews.csv": f"file,label,confidence,{ANSWER}\na.wav,aaa,0.5,right\n", "listed.csv": f"name\n{LABELS[0]}\n",
    "recipe.toml": 'name = "x"\n', "space.toml": "optim.lr = [0.1, 0.2]\n",
    "weights.safetensors": "weights", "job.sh": "echo", "run/fold0/best.safetensors": "a checkpoint",
    "data/train.csv": "filename,primary_label\na.ogg,aaa\n", "wheels/a.whl": "wheel", "sound/site_0.ogg": "sound",
}  # fmt: skip
COMMAND_LINES = {
    "recipes show": "strong",
    "recipes check": "recipe.toml",
    "pseudo-label": "sites --bundle bundle",
    "rounds": "recipe.toml --soundscapes sites --data data --judge-on sound --truth truth.csv",
    "submission check": "scores.csv --sample sample.csv",
    "bundle show": "bundle",
    "data": "data --recipe recipe.toml",
    "look": "sites --n 1",
    "bundle set": "bundle --post prior_shift:table=labels.csv",
    "kaggle fetch": "birdclef-2026",
    "kaggle push": "packed --print",
    "kaggle scores": "birdclef-2026",
    "kaggle dry-run": "packed",
    "detect": "sites --bundle bundle --thresholds thresholds.csv --species listed.csv --no-page",
    "calibrate": "reviews.csv --bundle bundle",
    "bundle embed": "bundle",
    "bundle remove": "bundle fold0",
    "models location": "birdnet-2.4",
    "similar": "sound/site_0.ogg --in emb --queries reviews.csv --bundle bundle --recordings sites",
    "head fit": "--embeddings emb --labels reviews.csv --bundle bundle",
    "models get": "nighthawk --from graph.onnx --labels labels.txt",
    "predict": "sites --bundle bundle --sample-submission sample.csv --blend rank",
    "blend": "scores.csv other.csv --taxonomy taxonomy.csv --post smooth:kernel=0.25/0.5/0.25",
    "prior": "labels.csv --taxonomy taxonomy.csv --soundscapes sound",
    "submission convert": "scores.csv --year 2022",
    "score": "scores.csv truth.csv --ablate --taxonomy taxonomy.csv",
    "plot": "run",
    "runs": "run",
    "demo": "--files 1 --seconds 10",
    "bundle adopt": "graph.onnx --labels labels.txt",
    "kaggle pack": "--bundle bundle --wheels wheels",
    "export": "--run run --data data --judge-on sound --truth truth.csv",
    "train": "--recipe recipe.toml --data data --weights weights.safetensors",
    "tune": "--recipe recipe.toml --data data --space space.toml",
    "scale plan": "sites --plan planned --bundle bundle",
    "scale run": "planned",
    "scale work": "planned --unit 0",
    "scale gather": "planned",
}


class Given(NamedTuple):
    """A command's path: ``predict --output``, its type."""

    name: str
    hint: Any


def commands() -> Iterator[tuple[str, Any]]:
    for name in COMMANDS:
        found = load_command(name)
        for one in getattr(found, "commands", {"": found}).values():
            yield (f"{name} {one.name}" if one is not found else name), one


def paths() -> Iterator[Given]:
    for name, command in commands():
        hints = get_type_hints(command.callback)
        for parameter in command.params:
            if "Path" in str(hints.get(parameter.name)):
                option = next((each for each in parameter.opts if each.startswith("--")), parameter.name)
                yield Given(f"{name} {option}", hints[parameter.name])


def test_every_path_of_a_command_is_known_as_input_or_output():
    """One that is missing here is a new option: it is an output, with a target in OUTPUTS, or an input."""
    assert {given.name for given in paths()} == {*OUTPUTS, *INPUTS}


@pytest.fixture
def place(tmp_path, monkeypatch, soundscapes, bundle):
    """A folder with an input of every kind, in which the command is run."""
    shutil.copytree(soundscapes, tmp_path / "sites")
    shutil.copytree(bundle, tmp_path / "bundle")
    labels = Bundle.load(bundle).labels
    sample = "\n".join(
        [",".join(["row_id", *labels]), ",".join(["site_0_5", *(["0.004273504273504274"] * len(labels))])]
    )
    contents = CONTENTS | {"scores.csv": SCORES, "sample.csv": f"{sample}\n"}
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, object]:
    """What everything in a folder is, links as links."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (mode, content)
    return found


def make_targets(kind: str, ending: str, inputs: list[Path]) -> Iterator[Path]:
    """Make what stands where the output would go."""
    name = Path(ending)
    if kind == "input":
        yield from inputs
    elif kind in {"link", "hard link"}:
        for number, given in enumerate(inputs):
            link = name.with_stem(f"{kind.split()[-1]}{number}")
            if kind == "link":
                link.symlink_to(given.absolute(), target_is_directory=given.is_dir())
                yield link
            elif given.is_file():
                link.hardlink_to(given)
                yield link
    elif kind == "device":
        yield from map(Path, ("/dev/stdout", "/dev/full", "/proc/self/fd/1", "/proc/new.csv", "/dev/new.png", "/proc"))
    else:
        files = {"folder": [f"folder{name.suffix}/kept"], "sound": ["other.wav", "none.ogg"], "model": ["other.onnx"],
                 "other file": ["others" + name.suffix, "notes.txt"]}[kind]  # fmt: skip
        for file in files:
            Path(file).parent.mkdir(exist_ok=True)
            if file != "none.ogg":
                Path(file).write_text("a,b\n1,2\n")
            yield Path(file if kind != "folder" else file.partition("/")[0])


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_destroys_nothing(output, kind, place, birdinfer):
    """0 inputs changed, exit code 2, one line."""
    command, _, option = output.rpartition(" ")
    if module := NEEDS.get(command.partition(" ")[0]):
        pytest.importorskip(module)
    words = COMMAND_LINES[command].split()
    inputs = [Path(word) for word in words if Path(word).exists()]
    if OUTPUTS[output] != FOLDER:
        inputs = [
            file
            for given in inputs
            for file in ([given] if given.is_file() else filter(Path.is_file, given.rglob("*")))
        ]
    elif option in SHARED:
        inputs = [given for given in inputs if given.is_file()]
    for target in make_targets(kind, OUTPUTS[output], inputs):
        if kind == "folder" and (option in SHARED or output == "plot --out"):
            continue
        before = snapshot(place)
        code, _, err = birdinfer(*command.split(), *words, option, target)
        assert code == 2, (target, err)
        assert err.count("\n") == 1, (target, err)
        assert re.search(REFUSALS, err), (target, err)
        after = snapshot(place)
        assert {name: after.get(name) for name in before} == before, target
        assert not set(after) - set(before), target


def test_a_side_table_destroys_nothing(place, birdinfer):
    """``a.csv`` and ``a.files.csv`` are two outputs, and what stands in the place of either is guarded."""
    words = ("predict", *COMMAND_LINES["predict"].split())
    side = Path("a.files.csv")
    for make in (
        lambda: side.symlink_to(side), side.mkdir,
        lambda: side.symlink_to("sample.csv"), lambda: side.hardlink_to("sample.csv"),
        lambda: side.write_text("notes"), lambda: side.symlink_to("/dev/stdout"), lambda: side.symlink_to("a.csv"),
        lambda: side.symlink_to("sites/site_0.ogg"),
    ):  # fmt: skip
        make()
        before = snapshot(place)
        code, _, err = birdinfer(*words, "-o", "a.csv")
        assert (code, err.count("\n"), snapshot(place)) == (2, 1, before), err
        side.rmdir() if side.is_dir() else side.unlink()
    assert birdinfer(*words, "-o", "a.files.csv")[0] == 2


def test_a_table_of_birdinfer_is_replaced_and_another_with_force_alone(place, birdinfer):
    words = ("predict", *COMMAND_LINES["predict"].split(), "-q", "-o", "a.csv")
    assert [birdinfer(*words)[0] for _ in range(2)] == [0, 0]
    written = Path("a.csv").read_bytes()
    for text in ("a,b\n1,2\n", "row_id,aaa\nsite_0_5,0.004273504273504274\n"):
        Path("a.csv").write_text(text)
        assert birdinfer(*words)[0] == 2
        assert Path("a.csv").read_text() == text
        assert birdinfer(*words, "--force")[0] == 0
    Path("a.csv").write_bytes(b"")
    assert birdinfer(*words)[0] == 0
    assert Path("a.csv").read_bytes() == written
    assert birdinfer(*words[:-1], "sample.csv", "--force")[0] == 2


def test_a_link_and_its_permissions_are_kept(place, birdinfer):
    Path("results").mkdir()
    Path("results/a.csv").touch(mode=0o640)
    Path("a.csv").symlink_to("results/a.csv")
    assert birdinfer("blend", "scores.csv", "other.csv", "-o", "a.csv")[0] == 0
    assert Path("a.csv").is_symlink()
    assert stat.S_IMODE(Path("results/a.csv").stat().st_mode) == 0o640
    assert Path("results/a.csv").read_text().startswith("row_id,aaa,bbb\n")


def test_a_table_goes_to_standard_output(place, birdinfer):
    """Nothing else is printed there, and no side table is left behind."""
    for command in ("predict", "blend", "prior", "submission convert"):
        words = (*command.split(), *COMMAND_LINES[command].split())
        before = snapshot(place)
        code, out, err = birdinfer(*words, "-o", "-")
        assert code == 0, err
        assert err
        assert snapshot(place) == before
        assert birdinfer(*words, "-o", "a.csv")[0] == 0
        assert out == Path("a.csv").read_text()
        for path in ("a.csv", "a.files.csv"):
            Path(path).unlink(missing_ok=True)
    assert birdinfer("predict", "sites", "-o", "-", "--resume")[0] == 2
    assert birdinfer("score", *COMMAND_LINES["score"].split(), "--plot", "-")[0] == 2


def test_a_run_writes_into_no_folder_that_it_reads(place, birdinfer):
    pytest.importorskip("torch")
    Path("x").mkdir()
    shutil.copy("weights.safetensors", "x")
    shutil.copy("recipe.toml", "x")
    before = snapshot(place)
    for options in (
        "--recipe recipe.toml --data data --run data",
        "--recipe recipe.toml --weights x/weights.safetensors",
        "--recipe x/recipe.toml",
    ):
        code, _, err = birdinfer("train", "--runs-dir", ".", *options.split())
        assert (code, err.count("\n")) == (2, 1), err
        assert "an input of this command" in err
    assert snapshot(place) == before


# ---- Wrong paths


WRONG = ("missing", "folder", "empty", "binary", "text", "long name", "nothing", "device", "in a file")


def wrong_path(kind: str) -> str:
    """Make what no command can use in the place of a file or folder, and return its name."""
    contents = {"empty": b"", "binary": bytes(range(256)), "text": b"some words\n\nand more"}
    if kind in contents:
        Path(kind).write_bytes(contents[kind])
    elif kind == "folder":
        Path(kind).mkdir()
        Path(kind, "kept.txt").touch()
    names = {"long name": "n" * 300, "nothing": "", "device": "/dev/null", "in a file": "labels.txt/x.csv"}
    return names.get(kind, kind)


@pytest.mark.parametrize("given", sorted({*OUTPUTS, *INPUTS}))
def test_a_wrong_path_is_no_fault_of_birdinfer(given, place, birdinfer):
    command, _, option = given.rpartition(" ")
    if module := NEEDS.get(command.partition(" ")[0]):
        pytest.importorskip(module)
    arguments = [each.name for each in dict(commands())[command].params if not each.opts[0].startswith("--")]
    for kind in WRONG:
        words, path = COMMAND_LINES[command].split(), wrong_path(kind)
        if option.startswith("--"):
            words += [option, path]
        else:
            words[arguments.index(option)] = path
        code, _, err = birdinfer(*command.split(), *words)
        assert code != 1, (kind, err)
        assert "Traceback" not in err, (kind, err)
