"""The predicted masks of a sweep through a volume, kept small until they are scored as a whole."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator

import numpy as np


class Volumes:
    """Predicted masks, bit-packed; a mask that several designs share is kept once.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume (z, y, x).
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._slices: dict[tuple[str, Hashable], dict[int, np.ndarray]] = defaultdict(dict)

    def add(self, object_name: str, designs: Iterable[Hashable], slice_index: int, mask: np.ndarray) -> None:
        """Keep the mask of a slice, bool (y, x), for all designs that gave it."""
        packed = np.packbits(mask)
        for design in designs:
            self._slices[object_name, design][slice_index] = packed

    def distinct(self) -> Iterator[tuple[str, list, np.ndarray]]:
        """Yield object, the designs that agree on every slice, and their mask (z, y, x)."""
        groups: dict[tuple, list[Hashable]] = defaultdict(list)
        for (name, design), slices in self._slices.items():
            groups[name, tuple((index, id(packed)) for index, packed in sorted(slices.items()))].append(
                design
            )
        for (name, _), designs in groups.items():
            mask = np.zeros(self.shape, bool)
            for index, packed in self._slices[name, designs[0]].items():
                mask[index] = np.unpackbits(packed, count=mask[index].size).reshape(mask[index].shape)
            yield name, designs, mask
