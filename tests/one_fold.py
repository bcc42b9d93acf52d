"""One fold, trained, killed and held against another bit by bit."""

import csv
import dataclasses

import msgspec
import torch

from birdinfer.runs.layout import BEST, LAST
from birdinfer.system.signals import StopRequest
from birdinfer.training import loop
from birdinfer.training.augment import find_background
from birdinfer.training.callbacks import TrainingCallback
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.distributed import Distributed
from birdinfer.training.fold import Fold, Session
from birdinfer.training.loop import train_fold
from birdinfer.training.state import TrainingState

CPU = torch.device("cpu")
STEPS_PER_EPOCH = 4


class Recorder(TrainingCallback):
    def __init__(self):
        self.messages, self.rows, self.starts, self.results = [], [], [], []

    def on_message(self, line):
        self.messages.append(line)

    def on_warning(self, line):
        self.messages.append(line)

    def on_epoch_end(self, row, is_best):
        self.rows.append((row, is_best))

    def on_fold_start(self, start):
        self.starts.append(start)

    def on_fold_end(self, result, run=""):
        self.results.append(result)


def job(recipe, clips_dir, folder):
    metadata = read_metadata(clips_dir)
    clips = metadata.clips
    held_out = {clip.filename for index, clip in enumerate(clips) if index % 3 == 0}
    return Fold(
        recipe=recipe,
        species=metadata.species,
        number=0,
        training=tuple(clip for clip in clips if clip.filename not in held_out),
        validation=tuple(clip for clip in clips if clip.filename in held_out),
        test=(),
        source=DecodedSource(recipe.input_config, recipe.data.max_seconds),
        background=find_background(recipe.augment.background_dir, clips_dir).files,
        data_dir=clips_dir,
        folder=folder,
    )


def session(reporter=None, stop=None):
    return Session(
        device=CPU, processes=Distributed(), stop=stop or StopRequest(), callback=reporter or TrainingCallback()
    )


def train(job, reporter=None, stop=None):
    return train_fold(job, session(reporter, stop))


def tensors(folder, name=LAST):
    return load_checkpoint(folder / name).tensors


def assert_same_bits(folder, other):
    for name in (LAST, BEST):
        mine, theirs = tensors(folder, name), tensors(other, name)
        assert mine.keys() == theirs.keys()
        different = [key for key in mine if not torch.equal(mine[key], theirs[key])]
        assert different == []
    assert (folder / "oof.csv").read_bytes() == (other / "oof.csv").read_bytes()
    assert without_seconds(folder) == without_seconds(other)


def without_seconds(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{**row, "seconds": "", "wait_share": "", "rss_mb": ""} for row in csv.DictReader(file)]


def changed(recipe, **sections):
    """The recipe with keys of its sections replaced: changed(recipe, loop={"epochs": 2})."""
    return msgspec.structs.replace(
        recipe,
        **{name: msgspec.structs.replace(getattr(recipe, name), **keys) for name, keys in sections.items()},
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved on the way out."""


def die_at(monkeypatch, step, how):
    """Let the n-th step of the optimiser (from 1) end with ``how()``."""
    real, count = TrainingState.step, iter(range(1, 1_000))

    def step_or_die(self, *arguments):
        real(self, *arguments)
        if next(count) == step:
            how()

    monkeypatch.setattr(TrainingState, "step", step_or_die)


def kill():
    raise Killed


def soup_of(folder):
    return {path.name: load_checkpoint(path).weights("model.") for path in sorted(folder.glob("*.safetensors"))}


def with_losses(monkeypatch, losses, aucs):
    """Let validation after each epoch have these losses and macro AUCs."""
    real, given = loop.score, iter(zip(losses, aucs, strict=True))

    def scored(*args):
        loss, auc = next(given)
        return dataclasses.replace(real(*args), loss=loss, macro_auc=auc)

    monkeypatch.setattr(loop, "score", scored)
