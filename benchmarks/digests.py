"""Digests of what birdinfer computes: run it before and after a change that should change nothing.

    python benchmarks/digests.py record before.json --data DIR     # on the old commit
    python benchmarks/digests.py compare before.json --data DIR    # on the new one, on the same machine

DIR holds ``esc10/`` (clips in BirdCLEF's layout) and ``soundscapes/public/audio``. Everything goes through the command
line, in processes of its own, so that the script runs on commits whose modules lie elsewhere. Bits depend on the
processor and on the versions of torch and ONNX Runtime: a record is worth something on its own machine only, and none
is committed.
"""

import argparse
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import soundfile

MEASURED = "if chosen: "
TRIES = 4
FEW_EPOCHS = ("--set", "loop.epochs=2", "--set", "optim.warmup_epochs=1")
OPTIONS = """
import json, sys, typer
from birdinfer.cli.app import app
def walk(command, path):
    for each in command.params:
        named = ("default", "required", "multiple", "is_flag", "nargs", "min", "max")
        yield [path, each.name, sorted(each.opts), *(repr(getattr(each, name, None)) for name in named)]
    if hasattr(command, "list_commands"):
        context = command.context_class(command)
        for name in sorted(command.list_commands(context)):
            yield from walk(command.get_command(context, name), f"{path} {name}")
root = app if hasattr(app, "params") else typer.main.get_command(app)
json.dump(list(walk(root, "birdinfer")), sys.stdout)
"""


def digest(content: bytes) -> str:
    """The first 16 hex digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def tensors(path: Path) -> str:
    """The digest of a safetensors file's tensors, by name: its header also holds times and paths."""
    content = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + header_bytes])
    body = memoryview(content)[8 + header_bytes :]
    whole = hashlib.sha256()
    for name in sorted(header.keys() - {"__metadata__"}):
        begin, end = header[name]["data_offsets"]
        whole.update(f"{name} {header[name]['dtype']} {header[name]['shape']}".encode())
        whole.update(body[begin:end])
    return whole.hexdigest()[:16]


def birdinfer(*arguments: object) -> None:
    """Run a command and show what it printed if it fails."""
    command = [sys.executable, "-m", "birdinfer", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout}{done.stderr}")


def options() -> Iterator[tuple[str, str]]:
    """Each option of each command: its spelling, type and default."""
    done = subprocess.run([sys.executable, "-c", OPTIONS], capture_output=True, text=True, check=True)
    for path, name, *rest in json.loads(done.stdout):
        yield f"option {path} {name}", json.dumps(rest)


def demo(work: Path) -> Iterator[tuple[str, str]]:
    """What ``birdinfer demo`` makes and predicts of one seed."""
    birdinfer("demo", "--out", work / "demo", "--seed", 7, "--files", 4, "--seconds", 30)
    for path in sorted((work / "demo").rglob("*")):
        name = f"demo {path.relative_to(work / 'demo')}"
        if path.suffix == ".ogg":  # its samples: each stream gets a serial number by chance
            yield name, digest(soundfile.read(path)[0].tobytes())
        elif path.name.endswith(".files.csv"):
            yield name, digest(path.read_bytes().replace(str(work).encode(), b""))
        elif path.suffix == ".csv":
            yield name, digest(path.read_bytes())


def trainings(work: Path, data: Path) -> Iterator[tuple[str, str]]:
    """The tensors of a few epochs of three families, and the tables that stand beside them."""
    for recipe, folds in (("esc10", "0,1"), ("esc10_sed", "0"), ("esc10_rnn", "0")):
        birdinfer(
            "train", "--recipe", f"train/{recipe}.toml", "--data", data / "esc10", "--fold", folds,
            "--runs-dir", work / "runs", "--cache-dir", work / "cache", *FEW_EPOCHS, "--quiet",
        )  # fmt: skip
        for fold in sorted((work / "runs" / recipe).glob("fold*")):
            if fold.is_dir():
                yield f"train {recipe} {fold.name} best.safetensors", tensors(fold / "best.safetensors")
                yield f"train {recipe} {fold.name} oof.csv", digest((fold / "oof.csv").read_bytes())


def exports(work: Path, data: Path) -> Iterator[tuple[str, str]]:
    """The graphs of two folds, and INT8 with every bar lowered: what is measured must not decide what is compared.

    Which of PyTorch's exporters makes a graph is decided by its speed, so each export is repeated until dynamo has made
    it, and a graph's name says which exporter that was; see :func:`differences`.
    """
    lowered = ("--max-auc-fall", 1, "--min-spearman", -1, "--min-speedup", 0.01)
    for folder, options in (("two", ()), ("int8", ("--quantize", "static", *lowered))):
        for _ in range(TRIES):
            birdinfer(
                "export", "--run", work / "runs/esc10", "--out", work / folder, "--data", data / "esc10", *options
            )
            exporter = exporter_of(work / folder)
            for graph in sorted((work / folder).glob("*.onnx")):
                yield f"{MEASURED}{folder} {graph.name} by {exporter}", digest(graph.read_bytes())
            if exporter == "dynamo":
                break


def exporter_of(bundle: Path) -> str:
    """Which exporter made a bundle's graphs."""
    return {each.key: each.value for each in onnx.load(bundle / "fold0.onnx").metadata_props}["exporter"]


def predictions(work: Path, data: Path) -> Iterator[tuple[str, str]]:
    """Tables of eight real minutes: as they are, half over each other, and with steps of post-processing."""
    audio = sorted((data / "soundscapes/public/audio").glob("esc*.ogg"))[:8]
    ways = {
        "plain": (),
        "overlap": ("--overlap", 2.5, "--merge", "max"),
        "post": ("--overlap", 2.5, "--post", "file_max:power=0.5", "--blend", "rms"),
    }
    for name, more in ways.items():
        out = work / f"{name}.csv"
        birdinfer("predict", *audio, "--bundle", work / "two", "-o", out, *more)
        yield f"{MEASURED}predict two members by {exporter_of(work / 'two')}, {name}", digest(out.read_bytes())
    birdinfer("predict", *audio, "--bundle", "exports/demo", "-o", work / "demo.csv")
    yield "predict demo bundle, real minutes", digest((work / "demo.csv").read_bytes())


def all_digests(data: Path) -> dict[str, str]:
    """Each thing's name and its digest."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = dict(options())
        for part in (demo(work), trainings(work, data), exports(work, data), predictions(work, data)):
            for name, value in part:
                print(f"{value}  {name}", flush=True)
                found[name] = value
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is gone, new or other, a line each; of what a measurement chose, only what both chose is compared."""
    return [
        f"{name}: {before.get(name, 'was not there')} -> {after.get(name, 'is gone')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and not (name.startswith(MEASURED) and (name not in before or name not in after))
    ]


def main() -> None:
    """Record digests, or compare with a record; exit code 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("record", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    asked = parser.parse_args()
    found = all_digests(asked.data.resolve())
    if asked.what == "record":
        asked.record.write_text(json.dumps(found, indent=1) + "\n")
        return
    changed = differences(json.loads(asked.record.read_text()), found)
    print(*(changed or [f"all {len(found)} digests are equal"]), sep="\n")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
