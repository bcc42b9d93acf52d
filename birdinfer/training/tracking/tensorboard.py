"""TensorBoard: a fold as event files below ``FOLDER/NAME/fold0/``; ``tensorboard --logdir runs`` shows them.

Curves are scalars with the epoch as their step, parameters a text and TensorBoard's own hyperparameters, pictures are
images. It keeps no files: of the checkpoint there is a line that says where it lies. Written with tensorboard's own
writer, which needs no torch.
"""

import struct
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birdinfer.training.tracking.base import Ended, FoldRecord, Outcome, client

_EXTRA = "tensorboard"
_PROTO = "tensorboard.compat.proto"


class TensorBoard:
    """A fold's event files."""

    def start(self, record: FoldRecord, run_id: str, epochs_logged: int) -> str:
        """Readers put the file after the earlier ones of the folder."""
        self._event = client(f"{_PROTO}.event_pb2", _EXTRA)
        self._summary = client(f"{_PROTO}.summary_pb2", _EXTRA).Summary
        folder = record.folder.joinpath(*record.labels, f"fold{record.fold}")
        is_there = bool(run_id) and any(folder.glob("events.out.tfevents.*"))
        self._last_epoch = epochs_logged if is_there else 0
        self._writer = client("tensorboard.summary.writer.event_file_writer", _EXTRA).EventFileWriter(str(folder))
        if is_there:
            # What an earlier file says of this step and later ones is then no part of the curves.
            log = self._event.SessionLog(status=self._event.SessionLog.START)
            self._add(epochs_logged + 1, session_log=log)
        else:
            self._parameters(record)
        self._writer.flush()
        return run_id if is_there else uuid.uuid4().hex

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._last_epoch = epoch
        self._scalars(metrics)
        self._writer.flush()

    def histograms(self, epoch: int, weights: Mapping[str, Any]) -> None:
        """Log how the numbers of each layer are distributed."""
        histogram = client("tensorboard.plugins.histogram.summary_v2", _EXTRA).histogram_pb
        for name, values in weights.items():
            self._add(epoch, summary=histogram(f"weights/{name}", values))
        self._writer.flush()

    def finish(self, outcome: Outcome) -> None:
        self._scalars(outcome.figures)
        for path in outcome.pictures:
            self._values(self._last_epoch, self._summary.Value(tag=f"pictures/{path.stem}", image=self._image(path)))
        if outcome.checkpoint is not None:
            size = outcome.checkpoint.stat().st_size
            self._text("checkpoint", f"`{outcome.checkpoint.resolve()}`, {size / 1e6:.1f} MB", self._last_epoch)
        self._writer.flush()

    def close(self, ended: Ended) -> None:
        self._text("ended", ended, self._last_epoch)
        self._writer.close()

    def _parameters(self, record: FoldRecord) -> None:
        cells = {name: str(value).replace("|", "\\|").replace("\n", " ") for name, value in record.parameters.items()}
        rows = "".join(f"| {name} | {cell} |\n" for name, cell in cells.items())
        self._text("parameters", f"| key | value |\n|---|---|\n{rows}", 0)
        hparams = client("tensorboard.plugins.hparams.summary_v2", _EXTRA).hparams_pb
        self._add(0, summary=hparams(dict(record.parameters), record.title))

    def _scalars(self, values: Mapping[str, float]) -> None:
        self._values(self._last_epoch, *(self._summary.Value(tag=n, simple_value=x) for n, x in values.items()))

    def _text(self, tag: str, text: str, step: int) -> None:
        metadata = client("tensorboard.plugins.text.metadata", _EXTRA).create_summary_metadata(tag, "")
        kinds = client(f"{_PROTO}.types_pb2", _EXTRA)
        tensor = client(f"{_PROTO}.tensor_pb2", _EXTRA).TensorProto(dtype=kinds.DT_STRING, string_val=[text.encode()])
        self._values(step, self._summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor))

    def _image(self, path: Path) -> Any:
        picture = path.read_bytes()
        # A PNG's first chunk: 8 bytes of signature, 8 of length and name, then width and height (RFC 2083, 4.1.1).
        width, height = struct.unpack(">II", picture[16:24])
        return self._summary.Image(width=width, height=height, colorspace=4, encoded_image_string=picture)

    def _values(self, step: int, *values: Any) -> None:
        self._add(step, summary=self._summary(value=values))

    def _add(self, step: int, **what: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, **what))
