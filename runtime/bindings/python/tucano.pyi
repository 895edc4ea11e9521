"""Runs Tucano's weight blobs on NumPy arrays, with the bits of the board."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def backends() -> list[str]:
    """Names of the backends of this machine, the fastest first."""

class Terminal:
    """An input or output of a blob; a stored integer means scale * (stored - zero_point)."""

    @property
    def shape(self) -> list[int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def scale(self) -> float: ...
    @property
    def zero_point(self) -> int: ...

class Runner:
    """A loaded blob."""

    def __init__(self, blob: bytes, backend: str | None = None) -> None: ...
    @property
    def backend(self) -> str: ...
    @property
    def inputs(self) -> list[Terminal]: ...
    @property
    def outputs(self) -> list[Terminal]: ...
    def run(self, *inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Runs on samples [n, ...] in the source model's axes, which the first axis counts; gives real outputs [n, ...]."""

    def run_raw(self, *inputs: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
        """As run, and gives the bytes of the outputs as a device stores them, [n, bytes]."""

    def reset(self) -> None:
        """Zeroes what a model keeps from run to run."""
