"""How the miniatures' weights begin, and how they are saved."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from medsam_nb.finetuning.steps import prompt_parts
from medsam_nb.models.miniature import ENCODER_BLOCKS, build_sam2


@torch.no_grad()
def initialise_prompting(model) -> None:
    """Structured initialisation of prompt encoder and mask decoder, in place.

    A point token attends to its own place in the image from the first step: keys equal queries in the
    four token-image attentions, and the positional code is lower-frequent than SAM's default.
    """
    prompts, decoder = prompt_parts(model)
    prompts.pe_layer.positional_encoding_gaussian_matrix.mul_(0.4)
    for embedding in (*prompts.point_embeddings, prompts.not_a_point_embed):
        embedding.weight.mul_(0.3)
    prompts.no_mask_embed.weight.mul_(0.1)
    transformer = decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for block in transformer.layers:
        attentions += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
    for attention in attentions:
        attention.q_proj.weight.mul_(2.5)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.q_proj.bias.zero_()
        attention.k_proj.bias.zero_()


@torch.no_grad()
def initialise_memory(model: SAM2VideoPredictor, embeddings: torch.Tensor) -> None:
    """Structured initialisation of the memory attention, in place, when memory training starts.

    Every pixel attends to the same place in the memory, and the output has the distribution that the
    image-trained decoder knows.

    Parameters
    ----------
    model : SAM2VideoPredictor
    embeddings : Tensor, shape (batch, channels, y, x)
        Stride-16 features with the no-memory embedding added, of a batch of training images.
    """
    for layer in model.memory_attention.layers:
        layer.cross_attn_image.q_proj.bias.fill_(2.0)
        layer.cross_attn_image.k_proj.bias.fill_(2.0)
        layer.self_attn.out_proj.weight.mul_(0.1)
        layer.linear2.weight.mul_(0.1)
    flat = embeddings.permute(1, 0, 2, 3).flatten(1)
    model.memory_attention.norm.weight.copy_(flat.std(dim=1))
    model.memory_attention.norm.bias.copy_(flat.mean(dim=1))


def _stages_of(state: dict[str, torch.Tensor]) -> list[list[str]]:
    """Return the names of the encoder's blocks, stage by stage (a stage is as wide as its blocks)."""
    width = {
        name.removesuffix(".attn.proj.bias"): len(value)
        for name, value in state.items()
        if name.endswith(".attn.proj.bias") and ".trunk.blocks." in name
    }
    in_order = sorted(width, key=lambda name: int(name.rsplit(".", 1)[1]))
    return [[name for name in in_order if width[name] == one] for one in sorted(set(width.values()))]


def deepened(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a miniature SAM 2 with fewer encoder blocks as weights of today's, which predict the same.

    Blocks are added at the end of a stage and pass on what they receive until training changes them.

    Parameters
    ----------
    state : dict of str to Tensor
        State dict of `build_sam2` with at most `ENCODER_BLOCKS` blocks in each stage.

    Raises
    ------
    ValueError
        If the weights are of another network, or of a deeper one.
    """
    result = build_sam2().state_dict()
    given_stages, own_stages = _stages_of(state), _stages_of(result)
    depths = [len(stage) for stage in given_stages]
    if len(depths) != len(ENCODER_BLOCKS) or any(map(int.__gt__, depths, ENCODER_BLOCKS)):
        raise ValueError(
            f"weights with {depths} encoder blocks are not of a miniature SAM 2 with at most "
            f"{ENCODER_BLOCKS}: start from others"
        )
    for given, own in zip(given_stages, own_stages, strict=True):
        for place, block in enumerate(own):
            for name in [name for name in result if name.startswith(f"{block}.")]:
                part = name.removeprefix(block)
                if place < len(given):
                    result[name] = state[given[place] + part]
                elif part.startswith((".attn.proj.", ".mlp.layers.1.")):
                    result[name].zero_()
    return result | {name: value for name, value in state.items() if ".trunk.blocks." not in name}


def save_state(model: torch.nn.Module | dict, path: Path) -> str:
    """Write a state dict in fp16 (plain tensors) and return the file's SHA-256."""
    state = model if isinstance(model, dict) else model.state_dict()
    half = {k: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for k, v in state.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(half, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
