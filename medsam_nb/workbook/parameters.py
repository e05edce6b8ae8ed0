"""The values of a study's parameters: each is checked before the first notebook starts.

What a value may be is known elsewhere, and asked there: the type by the notebook's default, names by the
module that uses them, data sets and models by the manifest.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from medsam_nb.data.cluster import check_cluster
from medsam_nb.errors import StudyError, WorkbookError, require_known
from medsam_nb.finetuning.settings import LEARNS
from medsam_nb.manifest.rows import Manifest
from medsam_nb.protocol import corrections
from medsam_nb.protocol.designs import FRAME_CHOICES, MASK_CHOICES_3D, chosen_designs, parse_design
from medsam_nb.protocol.options import ATTENTION, MemoryWindow, PropagationOptions
from medsam_nb.protocol.prompt_sources import parse_source
from medsam_nb.protocol.prompts import PROMPTS_2D, PROMPTS_3D
from medsam_nb.provenance import project_root
from medsam_nb.workbook.kept_masks import check_choice, names_of

MAY_BE_EMPTY = ("objects", "label_maps", "other_data_sets")  # lists; empty for all
FREE = ("designs", "masks", "training_patients")  # of several types; see their own checks
RANGES = {
    "workers": (0, 256),
    "seed": (0, 2**63 - 1),
    "resamples": (100, 1_000_000),
    "features_gb": (0, None),
    "failed_below": (0, 1),
    "clicks": (1, 100),
    "loops": (1, 100),
    "held_out_patients": (0, None),
    "repeats": (1, 100),
    "training_slices": (0, None),
    "learning_rate": (1e-9, 1),
}
WRITTEN_AS = {  # how a value of a type is written in YAML
    bool: "true or false",
    int: "a whole number, such as 4",
    float: "a number, such as 0.5",
    str: "a word; in quotation marks where YAML would read it otherwise",
    list: "a list, such as [one, two]",
    dict: "names and values, such as {name: value}",
}


def check_type(value: object, default: object) -> None:
    """Raise StudyError if a value has not the type of the notebook's default, or none that can be used."""
    kind = type(default)
    if kind is bool or kind is str or kind is dict:
        right = type(value) is kind
    elif kind is int or kind is float:
        right = type(value) in ((int,) if kind is int else (int, float))
    elif kind is list:
        right = isinstance(value, list)
    else:
        return
    if not right:
        remedy = f"Write {WRITTEN_AS[kind]}."
        if kind is list and isinstance(value, str):
            remedy = f"Write a list: [{value}]."
        raise StudyError(
            "", f"is {_shown(value)}, not {WRITTEN_AS[kind].split(',')[0].split(';')[0]}.", remedy
        )
    if kind in (int, float) and not math.isfinite(value):
        raise StudyError("", f"is {value}.", "Write a number.")
    if kind is str and default and not value.strip():
        raise StudyError("", "is empty.", f"Write {WRITTEN_AS[str]}.")
    if kind is str and any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise StudyError("", f"{value!r} holds control characters.", "Remove them.")
    if kind is list:
        _check_items(value, default)


def _check_items(values: list, default: list) -> None:
    kind = type(default[0]) if default else str
    for value in values:
        if type(value) is not kind or (kind is str and not value.strip()):
            raise StudyError(
                "", f"holds {_shown(value)}.", f"Write {WRITTEN_AS.get(kind, kind.__name__)} for every item."
            )
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise StudyError("", f"holds {twice[0]!r} twice.", "Name it once.")


def _shown(value: object) -> str:
    """Return a value in words, short enough for a message."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"the word {text}" if isinstance(value, str) else text


@dataclass(frozen=True)
class Given:
    """The parameters of one notebook, as it will see them, and what they are checked against.

    Attributes
    ----------
    values : mapping
        All parameters of the notebook: those that the study gives, and the defaults of the others.
    rows : Manifest
        The manifests that these parameters name.
    evaluated : frozenset of str
        Models that the study evaluates; empty if it evaluates none.
    prompts, designs : frozenset of str
        Prompts in 2D and names of designs that the study evaluates; empty if none.
    """

    values: Mapping[str, object]
    rows: Manifest
    evaluated: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()
    designs: frozenset[str] = frozenset()

    @property
    def propagates(self) -> bool:
        """Whether the notebook propagates through volumes."""
        return bool({"designs", "other_design"} & set(self.values))


def _check_range(name: str, value: float) -> None:
    low, high = RANGES[name]
    if value < low or (high is not None and value > high):
        raise StudyError(
            "", f"is {value}.", f"Use {low} to {high}." if high is not None else f"Use {low} or more."
        )


def _check_designs(value: object, given: Given) -> None:
    if isinstance(value, Mapping):
        lists = [one if isinstance(one, list) else [one] for one in value.values()]
        words = [*value, *(level for one in lists for level in one)]
    else:
        words = value if isinstance(value, list) else [value]
    if not words or any(not isinstance(word, str) for word in words):
        raise StudyError(
            "",
            f"is {_shown(value)}.",
            "Write all, paper_v1, a list of designs, or levels: {prompt: one_box, direction: [...]}.",
        )
    if not chosen_designs(value):
        raise StudyError("", f"{_shown(value)} leaves no design.", "Name at least one level of each factor.")


def _check_data_sets(names: list[str], given: Given) -> None:
    for name in names:
        row = given.rows.data_set(name)
        if given.propagates and row.dimension != 3:
            raise StudyError(
                "", f"{name} holds single images.", "Propagate through volumes only: leave it out."
            )


def _check_models(names: list[str], given: Given) -> None:
    for name in names:
        row = given.rows.checkpoint(name)
        if given.propagates and row.family != "sam2":
            raise StudyError(
                "", f"{name} is of the family {row.family}, which has no memory.", "Name models of sam2."
            )


def _check_label_maps(names: list[str], given: Given) -> None:
    for name in names:
        row = given.rows.maps(name)
        for data_set in row.data_sets:
            given.rows.data_set(data_set)
        if not any(row.covers(data_set) for data_set in given.values.get("data_sets", [])):
            raise StudyError(
                "", f"{name} has none of these data sets.", "Leave it out, or add one of its own."
            )


SETS = ("data_sets", "modality_sets", "depth_set")  # whose objects a notebook may name


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _check_objects(names: list[str], given: Given) -> None:
    names_of_sets = [name for source in SETS for name in _as_list(given.values.get(source, []))]
    chosen = [given.rows.data_set(name) for name in names_of_sets]
    rows = [row for row in chosen if row.accuracy]  # format examples are not measured
    known = dict.fromkeys(name for row in rows for name in row.objects)
    for name in names:
        require_known("", name, known, what="object of these data sets")
    for row in rows:
        if names and not set(names) & set(row.objects):
            raise StudyError(
                "",
                f"none of them is an object of {row.name}, which has {', '.join(row.objects)}.",
                "Add one, or leave the data set out.",
            )


def _check_masks(value: object, given: Given) -> None:
    task = "3d" if given.propagates else "2d"
    asked = dict(given.values)
    if given.propagates:
        asked["designs"] = chosen_designs(asked["designs"])
    check_choice(value, names_of(task, asked))


def _check_prompt_source(text: str, given: Given) -> None:
    source = parse_source(text)
    if source.kind == "jittered" and given.propagates:
        masks = [d.name for d in chosen_designs(given.values["designs"]) if d.prompt == "mask"]
        if masks:
            raise StudyError(
                "", f"a mask cannot be jittered ({masks[0]}).", "Choose designs with points and boxes."
            )


def _check_role(name: str, given: Given) -> None:
    if given.evaluated:
        require_known("", name, sorted(given.evaluated), what="model that this study evaluates")
    else:
        given.rows.checkpoint(name)


def _check_shown_prompt(name: str, given: Given) -> None:
    require_known("", name, PROMPTS_2D, what="prompt in 2D")
    if given.prompts:
        require_known("", name, sorted(given.prompts), what="prompt that this study evaluates")


def _check_shown_design(name: str, given: Given) -> None:
    parse_design(name)
    if given.designs:
        require_known("", name, sorted(given.designs), what="design that this study evaluates")


def _check_prompts(names: list[str], given: Given) -> None:
    for name in names:
        require_known("", name, PROMPTS_2D, what="prompt in 2D")


def _check_names(names: tuple[str, ...], what: str) -> Callable[[object, Given], None]:
    """Return the check of a parameter whose value is one of these names, or a list of them."""

    def check(value: object, given: Given) -> None:
        for one in value if isinstance(value, list) else [value]:
            require_known("", one, names, what=what)

    return check


def _check_training_patients(values: object, given: Given) -> None:
    right = isinstance(values, list) and all(
        value == ALL or (type(value) is int and value >= 0) for value in values
    )
    if not right or not values or len(set(map(str, values))) < len(values):
        raise StudyError("", f"is {_shown(values)}.", "Write numbers of patients, or all: [1, 5, all].")
    if set(values) == {0}:
        raise StudyError("", "trains on nobody.", "Name at least one number of patients, or all.")


def _check_design(name: str, given: Given) -> None:
    parse_design(name)


def _check_seconds(value: Mapping, given: Given) -> None:
    """What a prompt costs has to be said for every kind that is given."""
    needed = {*given.values.get("initial_prompts", []), *given.values.get("new_information", [])}
    for name, seconds in value.items():
        if not isinstance(name, str):
            raise StudyError("", f"names {_shown(name)}.", "Write prompts and seconds: {one_point: 2}.")
        require_known("", name, PROMPTS_3D, what="prompt in 3D")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise StudyError("", f"says {_shown(seconds)} for {name}.", "Write seconds, more than 0.")
    if missing := sorted(needed - set(value)):
        raise StudyError("", f"says nothing of {', '.join(missing)}.", "Write the seconds that it takes.")


def _check_volume_metrics(name: str, given: Given) -> None:
    from medsam_nb.evaluation.rows import VOLUME_METRICS  # imports torch, so only where it is asked for

    require_known("", name, VOLUME_METRICS, what="choice of volume metrics")


def _check_device(name: str, given: Given) -> None:
    from medsam_nb.models.checkpoints import DEVICES

    kind, colon, number = name.partition(":")
    require_known("", kind, DEVICES, what="device")
    if colon and not (number.isdigit() and kind == "cuda"):
        raise StudyError("", f"{name!r} is no device.", "Write cuda, or cuda:0 with a number.")


def _check_dtype(name: str, given: Given) -> None:
    from medsam_nb.models.checkpoints import DTYPES

    require_known("", name, DTYPES, what="arithmetic")


def _check_cluster(name: str, given: Given) -> None:
    check_cluster(name)


def _check_path(text: str, given: Given) -> None:
    """A path that leaves the workbook's folder has to say so: it is absolute, not relative with '..'."""
    if ".." in Path(text).parts:
        raise StudyError(
            "", f"{text!r} leaves the workbook's folder.", "Give the absolute path of another place."
        )


def _check_prepared_dir(text: str, given: Given) -> None:
    """Prepared cases are replaced and removed by the program, so they must not lie among the downloads."""
    _check_path(text, given)
    if "raw_dir" not in given.values:
        return
    prepared, raw = ((project_root() / place).resolve() for place in (text, given.values["raw_dir"]))
    if prepared == raw or prepared in raw.parents or raw in prepared.parents:
        raise StudyError(
            "", f"{text!r} and raw_dir lie in one another.", "Prepared cases need a folder of their own."
        )


def _check_option(name: str) -> Callable[[object, Given], None]:
    """Return the check of an option of propagation: the object that takes it knows what it may be."""
    holder = PropagationOptions if name in _names(PropagationOptions) else MemoryWindow

    def check(value: object, given: Given) -> None:
        for one in value if isinstance(value, list) else [value]:
            holder(**{name: one})

    return check


def _check_kernels(value: object, given: Given) -> None:
    PropagationOptions(kernels=value)
    if given.values.get("attention") in ATTENTION:  # what it is else is said of it
        PropagationOptions(kernels=value, attention=given.values["attention"])


def _check_window(value: Mapping, given: Given) -> None:
    for name in value:
        require_known("", name, _names(MemoryWindow), what="field of a memory window")
    MemoryWindow(**value)


def _names(holder: type) -> list[str]:
    return [field.name for field in fields(holder)]


ALL = "all"  # of the training patients
ROLES = ("sam2", "sam", "model", "rival")  # parameters that name one evaluated model
CHECKS: dict[str, Callable[..., None]] = {
    **{name: _check_option(name) for name in (*_names(PropagationOptions), *_names(MemoryWindow))},
    "kernels": _check_kernels,
    **dict.fromkeys(ROLES, _check_role),
    **dict.fromkeys(("manifest", "extra_manifest", "raw_dir", "weights_dir", "run_dir"), _check_path),
    "prepared_dir": _check_prepared_dir,
    "window": _check_window,
    "data_sets": _check_data_sets,
    "models": _check_models,
    "label_maps": _check_label_maps,
    "masks": _check_masks,
    "prompt_source": _check_prompt_source,
    "objects": _check_objects,
    "prompts": _check_prompts,
    "designs": _check_designs,
    **dict.fromkeys(("design", "other_design"), _check_design),
    "more_prompts": lambda names, given: [parse_design(name) for name in names],
    "modality_sets": _check_data_sets,
    "depth_set": lambda name, given: _check_data_sets([name], given),
    "other_data_sets": _check_data_sets,
    "learns": _check_names(LEARNS, "part of a network that can learn"),
    "training_patients": _check_training_patients,
    "shown_prompt": _check_shown_prompt,
    "shown_design": _check_shown_design,
    "metric": _check_names(("iou", "dice"), "metric of slices"),
    "volume_metrics": _check_volume_metrics,
    "initial_prompts": _check_names(corrections.INITIAL_PROMPTS, "initial prompt"),
    "strategies": _check_names(corrections.STRATEGIES_3D, "strategy of corrections"),
    "new_information": _check_names(corrections.NEW_INFORMATION, "new information"),
    "frame_choice": _check_names(FRAME_CHOICES, "frame choice"),
    "mask_choice": _check_names(MASK_CHOICES_3D, "mask choice"),
    "seconds_per_prompt": _check_seconds,
    "cluster": _check_cluster,
    "device": _check_device,
    "dtype": _check_dtype,
}


def check_form(name: str, value: object, default: object) -> None:
    """Raise StudyError if a parameter's value has the wrong type, or a number is out of its range."""
    if name not in FREE:
        check_type(value, default)
    if name in RANGES and isinstance(value, int | float):
        _check_range(name, value)
    if isinstance(value, list) and not value and name not in MAY_BE_EMPTY:
        raise StudyError("", "is an empty list.", "Name at least one.")


def check_meaning(name: str, given: Given) -> None:
    """Raise WorkbookError if a parameter's value is unknown where it is used, or does not go with others."""
    if name in CHECKS:
        CHECKS[name](given.values[name], given)


def named(where: str, error: WorkbookError) -> WorkbookError:
    """Return an error that says whose value is wrong: the checks themselves know only the value."""
    return type(error)(where, error.problem, error.remedy)
