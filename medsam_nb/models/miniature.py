"""The architecture of the miniature SAM 2 and the miniature SAM.

Both are built from the unmodified modules of the `sam2` and `segment_anything` packages, only smaller, and
run through the official predictors. They were trained from scratch on simulated images only (see
`weights/README.md`): they demonstrate and test the workbook, they say nothing about SAM 2's accuracy.
"""

from __future__ import annotations

from functools import partial

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.sam2_video_predictor import SAM2VideoPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam
from segment_anything.modeling import TwoWayTransformer as SamTwoWayTransformer

WIDTH = 128
MEMORY_WIDTH = 32
IMAGE_SIZE = 256
ENCODER_BLOCKS = (2, 4, 6, 1)  # of the stages with 64, 32, 16 and 8 cells a side


def _rope(image_size: int, **kwargs) -> RoPEAttention:
    side = image_size // 16
    return RoPEAttention(
        rope_theta=10000.0,
        feat_sizes=(side, side),
        embedding_dim=WIDTH,
        num_heads=1,
        downsample_rate=1,
        dropout=0.0,
        **kwargs,
    )


def _sine(width: int, image_size: int) -> PositionEmbeddingSine:
    return PositionEmbeddingSine(num_pos_feats=width, normalize=True, scale=None, image_size=image_size)


def build_sam2(
    image_size: int = IMAGE_SIZE, encoder_blocks: tuple[int, int, int, int] = ENCODER_BLOCKS
) -> SAM2VideoPredictor:
    """Miniature SAM 2 with random weights (4.9 M parameters), for the image and the video predictor.

    The flags are those of `sam2.1_hiera_t.yaml` with the post-processing defaults of
    `build_sam2_video_predictor` (dynamic multimask via stability 0.05 / 0.98, binarised memory masks);
    `fill_hole_area` is 0 because filling needs the package's optional CUDA extension.

    Parameters
    ----------
    image_size : int
        Side of the network input in pixels, a multiple of 64.  The weights fit every size; the shipped
        ones were trained at 128 and 256 and are meant for 256.
    encoder_blocks : tuple of int
        Blocks of the encoder's four stages.

    Returns
    -------
    SAM2VideoPredictor
        In evaluation mode, on the CPU, float32.  `SAM2ImagePredictor` takes it too, but needs
        `feature_sizes(image_size)` as its `_bb_feat_sizes` (the class assumes 1024 pixels).
    """
    if image_size % 64:
        raise ValueError(f"image_size {image_size} is not a multiple of 64: choose for example 256")
    third = sum(encoder_blocks[:2])  # first block of the third stage
    trunk = Hiera(
        embed_dim=32,
        num_heads=1,
        stages=encoder_blocks,
        global_att_blocks=tuple(range(third + 2, third + encoder_blocks[2], 2)),
        window_spec=(8, 4, 8, 8),
        window_pos_embed_bkg_spatial_size=(8, 8),
    )
    neck = FpnNeck(
        position_encoding=_sine(WIDTH, image_size),
        d_model=WIDTH,
        backbone_channel_list=[256, 128, 64, 32],
        fpn_top_down_levels=[0, 1, 2, 3],
        fpn_interp_model="nearest",
    )
    layer = MemoryAttentionLayer(
        activation="relu",
        cross_attention=_rope(image_size, rope_k_repeat=True, kv_in_dim=MEMORY_WIDTH),
        d_model=WIDTH,
        dim_feedforward=512,
        dropout=0.0,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=_rope(image_size),
    )
    memory_encoder = MemoryEncoder(
        out_dim=MEMORY_WIDTH,
        mask_downsampler=MaskDownSampler(embed_dim=WIDTH, kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(WIDTH, kernel_size=7, padding=3, layer_scale_init_value=1e-6), num_layers=2),
        position_encoding=_sine(MEMORY_WIDTH, image_size),
        in_dim=WIDTH,
    )
    model = SAM2VideoPredictor(
        fill_hole_area=0,
        image_encoder=ImageEncoder(trunk=trunk, neck=neck, scalp=1),
        memory_attention=MemoryAttention(d_model=WIDTH, pos_enc_at_input=True, layer=layer, num_layers=2),
        memory_encoder=memory_encoder,
        num_maskmem=7,
        image_size=image_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        binarize_mask_from_pts_for_mem_enc=True,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=True,
        proj_tpos_enc_in_obj_ptrs=True,
        use_signed_tpos_enc_to_obj_ptrs=True,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        sam_mask_decoder_extra_args={
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
    )
    return model.eval()


def build_sam(image_size: int = IMAGE_SIZE) -> Sam:
    """Miniature SAM (version 1) with random weights: a small ViT encoder and SAM's own decoder.

    Parameters
    ----------
    image_size : int
        Side of the network input, a multiple of 16; position embeddings have this size.

    Returns
    -------
    segment_anything.modeling.Sam
        In evaluation mode, on the CPU, float32; `SamPredictor` takes it unchanged.
    """
    if image_size % 16:
        raise ValueError(f"image_size {image_size} is not a multiple of 16: choose for example 256")
    side = image_size // 16
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=image_size,
            patch_size=16,
            embed_dim=160,
            depth=8,
            num_heads=4,
            mlp_ratio=4,
            out_chans=WIDTH,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=8,
            global_attn_indexes=(1, 3, 5, 7),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=(side, side),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=SamTwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=2048, num_heads=8),
            transformer_dim=WIDTH,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return sam.eval()


def feature_sizes(image_size: int) -> list[tuple[int, int]]:
    """Feature map sizes at strides 4, 8 and 16, as `SAM2ImagePredictor._bb_feat_sizes` expects them."""
    return [(image_size // stride, image_size // stride) for stride in (4, 8, 16)]
