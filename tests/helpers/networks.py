"""Small SAM 2 networks with seeded weights for tests: the package's own modules and configurations."""

from functools import cache

import numpy as np
import torch
from sam2.build_sam import build_sam2_video_predictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from benchmarks.inputs import with_drawn_weights
from medsam_nb.models.checkpoints import Model
from medsam_nb.protocol.designs import Design
from medsam_nb.protocol.prompts import Prompt, prompt_3d

SIZE = 64


def small_overrides(image_size: int) -> list[str]:
    """Shrink an official configuration: fewer channels and layers, the same modules and flags."""
    side = image_size // 16
    values = {
        "image_size": image_size,
        "image_encoder.trunk.embed_dim": 16,
        "image_encoder.trunk.stages": "[1,1,2,1]",
        "image_encoder.trunk.global_att_blocks": "[3]",
        "image_encoder.neck.d_model": 32,
        "image_encoder.neck.backbone_channel_list": "[128,64,32,16]",
        "image_encoder.neck.position_encoding.num_pos_feats": 32,
        "memory_attention.d_model": 32,
        "memory_attention.num_layers": 2,
        "memory_attention.layer.d_model": 32,
        "memory_attention.layer.dim_feedforward": 64,
        "memory_attention.layer.self_attention.embedding_dim": 32,
        "memory_attention.layer.self_attention.feat_sizes": f"[{side},{side}]",
        "memory_attention.layer.cross_attention.embedding_dim": 32,
        "memory_attention.layer.cross_attention.kv_in_dim": 8,
        "memory_attention.layer.cross_attention.feat_sizes": f"[{side},{side}]",
        "memory_encoder.out_dim": 8,
        "memory_encoder.in_dim": 32,
        "memory_encoder.position_encoding.num_pos_feats": 8,
        "memory_encoder.mask_downsampler.embed_dim": 32,
        "memory_encoder.fuser.layer.dim": 32,
    }
    return [
        f"{'++' if not key.startswith('+') else '+'}model.{key.lstrip('+')}={value}"
        for key, value in values.items()
    ]


@cache
def small_model(dtype: str = "float32", seed: int = 0, version: str = "2.1", image_size: int = SIZE) -> Model:
    """Return a small network of SAM 2.0 or 2.1 with seeded weights."""
    config = {"2.1": "configs/sam2.1/sam2.1_hiera_t.yaml", "2.0": "configs/sam2/sam2_hiera_t.yaml"}[version]
    torch.manual_seed(seed)  # for what is no parameter: the frequencies of the prompts' position code
    network = build_sam2_video_predictor(
        config, device="cpu", hydra_overrides_extra=small_overrides(image_size)
    )
    with_drawn_weights(network, seed, presence={"2.1": 1.5, "2.0": 3.0}[version])
    name = f"small-{version}"
    return Model(
        name,
        "sam2",
        network,
        image_size,
        f"untrained-seed-{seed}",
        torch.device("cpu"),
        getattr(torch, dtype),
    )


@cache
def small_sam(dtype: str = "float32", seed: int = 0) -> Model:
    """Return a small SAM with seeded weights: the package's modules, fewer channels and layers."""
    torch.manual_seed(seed)
    network = Sam(
        image_encoder=ImageEncoderViT(
            img_size=SIZE, depth=2, embed_dim=32, num_heads=2, out_chans=32, window_size=0, use_rel_pos=True
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=32, image_embedding_size=(4, 4), input_image_size=(SIZE, SIZE), mask_in_chans=4
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    ).eval()
    device = torch.device("cpu")
    return Model("small-sam", "sam", network, SIZE, f"untrained-seed-{seed}", device, getattr(torch, dtype))


def textured_slices(depth: int, height: int, width: int, seed: int) -> np.ndarray:
    """Return slices that change along z, uint8, shape (z, y, x)."""
    draw = np.random.default_rng(seed)
    coarse = draw.normal(size=(depth, 6, 6)).cumsum(axis=0)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    image = coarse[:, rows][:, :, columns] + 0.3 * draw.normal(size=(depth, height, width))
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) * 255).astype(np.uint8)


def drawn_prompt(objects: dict[str, np.ndarray]):
    """Return the `prompt_of` of a sweep over these objects."""

    def prompt_of(name: str, index: int, kind: str) -> Prompt:
        return prompt_3d(objects[name][index], kind, ("test", name, index))

    return prompt_of


def predictions(sweep, *arguments, **options) -> dict[tuple[str, Design, int], tuple]:
    """Run a sweep and index what it yields by (object, design, slice)."""
    found = {}
    for item in sweep(*arguments, **options):
        for design in item.designs:
            key = item.object_name, design, item.slice_index
            assert key not in found, f"{key} was predicted twice"
            found[key] = item.logits, item.score, item.prompted
    return found
