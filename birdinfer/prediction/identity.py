"""Identify a run: what decides its scores besides the sound, so that only the same run is continued."""

import contextlib
import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Self

import msgspec

from birdinfer.audio.channels import MEAN
from birdinfer.inference.bundle import Bundle, file_sha256
from birdinfer.inference.engines import EngineSpec
from birdinfer.postprocess.base import TableStep
from birdinfer.typing import Float32

_ENGINE_PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "cuda": ("onnxruntime-gpu",)}


class RunIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides the scores besides the sound; equal for runs whose scores may stand in one table."""

    bundle_sha256: str  # of the manifest with the overlap, blend and post-processing that were asked for
    tables_sha256: str  # of the tables that steps of the post-processing read
    engine: str  # ``onnxruntime:fp32``; the numbers of workers and of windows in a batch change no score
    engine_version: str
    birdinfer_version: str
    kept_from_sha256: str = ""  # of the scores from which on they are kept; "" if all are
    channel: str = MEAN  # which of a file's channels were processed
    voice: str = ""  # what becomes of human speech, and which detector finds it; "": nothing
    embeddings: str = ""  # the folder that they are written to; "": none are

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        spec: EngineSpec,
        kept_from: Float32 | None = None,
        *,
        channel: str = MEAN,
        voice: str = "",
        embeddings: str = "",
    ) -> Self:
        """Identify a run of this bundle on this machine that keeps scores of at least ``kept_from`` [species]."""
        tables = [bundle.folder / step.table for step in bundle.manifest.post.steps if isinstance(step, TableStep)]
        # A missing table is refused when it is read, with a better message.
        tables_sha256 = " ".join(file_sha256(table) for table in tables if table.is_file())
        engine_version = _installed(_ENGINE_PACKAGES.get(spec.engine, (spec.engine,)))
        kept = "" if kept_from is None else hashlib.sha256(kept_from.tobytes()).hexdigest()
        birdinfer_version = _installed(("birdinfer",))
        decided = (bundle.sha256(), tables_sha256, str(spec), engine_version, birdinfer_version, kept)
        return cls(*decided, channel, voice, embeddings)

    def difference(self, other: "RunIdentity") -> str:
        """Describe the first difference from another run, which is not the same."""
        if (self.bundle_sha256, self.tables_sha256) != (other.bundle_sha256, other.tables_sha256):
            return "holds a run of another bundle, or with other options"
        if self.kept_from_sha256 != other.kept_from_sha256:
            return "holds a run with other thresholds"
        kinds = {
            "channel": "channel", "engine": "engine", "engine_version": "version of the engine",
            "birdinfer_version": "birdinfer", "voice": "--voice", "embeddings": "--embeddings",
        }  # fmt: skip
        for name, kind in kinds.items():
            before, now = getattr(self, name), getattr(other, name)
            if before != now:
                return f"holds a run of another {kind}: {before or 'none'}, now {now or 'none'}"
        raise AssertionError("they are the same")


def _installed(packages: Sequence[str]) -> str:
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return ""
