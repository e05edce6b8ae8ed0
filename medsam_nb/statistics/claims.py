"""The study's claims as hypotheses: each says in its sentence what is tested, and names the tests.

A claim about "much" or "about as well" has a margin, which stands in the sentence. `claim_values` makes the
pairs of a test; `scoreboard` makes the inference.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from medsam_nb.protocol.corrections import STRATEGIES_3D
from medsam_nb.statistics.claim_values import (
    FAR_SLICES,
    after_corrections,
    both_models,
    deep,
    deep_against_flat,
    falls_with_distance,
    far_against_near,
    far_loss_against_near,
    flat,
    likeness_of_areas,
    likeness_of_truth,
)

HIGH_IOU = 0.8
MARGIN = 0.05  # IoU; of "about as well" and "at least as good"
MUCH = 0.1  # IoU; of "much worse": twice the difference that still counts as about as good


@dataclass(frozen=True)
class Claim:
    """One statement of the study and how it is tested.

    Attributes
    ----------
    number : str
    sentence : str
        In our own words, as it is tested; {margin} and {much} stand for the margins.
    source : str
        The version that says it.
    relation : {">", ">=", "<", "<<", "="}
        What is claimed of the first side against the second: higher; not lower by more than the margin;
        lower; lower by more than `MUCH`; within the margin.
    tests : tuple of (name, function of table and model names returning pairs)
    needs : str
        What a table must hold to test it.
    mirrors : str
        Another claim that says the opposite of the same test, which is made and counted once.
    """

    number: str
    sentence: str
    source: str
    relation: str
    tests: tuple[tuple[str, Callable], ...]
    needs: str
    mirrors: str = ""

    def said(self, margin: float = MARGIN, much: float = MUCH) -> "Claim":
        """Return the claim with the margins in its sentence."""
        return replace(self, sentence=self.sentence.format(margin=f"{margin:g}", much=f"{much:g}"))


POINTS = ["one_point", "point_per_component"]
_DEEP = "3D rows of SAM 2"
_CORRECTED = "rows of 11_correct_masks (task 3d_loops) with corrections"
CLAIMS = (
    Claim(
        "H1", "On single slices SAM 2 segments about as well as SAM: mean IoUs differ by less than {margin}.",
        "all versions", "=",
        (("SAM 2 against SAM, all prompts", both_models),),
        "2D rows of a SAM 2 and a SAM model on the same cases",
    ),
    Claim(
        "H2", "On single slices a box is better than a point.", "arXiv v1", ">",
        tuple(
            (f"{label}: {a.replace('_', ' ')} against {b.replace('_', ' ')}", flat(a, b, model))
            for model, label in (("sam2", "SAM 2"), ("sam", "SAM"))
            for a, b in (("one_box", "one_point"), ("box_per_component", "point_per_component"))
        ),
        "2D rows with point and box prompts",
    ),
    Claim(
        "H3", "On single slices prompting several parts of an object is not worse, by {margin} or more, than "
        "prompting one.", "SAM study", ">=",
        tuple(
            (f"{label}: {a.replace('_', ' ')} against {b.replace('_', ' ')}", flat(a, b, model))
            for model, label in (("sam2", "SAM 2"), ("sam", "SAM"))
            for a, b in (("point_per_component", "one_point"), ("box_per_component", "one_box"))
        ),
        "2D rows with single and per-component prompts",
    ),
    Claim(
        "H4", "In volumes, with point prompts, the first mask is not worse, by {margin} or more, than the "
        "most confident one.", "arXiv v1 and TBME", ">=",
        (("first against most confident mask, point prompts",
          deep("mask_choice", "first_mask", "most_confident_mask", prompt=POINTS)),),
        f"{_DEEP} with both mask choices",
    ),
    Claim(
        "H5a", "Prompting three slices is better than prompting one.", "last arXiv version", ">",
        tuple(
            (f"three slices against {b.replace('_', ' ')}", deep("frame_choice", "three_slices", b))
            for b in ("first_slice", "centre_slice", "largest_slice")
        ),
        f"{_DEEP} with all frame choices",
    ),
    Claim(
        "H5b", "To prompt the centre slice is better than to prompt the largest one.",
        "last arXiv version", ">",
        (("centre against largest slice", deep("frame_choice", "centre_slice", "largest_slice")),),
        f"{_DEEP} with centre and largest slice",
    ),
    Claim(
        "H5c", "To prompt the largest slice is better than to prompt the centre one.", "TBME", ">",
        (("largest against centre slice", deep("frame_choice", "largest_slice", "centre_slice")),),
        f"{_DEEP} with centre and largest slice", mirrors="H5b",
    ),
    Claim(
        "H5d", "To prompt the object's first slice is worse than to prompt the centre or the largest one.",
        "expected from both", "<",
        tuple(
            (f"first against {b.replace('_', ' ')}", deep("frame_choice", "first_slice", b))
            for b in ("centre_slice", "largest_slice")
        ),
        f"{_DEEP} with first, centre and largest slice",
    ),
    Claim(
        "H6", "In volumes the ground-truth mask is better than a box, and a box better than a point.",
        "last arXiv version and TBME", ">",
        (("mask against one box", deep("prompt", "mask", "one_box")),
         ("one box against one point", deep("prompt", "one_box", "one_point"))),
        f"{_DEEP} with point, box and mask prompts",
    ),
    Claim(
        "H7", "Propagating to both sides is better than from front to end.",
        "last arXiv version and TBME", ">",
        (("bidirectional against front to end", deep("direction", "bidirectional", "front_to_end")),),
        f"{_DEEP} in both directions",
    ),
    Claim(
        "H8a", "Correcting volumes in loops with further points or boxes changes the mean IoU by less than "
        "{margin}.", "last arXiv version and TBME", "=",
        tuple(
            (f"after against before, {strategy} with {information.replace('_', ' ')}",
             after_corrections(strategy, information))
            for strategy in STRATEGIES_3D for information in ("one_point", "one_box")
        ),
        f"{_CORRECTED} by points and boxes",
    ),
    Claim(
        "H8b", "Correcting volumes in loops with the ground-truth masks of further slices raises the mean "
        "IoU.",
        "last arXiv version and TBME", ">",
        tuple(
            (f"after against before, {strategy} with mask", after_corrections(strategy, "mask"))
            for strategy in STRATEGIES_3D
        ),
        f"{_CORRECTED} by masks",
    ),
    Claim(
        "H9", "Propagated masks are worse, by more than {much}, than prompting each of the same slices.",
        "arXiv v1", "<<",
        (("3D against 2D, propagated slices", deep_against_flat),),
        "2D and 3D rows of the same model and cases",
    ),
    Claim(
        "H11", f"The IoU falls with the distance from the prompt, and is lower beyond {FAR_SLICES} slices "
        "than nearer, also net of what 2D prompting reaches there.",
        "arXiv v1", "<",
        (("rank correlation with distance", falls_with_distance),
         (f"beyond {FAR_SLICES} slices against nearer", far_against_near),
         (f"loss against 2D, beyond {FAR_SLICES} slices against nearer", far_loss_against_near)),
        f"{_DEEP} with distances beyond {FAR_SLICES} slices, and 2D rows of the same slices",
    ),
    Claim(
        "H12", "Propagation is better where the object looks alike on neighbouring slices.", "arXiv v1", ">",
        (("rank correlation with the truth's IoU on neighbouring slices", likeness_of_truth),
         ("rank correlation with likeness of neighbouring areas", likeness_of_areas)),
        f"{_DEEP} with the truth's likeness on neighbouring slices (neighbour_iou) and its size (truth_px)",
    ),
)  # fmt: skip
# The two claims about a best design, which is chosen on the same cases: `selection` tests them.
H10 = Claim(
    "H10", "The best design, chosen on other patients or data sets, is better than the mean over designs.",
    "arXiv v1, last version", ">", (), f"{_DEEP} with two or more designs and patients",
)  # fmt: skip
H13 = Claim(
    "H13", f"For some object the best 3D design with a box or mask has a mean IoU above {HIGH_IOU}.",
    "TBME", ">", (), f"{_DEEP} with box or mask prompts",
)  # fmt: skip
