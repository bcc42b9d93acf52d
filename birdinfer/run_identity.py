"""What decides every bit of a run's scores, but for the sound: bundle and engine in, an identity to compare out."""

import contextlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec

from birdinfer.bundle import Bundle, file_sha256
from birdinfer.engines import EngineSpec
from birdinfer.postprocess.step_tables import TableStep

_ENGINE_PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "cuda": ("onnxruntime-gpu",)}


class RunIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal for runs whose scores can stand in one table."""

    bundle_sha256: str
    """Of the manifest as it is run: with the overlap, blend and post-processing that were asked for."""
    tables_sha256: str
    """Of the tables that steps of the post-processing read."""
    engine: str
    """``onnxruntime:fp32``; lanes and batch size change no score."""
    engine_version: str
    birdinfer_version: str

    @classmethod
    def of(cls, bundle: Bundle, spec: EngineSpec) -> "RunIdentity":
        """Of a run of this bundle on this machine."""
        packages = _ENGINE_PACKAGES.get(spec.engine, (spec.engine,))
        return cls(bundle.sha256(), _tables_sha256(bundle), str(spec), _installed(packages), _installed(("birdinfer",)))

    def difference(self, other: "RunIdentity") -> str:
        """The first thing in which another run differs from this one, in words; they are not the same."""
        if (self.bundle_sha256, self.tables_sha256) != (other.bundle_sha256, other.tables_sha256):
            return "holds a run of another bundle, or with other options"
        kinds = {"engine": "engine", "engine_version": "version of the engine", "birdinfer_version": "birdinfer"}
        for name, kind in kinds.items():
            before, now = getattr(self, name), getattr(other, name)
            if before != now:
                return f"holds a run of another {kind}: {before}, now {now}"
        raise AssertionError("they are the same")


def _tables_sha256(bundle: Bundle) -> str:
    tables = [bundle.folder / step.table for step in bundle.manifest.post.steps if isinstance(step, TableStep)]
    # One that is not there is refused when it is read, with better words.
    return " ".join(file_sha256(table) for table in tables if table.is_file())


def _installed(packages: Sequence[str]) -> str:
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return ""
