"""Types of arrays by name. An array's axes stand in the docstring of what takes or returns it."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Index = npt.NDArray[np.intp]
Bool = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
"""Of any type."""
Complex = npt.NDArray[np.complexfloating]
