"""A smoothing kernel for each class of animals: probabilities [rows, species] in time order -> the same shape."""

import difflib
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.labels import Species
from birdinfer.postprocess.smoothing import Kernel, check_kernel, keeps_all, smooth
from birdinfer.postprocess.step import Bound, Step

Float32 = npt.NDArray[np.float32]


class TaxonKernels(Step, frozen=True, forbid_unknown_fields=True, tag="taxon_kernels"):
    """A smoothing kernel for each class of animals: frogs and insects call on and on, birds call now and then."""

    kernels: dict[str, Kernel] = msgspec.field(
        default_factory=lambda: {"Amphibia": (1 / 3, 1 / 3, 1 / 3), "Insecta": (1 / 3, 1 / 3, 1 / 3)}
    )
    """By ``class_name``; those of BirdCLEF 2026's first place."""
    otherwise: Kernel = (0.2, 0.6, 0.2)
    """Of all other species."""

    def __post_init__(self) -> None:
        for name, kernel in self.kernels.items():
            check_kernel(f"kernels.{name}", kernel)
        check_kernel("otherwise", self.otherwise)

    @property
    def reach(self) -> int:
        """Half the longest kernel."""
        return max(len(kernel) // 2 for kernel in (*self.kernels.values(), self.otherwise))

    @property
    def is_neutral(self) -> bool:
        """Whether no kernel smooths anything."""
        return all(map(keeps_all, (*self.kernels.values(), self.otherwise)))

    def bind(self, species: Sequence[Species]) -> Bound:
        """:func:`smooth`, group by group.

        Raises:
            ConfigError: no species is of a class that has a kernel, or a class is misspelt.
        """
        self._check_classes({each.class_name for each in species})
        columns: dict[Kernel, list[int]] = {}
        for column, each in enumerate(species):
            columns.setdefault(self.kernels.get(each.class_name, self.otherwise), []).append(column)

        def smooth_groups(probabilities: Float32, stem: str) -> Float32:
            smoothed = np.empty_like(probabilities)
            for kernel, group in columns.items():
                smoothed[:, group] = smooth(probabilities[:, group], kernel)
            return smoothed

        return smooth_groups

    def _check_classes(self, there: set[str]) -> None:
        absent = [name for name in self.kernels if name not in there]
        for name in absent:
            near = difflib.get_close_matches(name, sorted(there), n=1, cutoff=0.7)
            if near:
                raise ConfigError("taxon_kernels", f"no species is of class {name!r}", f"did you mean {near[0]}?")
        if absent and len(absent) == len(self.kernels):
            known = ", ".join(sorted(there - {""})) or "none"
            what = f"no species is of class {' or '.join(absent)}; the bundle's classes: {known}"
            raise ConfigError(
                "taxon_kernels", what, "leave the step out, or give the bundle's species their class_name"
            )
