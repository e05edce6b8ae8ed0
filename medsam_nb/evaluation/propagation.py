"""All designs of a volume for little more than one: a tree of shared memory states.

Every prediction of the video model follows from a slice's features and a memory state: what was
remembered of the slices before. Designs differ late. They share the features of all slices; those with
the same prompts share the prompted slices; and two mask choices share the state until they first keep
different candidates. So the designs of an object are a tree. Its roots are the memories of prompted
slices, a `Branch` is one state with the designs that are in it, and a branch forks where its designs
part. One sweep forward and one backward carry all branches, and every step is made once per branch.

The steps are the official predictor's own methods (`add_new_points_or_box`, `add_new_mask`,
`_run_single_frame_inference`), called with the same inputs in the same arithmetic: the predictions are
those of `reference.sweep`, bit for bit.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch

from medsam_nb.models.attention import attention_mode
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.memory import looking_back
from medsam_nb.models.predictor import (
    CandidateChoice,
    add_prompt,
    candidates_of,
    open_state,
    sharing_features,
)
from medsam_nb.models.sharing import Answers, answering_once
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt
from medsam_nb.protocol.tracks import SliceMask, Track, plan


@dataclass(frozen=True, eq=False)
class Kept:
    """The candidate that was kept on a slice.

    Attributes
    ----------
    candidate : int
        Its number among the decoder's masks.
    score : float
        Estimated IoU.
    logits : Tensor, shape (1, 1, y / 4, x / 4) of the model's input
    remembered : dict
        What the package keeps of the slice: memory features, object pointer.
    """

    candidate: int
    score: float
    logits: torch.Tensor
    remembered: dict


@dataclass(frozen=True, eq=False)
class Branch:
    """A memory state, and the designs that share it.

    Attributes
    ----------
    object_name : str
    designs : tuple of Design
    slices : frozenset of int
        Slices to track, all in one direction; the prompted ones among them are known already.
    prompted, tracked : dict of int to dict
        What is remembered of prompted slices, and of those tracked lately, in the package's form.
    """

    object_name: str
    designs: tuple[Design, ...]
    slices: frozenset[int]
    prompted: dict[int, dict]
    tracked: dict[int, dict] = field(default_factory=dict)

    def after(self, index: int, kept: Kept, designs: Sequence[Design], reach: tuple[int, int]) -> "Branch":
        """Return the state after a slice, for those designs that kept this candidate.

        `reach` is how many slices back memory features and object pointers are read at most; what no
        later slice can read is forgotten.
        """
        features_reach, pointers_reach = reach
        past = {index: kept.remembered | {"pred_masks": None}}
        for other, remembered in self.tracked.items():
            if abs(index - other) < features_reach:
                past[other] = remembered
            elif abs(index - other) < pointers_reach:
                past[other] = remembered | {"maskmem_features": None, "maskmem_pos_enc": None}
        return replace(self, designs=tuple(designs), tracked=past)


MASKS_PER_COPY = 16  # 16 MB of logits of 512 x 512 pixels


class Steps:
    """Single steps of the official predictor, with what a repeated question shares answered from memory.

    Two mask choices ask the same question of the same state: memory attention and decoder run for the
    first, and only the choice, the pointer and the memory encoder for the second. All questions on one
    slice share the first self-attention and the first queries, which see no memory yet, and the memory
    encoder's projection of the image.
    """

    def __init__(self, model: Model, features: SliceFeatures, options: PropagationOptions) -> None:
        self.model, self.network = model, model.network
        self._features, self._options = features, options
        self._attention = attention_mode(options.attention)
        self._choice = CandidateChoice()
        self._answers: Answers = {}
        self._slice_answers: Answers = {}
        self._constants: Answers = {}
        with self.running(tracking=False):
            self.state = open_state(self.network, features.slices)

    @contextmanager
    def running(self, tracking: bool) -> Iterator[None]:
        """Work on one slice, prompted or tracked; before and after, the network is as it was."""
        network = self.network
        attention, first_layer = network.memory_attention, network.memory_attention.layers[0]
        prompts, position = network.sam_prompt_encoder, network.memory_encoder.position_encoding
        self._slice_answers.clear()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(self.model.precision())
            stack.enter_context(sharing_features(network, self._features))
            stack.enter_context(looking_back(network, self._options.window))
            stack.enter_context(candidates_of(network, self._options.mask_scope))
            stack.enter_context(answering_once(attention, "forward", self._answers, self._attention))
            stack.enter_context(answering_once(first_layer, "_forward_sa", self._slice_answers))
            queries = first_layer.cross_attn_image.q_proj
            stack.enter_context(answering_once(queries, "forward", self._slice_answers))
            project = network.memory_encoder.pix_feat_proj
            stack.enter_context(answering_once(project, "forward", self._slice_answers))
            stack.enter_context(answering_once(network.sam_mask_decoder, "forward", self._answers))
            stack.callback(network.sam_mask_decoder.register_forward_hook(self._choice).remove)
            stack.enter_context(answering_once(position, "forward", self._constants))
            stack.enter_context(answering_once(prompts, "get_dense_pe", self._constants))
            if tracking:  # every tracked slice gets the same "no prompt"
                stack.enter_context(answering_once(prompts, "forward", self._constants))
            yield

    def per_choice(
        self, choices: set[bool], step: Callable[[], tuple[torch.Tensor, dict]]
    ) -> dict[bool, Kept]:
        """Ask one question for each mask choice (True: first); choices that agree share the answer."""
        self._answers.clear()
        kept: dict[bool, Kept] = {}
        for first in sorted(choices):
            if first and kept and kept[False].candidate == 0:
                kept[True] = kept[False]
                continue
            self._choice.first = first
            logits, remembered = step()
            kept[first] = Kept(self._choice.candidate, self._choice.score, logits, remembered)
        return kept

    def prompt(self, index: int, prompt: Prompt) -> tuple[torch.Tensor, dict]:
        """Decode a prompted slice and encode its memory, as before propagation."""
        self.network.reset_state(self.state)
        return self.prompted_output(index, prompt)

    def prompted_output(self, index: int, prompt: Prompt) -> tuple[torch.Tensor, dict]:
        """Give a prompt to the state as it is; return what is kept of its slice."""
        add_prompt(self.network, self.state, index, prompt)
        self.network.propagate_in_video_preflight(self.state)
        remembered = self.state["output_dict_per_obj"][0]["cond_frame_outputs"][index]
        if prompt.mask is not None:
            self._choice.score = float("nan")
        return remembered["pred_masks"], remembered

    def remember(self, index: int, masks: Mapping[str, np.ndarray]) -> dict[str, dict]:
        """Return, by object, what the package remembers of a slice that is prompted with a mask (y, x)."""
        prompts = {name: Prompt(mask=mask) for name, mask in masks.items()}
        asked = {name: partial(self.prompt, index, prompt) for name, prompt in prompts.items()}
        return {name: self.per_choice({False}, ask)[False].remembered for name, ask in asked.items()}

    def track(self, branch: Branch, index: int, reverse: bool) -> tuple[torch.Tensor, dict]:
        """Predict a slice from a memory state; nothing reads the memory of a pass's last slice."""
        past = {"cond_frame_outputs": branch.prompted, "non_cond_frame_outputs": branch.tracked}
        is_last = index == (min(branch.slices) if reverse else max(branch.slices))
        is_read = not is_last and self._options.window.remembered == "predictions"
        remembered, logits = self.network._run_single_frame_inference(
            self.state, past, index, 1, False, None, None, reverse, run_mem_encoder=is_read
        )
        return logits, remembered

    def at_slice_resolution(self, predicted: Sequence[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield several logits as float32 (y, x) at the resolution of the slices.

        They leave the device in few copies: a GPU waits for each.
        """
        for first in range(0, len(predicted), MASKS_PER_COPY):
            with torch.inference_mode():
                resized = [
                    self.network._get_orig_video_res_output(self.state, one)[1][0, 0].float()
                    for one in predicted[first : first + MASKS_PER_COPY]
                ]
                found = torch.stack(resized).cpu().numpy()
            yield from found


Answered = tuple[str, Kept, list[Design]]  # an object, what was kept on a slice, and by which designs


def _masks(steps: Steps, index: int, prompted: bool, answered: list[Answered]) -> Iterator[SliceMask]:
    """Yield the predictions of one slice."""
    found = steps.at_slice_resolution([kept.logits for _, kept, _ in answered])
    for logits, (name, kept, designs) in zip(found, answered, strict=True):
        yield SliceMask(name, tuple(designs), index, logits, kept.score, prompted)


def _roots(tracks: Sequence[Track], kept: Mapping[tuple[Track, int], Kept], reverse: bool) -> list[Branch]:
    """Return the branches of one direction: designs whose prompted slices and route are the same."""
    roots: dict[tuple, list[Track]] = defaultdict(list)
    for track in tracks:
        for one_pass in track.passes:
            ahead = frozenset(one_pass.slices) - set(track.prompted)
            if ahead and one_pass.reverse == reverse:
                memories = tuple(kept[track, index] for index in track.prompted)
                roots[track.object_name, ahead, track.prompted, memories].append(track)
    return [
        Branch(
            name,
            tuple(track.design for track in sharing),
            ahead,
            {index: one.remembered for index, one in zip(prompted, memories, strict=True)},
        )
        for (name, ahead, prompted, memories), sharing in roots.items()
    ]


def sweep(
    model: Model,
    slices: np.ndarray,
    objects: Mapping[str, np.ndarray],
    designs: Sequence[Design],
    prompt_of: Callable[[str, int, str], Prompt],
    options: PropagationOptions = PropagationOptions(),
    *,
    features: SliceFeatures | None = None,
    given: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[SliceMask]:
    """Predict every design of every object of a volume, each distinct step once.

    Parameters
    ----------
    model : Model
        Of family "sam2".
    slices : ndarray of uint8, shape (z, y, x) or, in colour, (z, y, x, 3)
    objects : mapping of str to ndarray of bool, shape (z, y, x)
        Tracked one by one; an object without a voxel yields nothing.
    designs : sequence of Design
    prompt_of : callable (object_name, slice_index, kind) -> Prompt
        Asked once per object, slice and kind.
    options : PropagationOptions
    features : SliceFeatures, optional
        Of these slices and this model, to share them with other runs.
    given : mapping of str to sequence of int, optional
        Prompted slices by object, in place of the designs' frame choices; see `tracks.plan`.

    Yields
    ------
    SliceMask
        Each wanted slice of each design of each object once: prompted slices first, then slice by slice
        forward, then backward.
    """
    content = options.window.remembered
    alone = content == "nothing"
    tracks = plan(objects, designs, options.protocol, options.until, given, each_alone=alone)
    if not tracks:
        return
    features = features or SliceFeatures(model, slices, frames=options.frames)
    if features.frames != options.frames:
        raise ValueError(f"features of frames {features.frames!r} given, {options.frames!r} asked for")
    steps = Steps(model, features, options)
    prompt_of = cache(prompt_of)

    # The roots: every prompt on every slice, decoded once.
    asked: dict[int, dict[tuple, list[Track]]] = defaultdict(lambda: defaultdict(list))
    for track in tracks:
        for index in track.prompted:
            prompt = prompt_of(track.object_name, index, track.design.prompt)
            asked[index][track.object_name, prompt.content].append(track)
    kept: dict[tuple[Track, int], Kept] = {}
    for index in sorted(asked):
        answered: list[Answered] = []
        with steps.running(tracking=False):
            for (name, _), sharing in asked[index].items():
                prompt = prompt_of(name, index, sharing[0].design.prompt)
                choice_of = {track: track.design.mask_choice == "first_mask" for track in sharing}
                answers = steps.per_choice(set(choice_of.values()), partial(steps.prompt, index, prompt))
                for one in dict.fromkeys(answers.values()):
                    agreeing = [track for track in sharing if answers[choice_of[track]] is one]
                    kept |= {(track, index): one for track in agreeing}
                    answered.append((name, one, [track.design for track in agreeing]))
        yield from _masks(steps, index, True, answered)

    # The branches: one sweep forward, one backward.
    wanted = {track.object_name: track.wanted for track in tracks}
    reach = options.window.reach, model.network.max_obj_ptrs_in_encoder - 1
    for reverse in (False, True):
        branches = _roots(tracks, kept, reverse)
        for index in sorted(set().union(*(branch.slices for branch in branches)), reverse=reverse):
            answered, grown, true = [], [], {}
            if content == "truth":
                names = {branch.object_name for branch in branches if index in branch.slices}
                with steps.running(tracking=False):
                    true = steps.remember(index, {name: objects[name][index] for name in sorted(names)})
            with steps.running(tracking=True):
                for branch in branches:
                    if index not in branch.slices:
                        grown.append(branch)
                        continue
                    choice_of = {
                        design: options.mask_scope != "prompted" and design.mask_choice == "first_mask"
                        for design in branch.designs
                    }
                    step = partial(steps.track, branch, index, reverse)
                    answers = steps.per_choice(set(choice_of.values()), step)
                    for one in dict.fromkeys(answers.values()):
                        agreeing = [design for design in branch.designs if answers[choice_of[design]] is one]
                        past = replace(one, remembered=true.get(branch.object_name, one.remembered))
                        grown.append(branch.after(index, past, agreeing, reach))
                        if index in wanted[branch.object_name]:
                            answered.append((branch.object_name, one, agreeing))
            branches = grown
            yield from _masks(steps, index, False, answered)
