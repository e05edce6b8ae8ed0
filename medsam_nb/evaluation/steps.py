"""Single steps of the official predictor, each distinct one made once; what is kept of them.

The steps are the package's own methods (`add_new_points_or_box`, `add_new_mask`,
`_run_single_frame_inference`), called with the same inputs in the same arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from medsam_nb.models.attention import attention_mode
from medsam_nb.models.checkpoints import Model
from medsam_nb.models.compiling import compiled_parts
from medsam_nb.models.features import SliceFeatures
from medsam_nb.models.memory import looking_back
from medsam_nb.models.predictor import (
    CandidateChoice,
    add_prompt,
    candidates_of,
    open_state,
    sharing_features,
)
from medsam_nb.models.sharing import Answers, answering_batches_once, answering_once
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.options import PropagationOptions
from medsam_nb.protocol.prompts import Prompt


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

    def ends_at(self, index: int, reverse: bool) -> bool:
        """Whether this is the last slice of the pass."""
        return index == (min(self.slices) if reverse else max(self.slices))

    def kind(self, index: int, reverse: bool) -> tuple:
        """Return what branches that can be tracked as one batch have in common: what they remember."""
        return tuple(self.prompted), tuple(self.tracked), self.ends_at(index, reverse)

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


MASKS_AT_ONCE = 16  # 16 MB of logits of 512 x 512 pixels


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
        attention, prompts = network.memory_attention, network.sam_prompt_encoder
        compiled = tracking and self._options.kernels == "compiled"
        self._slice_answers.clear()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(self.model.precision())
            stack.enter_context(sharing_features(network, self._features))
            stack.enter_context(looking_back(network, self._options.window))
            stack.enter_context(candidates_of(network, self._options.mask_scope))
            # whole parts can be compiled, but not what is shared within them
            stack.enter_context(compiled_parts(network) if compiled else self._sharing_within())
            stack.enter_context(answering_once(attention, "forward", self._answers, self._attention))
            stack.enter_context(answering_once(network.sam_mask_decoder, "forward", self._answers))
            stack.callback(network.sam_mask_decoder.register_forward_hook(self._choice).remove)
            stack.enter_context(answering_once(prompts, "get_dense_pe", self._constants))
            if tracking:  # every tracked slice gets the same "no prompt"
                stack.enter_context(answering_batches_once(prompts, "forward", self._constants))
            yield

    @contextmanager
    def _sharing_within(self) -> Iterator[None]:
        """Compute once what all questions on a slice, or on all slices, share within the network's parts."""
        first_layer, memory = self.network.memory_attention.layers[0], self.network.memory_encoder
        with ExitStack() as stack:
            for module, method, answers in (
                (first_layer, "_forward_sa", self._slice_answers),
                (first_layer.cross_attn_image.q_proj, "forward", self._slice_answers),
                (memory.pix_feat_proj, "forward", self._slice_answers),
                (memory.position_encoding, "forward", self._constants),
            ):
                stack.enter_context(answering_batches_once(module, method, answers))
            yield

    def per_choice(
        self, choices: set[bool], step: Callable[[], tuple[torch.Tensor, dict]], count: int = 1
    ) -> list[dict[bool, Kept]]:
        """Ask one question for each mask choice (True: first); choices that agree share the answer.

        Parameters
        ----------
        choices : set of bool
        step : callable () -> (logits, what is remembered)
            Asks it, of a batch of `count` states.
        count : int

        Returns
        -------
        list of dict
            What each state kept, by choice.
        """
        self._answers.clear()
        kept: list[dict[bool, Kept]] = [{} for _ in range(count)]
        for first in sorted(choices):
            agreeing = [one for one in kept if first and one and one[False].candidate == 0]
            for one in agreeing:
                one[True] = one[False]
            if len(agreeing) == count:
                continue
            self._choice.first = first
            logits, remembered = step()
            for number, one in enumerate(kept):
                if first not in one:
                    candidate, score = self._choice.candidates[number], self._choice.scores[number]
                    own = _item(remembered, number, count)
                    one[first] = Kept(candidate, score, logits[number : number + 1], own)
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
            self._choice.scores = [float("nan")]
        return remembered["pred_masks"], remembered

    def remember(self, index: int, masks: Mapping[str, np.ndarray]) -> dict[str, dict]:
        """Return, by object, what the package remembers of a slice that is prompted with a mask (y, x)."""
        prompts = {name: Prompt(mask=mask) for name, mask in masks.items()}
        asked = {name: partial(self.prompt, index, prompt) for name, prompt in prompts.items()}
        return {name: self.per_choice({False}, ask)[0][False].remembered for name, ask in asked.items()}

    def track(self, branches: Sequence[Branch], index: int, reverse: bool) -> tuple[torch.Tensor, dict]:
        """Predict a slice from memory states that are alike (`Branch.kind`), as a batch.

        Nothing reads the memory of a pass's last slice.
        """
        past = {
            "cond_frame_outputs": _joined([branch.prompted for branch in branches]),
            "non_cond_frame_outputs": _joined([branch.tracked for branch in branches]),
        }
        is_read = not branches[0].ends_at(index, reverse) and self._options.window.remembered == "predictions"
        remembered, logits = self.network._run_single_frame_inference(
            self.state, past, index, len(branches), False, None, None, reverse, run_mem_encoder=is_read
        )
        return logits, remembered

    def at_slice_resolution(self, predicted: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield several logits at the resolution of the slices, float32 (n, y, x), a few at a time."""
        for first in range(0, len(predicted), MASKS_AT_ONCE):
            with torch.inference_mode():
                resized = [
                    self.network._get_orig_video_res_output(self.state, one)[1][0, 0].float()
                    for one in predicted[first : first + MASKS_AT_ONCE]
                ]
                found = torch.stack(resized)
            yield found


def _item(remembered: dict, number: int, count: int) -> dict:
    """Return what is remembered of one state of a batch."""
    if count == 1:
        return remembered
    parts = {}
    for name, value in remembered.items():
        if isinstance(value, list):  # position encodings, by level
            parts[name] = [level[number : number + 1] for level in value]
        else:
            parts[name] = None if value is None else value[number : number + 1]
    return parts


def _joined(memories: Sequence[dict[int, dict]]) -> dict[int, dict]:
    """Return the memories of several states as those of a batch, in what the package reads of them."""
    if len(memories) == 1:
        return memories[0]
    joined = {}
    for index, first in memories[0].items():
        joined[index] = {"obj_ptr": torch.cat([memory[index]["obj_ptr"] for memory in memories])}
        if first["maskmem_features"] is not None:
            features = torch.cat([memory[index]["maskmem_features"] for memory in memories])
            positions = [level[:1].expand(len(memories), -1, -1, -1) for level in first["maskmem_pos_enc"]]
            joined[index] |= {"maskmem_features": features, "maskmem_pos_enc": positions}
    return joined
