"""Files from anyone: a run, weights or a graph that was made to do harm, or was damaged, is refused in one line.

Of every such file: no code in it runs, no network is asked, the command leaves with 2 and writes nothing.
"""

import json
import pickle
import shutil
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from external_graphs import write_external_graph, write_list
from make_bundles import write_bundle
from safetensors.torch import load, save
from tiny_clips import LABELS, TINY_FRONTEND, write_clips

from birdinfer.errors import CheckpointError
from birdinfer.species import Species
from birdinfer.training.checkpoint import MODEL, EpochRow, Header, Progress, save_checkpoint
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.weights import load_weights
from birdinfer.training.recipe.schema import ModelConfig, Recipe

RECIPE = Recipe(frontend=TINY_FRONTEND, model=ModelConfig(backbone="test_efficientnet"))
STEM = f"{MODEL}backbone.conv_stem.weight"


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Network requests: none, whatever the file names."""
    asked = []

    def refuse(*address, **_):
        asked.append(address)
        raise OSError("no network in tests")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one fold, with its data beside it. Read only."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_clips(folder / "data", clips_per_label=1)
    run = folder / "run"
    (run / "fold0").mkdir(parents=True)
    model = build_model(RECIPE.model, len(LABELS), RECIPE.input_config, start=False)
    row = EpochRow(1, 0.5, 0.6, 0.75, 0.5, 0.5, 1e-3, 1.0, 0.0, None)
    progress = Progress(epoch=1, best_epoch=1, best_auc=0.75, history=[row])
    header = Header(RECIPE, tuple(Species(label) for label in LABELS), 0, progress, str(data), {"torch": "2"})
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    best = run / "fold0" / "best.safetensors"
    save_checkpoint(best, header, tensors)
    # Who makes a file by hand leaves its digests out, as older files do; with them, any change is refused as damage.
    parts, body = split(best.read_bytes())
    del parts["__metadata__"]["sha256"]
    best.write_bytes(joined(parts, body))
    names = [f"{label}/XC0.wav" for label in LABELS]
    rows = [f"{name},{label},,0" for name, label in zip(names, LABELS, strict=True)]
    (run / "folds.csv").write_text("\n".join(["filename,primary_label,group,fold", *rows, ""]))
    rows = [f"{name},{label},0.1,0.2,0.3,0.4" for name, label in zip(names, LABELS, strict=True)]
    (run / "fold0" / "oof.csv").write_text("\n".join([",".join(("filename", "primary_label", *LABELS)), *rows, ""]))
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def refused(birdinfer, network, tmp_path):
    """The one line with which a command refuses what it is given, without writing anything or using the network."""

    def refuse(*arguments):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = birdinfer(*arguments)
        assert sorted(tmp_path.rglob("*")) == before
        assert (code, out, err.count("\n"), network) == (2, "", 1, [])
        assert err[:-1].isprintable(), "a terminal obeys what is not"
        return err

    return refuse


def split(content):
    """(JSON of a safetensors header, the tensors' bytes)."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def pickled(content, folder):
    return pickle.dumps(Bomb(folder))


def torch_zip(content, folder):
    torch.save({"weight": Bomb(folder)}, folder.with_suffix(".pt"))
    return folder.with_suffix(".pt").read_bytes()


def zip_of_pickle(content, folder):
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb(folder)))
    return folder.with_suffix(".zip").read_bytes()


def pickle_behind_a_header(content, folder):
    """Tensors whose bytes are a pickle, as they may be: they are numbers to whoever reads them."""
    header, body = split(content)
    return joined({**header, "evil": {"dtype": "U8", "shape": [9, 9], "data_offsets": [0, 1]}}, pickle.dumps(body))


def with_length(length):
    return lambda content, _: struct.pack("<Q", length) + content[8:]


def with_header(edit):
    def spoil(content, _):
        header, body = split(content)
        return joined(edit(header), body)

    return spoil


NO_SAFETENSORS = {
    "a pickle": pickled,
    "a torch file": torch_zip,
    "a zip": zip_of_pickle,
    "a pickle behind a header": pickle_behind_a_header,
    "nothing": lambda *_: b"",
    "zeros": lambda *_: bytes(1_000),
    "a header of 2^60 bytes": with_length(2**60),
    "a header of 2^64 - 1 bytes": with_length(2**64 - 1),
    "a header that ends early": with_length(100),
    "a header that is no JSON": with_header(lambda _: b"__import__('os')"),
    "a deep header": with_header(lambda _: b'{"a":' * 100_000),
    "a tensor beyond the end": with_header(
        lambda header: {**header, "x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
    "a shape that overflows": with_header(
        lambda header: {**header, "x": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}
    ),
    "an unknown type": with_header(
        lambda header: {**header, "x": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}
    ),
    **{f"cut after {part:.0%}": lambda content, _, part=part: content[: int(part * len(content))] for part in
       (0.00001, 0.0001, 0.01, 0.03, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99999)},
}  # fmt: skip


@pytest.mark.parametrize("spoil", NO_SAFETENSORS.values(), ids=NO_SAFETENSORS)
class TestWhatIsNoSafetensors:
    def test_is_not_exported(self, run, tmp_path, refused, spoil):
        best = run / "fold0" / "best.safetensors"
        best.write_bytes(spoil(best.read_bytes(), tmp_path / "exploded"))
        assert "fold0/best.safetensors: is damaged or no checkpoint (" in refused(
            "export", "--run", run, "--out", tmp_path / "out"
        )
        assert not (tmp_path / "exploded").exists()

    def test_is_nothing_to_start_from(self, run, tmp_path, network, spoil):
        best = run / "fold0" / "best.safetensors"
        best.write_bytes(spoil(best.read_bytes(), tmp_path / "exploded"))
        model = build_model(RECIPE.model, len(LABELS), RECIPE.input_config, start=False)
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            load_weights(model, best)
        assert not (tmp_path / "exploded").exists()
        assert network == []


def state(place, value):
    """The checkpoint with another value somewhere in its state."""

    def edit(content):
        header, body = split(content)
        callback = json.loads(header["__metadata__"]["birdinfer"])
        inner = callback
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        header["__metadata__"]["birdinfer"] = json.dumps(callback)
        return joined(header, body)

    return edit


def text_of_state(text):
    def edit(content):
        header, body = split(content)
        header["__metadata__"]["birdinfer"] = text
        return joined(header, body)

    return edit


def tensor(change):
    """The checkpoint with another tensor in the place of the first convolution's."""

    def edit(content):
        tensors = load(content)
        tensors[STEM] = change(tensors[STEM]).contiguous()
        return save(tensors, split(content)[0]["__metadata__"])

    return edit


def tensors(change):
    return lambda content: save(change(load(content)), split(content)[0]["__metadata__"])


def backbone(name):
    return state(["recipe", "model", "backbone"], name)


def labels(*names):
    return state(["species"], [{"label": name} for name in names])


NOTHING_KNOWN = "holds a recipe that no network can be built of (model.backbone: timm knows no"
SPOILT = {
    "state: no JSON": (text_of_state("__import__('os').system('true')"), "holds a state that cannot be read"),
    "state: deep": (text_of_state('{"format_version":2,"recipe":' + "[" * 100_000), "maximum recursion depth"),
    "state: a list": (text_of_state("[2]"), "holds a state that cannot be read"),
    "state: another format": (state(["format_version"], 99), "has format 99, this birdinfer reads 2"),
    "state: a format of a million digits": (state(["format_version"], "9" * 10**6), "has format 999"),
    "state: a format that colours terminals": (state(["format_version"], "\x1b[31m\n"), "has format [31m"),
    "state: a key that colours terminals": (state(["recipe", "\x1b]0;title\x07"], 1), "unknown field"),
    "state: a fold below 0": (state(["fold"], -1), "at `$.fold`"),
    "state: an AUC above 1": (state(["progress", "best_auc"], 7.5), "at `$.progress.best_auc`"),
    "recipe: a name that leaves": (state(["recipe", "name"], "../../evil"), "needed is one that a folder can have"),
    "recipe: a family that is code": (state(["recipe", "model", "family"], "__import__('os')"), "model.family"),
    "recipe: a network of the hub": (backbone("hf-hub:evil/x"), NOTHING_KNOWN),
    "recipe: a network of the hub, as timm writes it": (backbone("hf_hub:timm/resnet18.a1_in1k"), NOTHING_KNOWN),
    "recipe: a network of a folder": (backbone("local-dir:/tmp/evil"), NOTHING_KNOWN),
    "recipe: a network of a path": (backbone("timm/../../evil"), NOTHING_KNOWN),
    "recipe: weights that timm does not know": (backbone("test_efficientnet.evil"), NOTHING_KNOWN),
    "recipe: another network": (backbone("test_vit"), "does not fit its own recipe (80 missing"),
    "recipe: a network of a billion weights": (backbone("eva_giant_patch14_224"), "does not fit its own recipe"),
    "labels: none": (labels(), "there is no label"),
    "labels: twice": (labels("a", "a", "b", "c"), "label 'a' stands twice"),
    "labels: two lines": (labels("a", "b\nc", "d", "e"), r"('b\nc') holds a character that cannot be printed"),
    "labels: a colour": (labels("a", "\x1b[31m", "d", "e"), r"('\x1b[31m') holds a character that cannot be printed"),
    "labels: more than columns": (labels("a", "b", "c", "d", "e"), "2 of another shape: backbone.classifier"),
    "tensors: another shape": (tensor(lambda x: x[:1]), "1 of another shape: backbone.conv_stem.weight"),
    "tensors: another rank": (tensor(lambda x: x[:, 0]), "1 of another shape: backbone.conv_stem.weight"),
    "tensors: nothing in one": (tensor(lambda x: x[:0]), "1 of another shape: backbone.conv_stem.weight"),
    "tensors: whole numbers": (tensor(lambda x: x.to(torch.int8)), "as torch.int8, needed is torch.float32"),
    "tensors: complex": (tensor(lambda x: x.to(torch.complex64)), "as torch.complex64, needed is torch.float32"),
    "tensors: 8-bit floats": (tensor(lambda x: x.to(torch.float8_e4m3fn)), "as torch.float8_e4m3fn, needed is"),
    "tensors: NaN": (tensor(lambda x: x * torch.nan), "holds numbers in backbone.conv_stem.weight that are not finite"),
    "tensors: infinite": (tensor(lambda x: x / 0), "that are not finite"),
    "tensors: none": (tensors(lambda every: {}), "does not fit its own recipe (88 missing"),
    "tensors: one less": (
        tensors(lambda every: {name: x for name, x in every.items() if name != STEM}), "1 missing: backbone.conv_stem"
    ),
    "tensors: one more": (tensors(lambda every: every | {f"{MODEL}\x1b[31m": torch.zeros(1)}), "1 unknown: [31m"),
    "tensors: a part averaged": (tensors(lambda every: every | {"ema.x": torch.zeros(1)}), "88 missing"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT)
def test_a_checkpoint_made_by_hand_is_refused_for_what_is_wrong_with_it(run, tmp_path, refused, spoil, words):
    best = run / "fold0" / "best.safetensors"
    best.write_bytes(spoil(best.read_bytes()))
    line = refused("export", "--run", run, "--out", tmp_path / "out")
    assert words in line
    assert "fold0/best.safetensors: " in line
    assert len(line) < 1_000


@pytest.mark.slow
def test_what_training_alone_would_use_is_neither_fetched_nor_opened(run, tmp_path, birdinfer, network):
    """The recipe is kept as it was found: a bundle says how it was made."""
    best = run / "fold0" / "best.safetensors"
    for *place, value in (
        ("recipe", "model", "pretrained", True),
        ("recipe", "model", "weights", "/etc/hostname"),
        ("recipe", "augment", "background_dir", "../../.."),
        ("recipe", "loss", "name", "__import__('os')"),
        ("versions", "torch", "x" * 1_000_000),
    ):
        best.write_bytes(state(place, value)(best.read_bytes()))
    code, _, err = birdinfer("export", "--run", run, "--out", tmp_path / "out")
    assert (code, network) == (0, []), err


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero")])
def test_a_checkpoint_that_is_no_file(run, tmp_path, refused, make):
    (run / "fold0" / "best.safetensors").unlink()
    make(run / "fold0" / "best.safetensors")
    assert "best.safetensors: no such checkpoint" in refused("export", "--run", run, "--out", tmp_path / "out")


@pytest.mark.parametrize("folder", ["/a\0b", "/dev"])
def test_a_data_folder_without_its_clips_is_asked_for(run, tmp_path, refused, folder):
    best = run / "fold0" / "best.safetensors"
    best.write_bytes(state(["data_dir"], folder)(best.read_bytes()))
    assert "--data" in refused("export", "--run", run, "--out", tmp_path / "out")


class TestGraphs:
    """An external graph for ``bundle adopt``."""

    @pytest.fixture
    def adopt(self, tmp_path, refused):
        """The line with which a graph is refused."""
        names = ("comcuc", "0012", "1161364", "47158son16")
        listed, folder = write_list(tmp_path / "labels.txt", *names), write_bundle(tmp_path / "bundle")
        return lambda graph: refused("bundle", "adopt", graph, "--labels", listed, "--bundle", folder)

    @pytest.mark.parametrize("place", ["{outside}", "../secret.bin", "link.bin"])
    def test_weights_in_a_file_outside_its_folder(self, tmp_path, adopt, place):
        (tmp_path / "graphs").mkdir()
        outside, path = tmp_path / "secret.bin", tmp_path / "graphs" / "graph.onnx"
        graph = onnx.load(write_external_graph(path, 4))
        onnx.save(graph, path, save_as_external_data=True, location="side.data", size_threshold=45)
        shutil.move(tmp_path / "graphs" / "side.data", outside)
        (tmp_path / "graphs" / "link.bin").symlink_to(outside)
        graph = onnx.load(path, load_external_data=False)
        for entry in (each for weight in graph.graph.initializer for each in weight.external_data):
            if entry.key == "location":
                entry.value = place.format(outside=outside)
        path.write_bytes(graph.SerializeToString())
        assert "graphs/graph.onnx: " in adopt(path)

    @pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
    def test_cut_off(self, tmp_path, adopt, part):
        path = write_external_graph(tmp_path / "graph.onnx", 4)
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
        assert f"graph.onnx: {'cannot be loaded by ONNX Runtime' if part > 0.001 else 'is empty'}" in adopt(path)

    @pytest.mark.parametrize("content", [b"\x0a" * 200_000, np.random.default_rng(0).bytes(5_000)], ids=len)
    def test_no_graph_at_all(self, tmp_path, adopt, content):
        (tmp_path / "graph.onnx").write_bytes(content)
        assert "graph.onnx: cannot be loaded by ONNX Runtime" in adopt(tmp_path / "graph.onnx")

    def test_a_pickle(self, tmp_path, adopt):
        (tmp_path / "graph.onnx").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        assert "graph.onnx: is a Python pickle, not a graph" in adopt(tmp_path / "graph.onnx")
        assert not (tmp_path / "exploded").exists()

    def test_an_operator_of_a_library_of_its_own(self, tmp_path, adopt):
        path = write_external_graph(tmp_path / "graph.onnx", 4)
        graph = onnx.load(path)
        graph.graph.node[0].domain = "evil.operators"
        graph.opset_import.append(onnx.helper.make_opsetid("evil.operators", 1))
        onnx.save(graph, path)
        assert "graph.onnx: has an operator that ONNX Runtime does not know (evil.operators:Cast)" in adopt(path)


def test_the_bomb_goes_off_where_pickles_are_read(tmp_path):
    """Else the tests above would prove nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").is_dir()
