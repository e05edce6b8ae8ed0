"""How a volume is propagated, beyond its design: one object, checked when it is made, recorded as it is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from medsam_nb.errors import StudyError, require_known, require_whole

PROTOCOLS = ("corrected", "released")
MASK_SCOPES = ("all", "prompted", "all_with_boxes")
ENDS = ("last_object_slice", "volume_end")
ATTENTION = ("exact", "blocked")
KERNELS = ("eager", "compiled")
MOST_BRANCHES = 64
FRAMES = ("image", "video")
BEYOND = ("repeated", "interpolated")
REMEMBERED = ("predictions", "truth", "nothing")
TRAINED_MEMORIES = 7
TRAINED_POINTERS = 16
RELEASED_MEMORY = "released"
BOUNDS = {"truth": "true masks remembered", "nothing": "every slice prompted"}  # what tables call them


@dataclass(frozen=True)
class MemoryWindow:
    """What a tracked slice may attend to, besides the prompted slices.

    Attributes
    ----------
    memories : int
        Spatial memories, the prompted slices' counted as one: 7 is the released model, 1 sees only
        prompted slices. Up to 7 every memory keeps the temporal embedding it was trained with, as at
        the start of any video; above, see `beyond`.
    stride : int
        The last slice, then slices at multiples of the stride (of the slice number, so it depends on
        where the volume starts). The embeddings were trained with 1.
    pointers : int
        Object pointers (one vector per slice): those of prompted slices, and of the last
        `pointers` - 1 slices. The released model has 16. Their scale of time stays that of the
        released model, which would otherwise change with their number.
    beyond : {"repeated", "interpolated"}
        For more than 7 memories there are no trained embeddings: repeat the one of the oldest slice,
        or stretch the six there are. Both are approximations.
    remembered : {"predictions", "truth", "nothing"}
        What a memory holds: what was predicted, as in the released model; or the true mask, as the package
        remembers a slice that is prompted with it ("perfect memory"). With "nothing" no slice is tracked:
        every slice of the object gets a prompt of the design's kind and is predicted from it alone. The
        last two bound from above what a better memory, and doing without one, could give.

    Raises
    ------
    StudyError
        If a number is out of its range or `beyond` is unknown.
    """

    memories: int = TRAINED_MEMORIES
    stride: int = 1
    pointers: int = TRAINED_POINTERS
    beyond: str = "repeated"
    remembered: str = "predictions"

    def __post_init__(self) -> None:
        require_whole("memory window, memories", self.memories, 1)
        require_whole("memory window, stride", self.stride, 1)
        require_whole("memory window, pointers", self.pointers, 1, TRAINED_POINTERS)
        require_known("window, beyond", self.beyond, BEYOND, what="way beyond the trained memories")
        require_known("window, remembered", self.remembered, REMEMBERED, what="content of a memory")
        if self.remembered == "nothing" and replace(self, remembered="predictions") != MemoryWindow():
            raise StudyError(
                "memory window",
                "counts memories, of which none is read.",
                "Leave out what is not `remembered`.",
            )

    @property
    def name(self) -> str:
        """What tables call it: what differs from the released model's, or "released".

        Examples
        --------
        >>> MemoryWindow().name, MemoryWindow(2).name, MemoryWindow(1, pointers=1).name
        ('released', '2 memories', '1 memory, 1 pointer')
        >>> MemoryWindow(stride=3).name, MemoryWindow(9, beyond="interpolated").name
        ('7 memories, stride 3', '9 memories, interpolated')
        >>> MemoryWindow(remembered="truth").name, MemoryWindow(remembered="nothing").name
        ('true masks remembered', 'every slice prompted')
        """
        if self == MemoryWindow():
            return RELEASED_MEMORY
        if replace(self, remembered="predictions") == MemoryWindow():
            return BOUNDS[self.remembered]
        parts = [f"{self.memories} {'memory' if self.memories == 1 else 'memories'}"]
        parts += [f"stride {self.stride}"] if self.stride > 1 else []
        if self.pointers != TRAINED_POINTERS:
            parts.append(f"{self.pointers} {'pointer' if self.pointers == 1 else 'pointers'}")
        parts += [self.beyond] if not self.is_exact else []
        parts += [BOUNDS["truth"]] if self.remembered == "truth" else []
        return ", ".join(parts)

    @property
    def is_exact(self) -> bool:
        """Whether every memory has a trained temporal embedding."""
        return self.memories <= TRAINED_MEMORIES

    @property
    def reach(self) -> int:
        """How many slices back a spatial memory may be read."""
        return max(1, (self.memories - 2) * self.stride + 1) if self.memories > 1 else 0


def windows(
    memory_counts: Sequence[int],
    memory_strides: Sequence[int],
    pointer_counts: Sequence[int],
    remembered: Sequence[str] = (),
) -> list[MemoryWindow]:
    """Return the released memory and windows that differ from it in one respect each.

    After them comes, if both are asked for, one memory with one pointer: nothing but the prompted slices.
    Last come the bounds: what a memory holds, where that is not what was predicted.

    Examples
    --------
    >>> [window.name for window in windows([1, 7], [1, 2], [1])]
    ['released', '1 memory', '7 memories, stride 2', '7 memories, 1 pointer', '1 memory, 1 pointer']
    """
    found = [MemoryWindow()]
    found += [MemoryWindow(number) for number in memory_counts]
    found += [MemoryWindow(stride=stride) for stride in memory_strides]
    found += [MemoryWindow(pointers=number) for number in pointer_counts]
    found += [MemoryWindow(1, pointers=1)] if 1 in memory_counts and 1 in pointer_counts else []
    found += [MemoryWindow(remembered=content) for content in remembered]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class PropagationOptions:
    """What holds for all designs of a run in 3D.

    Attributes
    ----------
    protocol : {"corrected", "released"}
        How three slices are chosen (`designs.prompted_slices`) and what is scored.
    mask_scope : {"all", "prompted", "all_with_boxes"}
        Whether a design's mask choice holds on all slices, or on prompted ones only (the others then
        keep the most confident candidate). The package gives one mask, and no choice, on a slice that is
        prompted with more than one point or with a box, which is two points to it; with
        "all_with_boxes" it gives three for two points too (`multimask_max_pt_num` = 2), as the image
        predictor does.
    until : {"last_object_slice", "volume_end"}
        Predict the slices that hold the object and stop after the last of them in each direction, or
        predict every slice.
    window : MemoryWindow
        The released model's, unless given.
    attention : {"exact", "blocked"}
        "blocked" is faster in bfloat16 on a CPU and not bit-identical.
    frames : {"image", "video"}
        How a slice is resized to the network's input: as the image predictor does (antialiased bilinear
        on floats, so that 2D and 3D see the same pixels), or as the video predictor's loader of folders
        does (bicubic on 8 bits).
    kernels : {"eager", "compiled"}
        "compiled" runs what tracks a slice (memory attention, mask decoder, memory encoder) through
        `torch.compile`: meant for a GPU, and not bit-identical.
    branches_at_once : int
        How many states of a volume, of different designs and objects, are tracked in one call, from 1 to 64.
        More than 1 is meant for a GPU, and not bit-identical: larger matrix products round differently.

    Raises
    ------
    StudyError
        If a name is unknown, the message suggests the nearest known one; if a number is out of its range; or
        if compiled kernels and blocked attention, which replaces one of them, are both asked for.
    """

    protocol: str = "corrected"
    mask_scope: str = "all"
    until: str = "last_object_slice"
    window: MemoryWindow = MemoryWindow()
    attention: str = "exact"
    frames: str = "image"
    kernels: str = "eager"
    branches_at_once: int = 1

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            what = "kind of kernels" if name == "kernels" else name.replace("_", " ")
            require_known(name, getattr(self, name), known, what=what)
        require_whole("branches_at_once", self.branches_at_once, 1, MOST_BRANCHES)
        if (self.kernels, self.attention) == ("compiled", "blocked"):
            raise StudyError("kernels", "'compiled' and blocked attention exclude each other.", "Choose one.")

    def as_dict(self) -> dict:
        """Return the options as plain values, for a key or a record."""
        return asdict(self)


# The names that each option may have.
CHOICES = {
    "protocol": PROTOCOLS,
    "mask_scope": MASK_SCOPES,
    "until": ENDS,
    "attention": ATTENTION,
    "frames": FRAMES,
    "kernels": KERNELS,
}
