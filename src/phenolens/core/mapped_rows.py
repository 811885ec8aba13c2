"""The rows of an array that lies in many files, read where they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

MOST_MAPPED = 256  # files at once: each holds a file descriptor, of which many systems allow a process 1,024
BLOCK = 16_384  # rows


class MappedRows:
    """An array (N, ...) in parts, a file each, of which rows are read when they are asked for.

    Args:
        sizes: Rows of each part.
        mapped: Maps the part of this number: an array of its rows.
    """

    def __init__(self, sizes: Sequence[int], mapped: Callable[[int], np.ndarray]) -> None:
        self._first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        # plain arrays over the maps: slicing np.memmap costs five times as much
        self.part = lru_cache(MOST_MAPPED)(lambda number: np.asarray(mapped(number)))

    def __len__(self) -> int:
        return int(self._first[-1])

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """As numpy's; the first part is mapped."""
        return (len(self), *self.part(0).shape[1:])

    @cached_property
    def dtype(self) -> np.dtype:
        """That of the first part, and of all."""
        return self.part(0).dtype

    def __getitem__(self, rows: int | Sequence[int] | npt.NDArray[np.integer]) -> np.ndarray:
        """A row, or these rows in their order: a copy.

        Raises:
            IndexError: A row does not exist; rows do not count from the end.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {len(self)}")
        flat = wanted.reshape(-1)
        parts = np.searchsorted(self._first, flat, side="right") - 1
        places, ends = flat - self._first[parts], np.flatnonzero(np.diff(parts)) + 1
        taken = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for start, end in pairwise([0, *ends.tolist(), len(flat)]):  # rows of one part that follow each other
            if end > start:  # `clip` writes in place, which `raise` does not
                self.part(int(parts[start])).take(places[start:end], axis=0, out=taken[start:end], mode="clip")
        return taken.reshape(*wanted.shape, *taken.shape[1:])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All rows in memory."""
        return self[np.arange(len(self))].astype(dtype or self.dtype, copy=False)

    def blocks(self, rows: npt.NDArray[np.integer]) -> Iterator[np.ndarray]:
        """These rows in their order, at most BLOCK at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self[rows[start : start + BLOCK]]


Rows = np.ndarray | MappedRows  # an array of which rows are read: in memory, or in files
