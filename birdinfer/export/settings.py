"""Settings of an export: which run, which variants of its graphs, what they must keep."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from birdinfer.errors import ConfigError
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.int8.qdq import find_format

Quantizer = Literal["static", "dynamic", "nncf"]
QUANTIZERS: tuple[Quantizer, ...] = get_args(Quantizer)
"""Ways to INT8: our own with ranges from real windows, ONNX Runtime's with ranges from each call, OpenVINO's NNCF."""

Half = Literal["fp16", "bf16"]
HALVES: tuple[Half, ...] = get_args(Half)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSettings:
    """What :func:`~birdinfer.export.run.export_run` reads and makes.

    >>> ExportSettings(run=Path("runs/esc10"), quantize=("static",)).has_variants
    True

    Raises:
        ConfigError: a name is not known, or only one of ``soundscapes`` and ``truth`` is given.
    """

    run: Path | None = None  # ``runs/NAME`` with ``fold*/best.safetensors``; None: that with the newest checkpoint
    epoch: int | None = (
        None  # the weights of this epoch, from 1, which the run kept (``loop.keep_epochs``); None: the best
    )
    overrides: tuple[str, ...] = ()  # labels.nocall_power=2 or labels.taxon_share=0.3, in place of the recipe's
    out: Path | None = None  # folder of the bundle; an older bundle there is replaced. None: ``exports/NAME``
    data_dir: Path | None = None  # where the training clips are now; None: where they were in training
    engines: tuple[str, ...] = ("onnxruntime",)  # each graph is compared with its torch model in these
    quantize: tuple[Quantizer, ...] = ()  # INT8 graphs to try in order: the first accepted is kept, all are measured
    halves: tuple[Half, ...] = ()  # of half the size: fp16 for a GPU, bf16 for OpenVINO on processors with it
    with_frontend: bool = False  # also write graphs that take the waveform, for hosts without birdinfer
    fuse: bool = False  # write all members into one file if that is faster
    soup: bool = False  # write one member with the mean of all folds' weights instead of the folds
    measure: bool = False  # measure fp32 even if no variant is made
    measure_exporters: bool = True  # keep the faster exporter's graph; False: equal models have equal graphs
    limits: Limits = field(default_factory=Limits)  # what a variant must keep to be accepted
    target: str = "any-x86"  # processors that INT8 is for; see :func:`birdinfer.export.int8.qdq.find_format`
    n_calibration_windows: int = 64
    n_tuning_windows: int = 96  # windows of training clips: the first give the ranges, the others choose INT8 settings
    soundscapes: Path | None = None
    truth: Path | None = None  # labelled soundscapes for the acceptance test, in addition to the fold's held-out clips

    def __post_init__(self) -> None:
        for option, names, known in (("--quantize", self.quantize, QUANTIZERS), ("--half", self.halves, HALVES)):
            for name in names:
                if name not in known:
                    raise ConfigError(option, f"{name!r} is not known", f"choose one of {', '.join(known)}")
        find_format(self.target)
        if (self.soundscapes is None) != (self.truth is None):
            raise ConfigError("--judge-on", "needs --truth, and --truth needs it", "name folder and table, or neither")

    @property
    def has_variants(self) -> bool:
        """Whether anything is compared with fp32."""
        return bool(self.quantize or self.halves or self.measure)

    @property
    def needs_labels(self) -> bool:
        """Whether anything is evaluated on labelled windows."""
        return self.has_variants or self.soup
