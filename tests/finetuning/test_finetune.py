"""Fine-tuning in memory: what learns does, the rest stays; colours and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medsam_nb.data.simulated import anatomy
from medsam_nb.errors import InputError, StudyError
from medsam_nb.finetuning.batches import TrainingCases
from medsam_nb.finetuning.loop import Training, choose_parameters
from medsam_nb.finetuning.settings import LEARNS, Settings
from medsam_nb.manifest.reading import load_manifest
from medsam_nb.models import miniature
from medsam_nb.models.checkpoints import load_model
from training import initialisation

ROOT = Path(__file__).parents[2]


def _case():
    case = anatomy.simulate_case("mri", 1, shape=(8, 128, 128))
    low, high = np.percentile(case.image, [1, 99])
    image = np.clip((case.image - low) / (high - low), 0, 1)
    return image, np.where(case.labels == case.objects["organ"], 1, 0)


def finetune(model, cases, settings):
    """Train on images and labels in memory; return the training and the network that it gives."""
    training = Training(model, TrainingCases([lambda c=c: c for c in cases], model.image_size), settings)
    training.run()
    return training, training.finish()


@pytest.mark.parametrize("learns", LEARNS)
def test_fine_tuning_lowers_the_loss_and_touches_only_what_was_chosen(learns):
    torch.manual_seed(0)
    model = miniature.build_sam2(128)
    initialisation.initialise_prompting(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    budget = {"memory": 16 * 3}.get(learns, 16 * 2)
    settings = Settings(learns=learns, slices=budget, learning_rate=2e-3, sequence=3, seed=1)
    done, trained = finetune(model, [_case()], settings)
    assert len(done.losses) == 16
    assert np.mean(done.losses[-4:]) < 0.9 * np.mean(done.losses[:4]), done.losses
    after = trained.state_dict()
    assert list(after) == list(before)
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    expected = {
        "mask_decoder": {"sam_mask_decoder"},
        "memory": {
            "sam_mask_decoder",
            "memory_attention",
            "memory_encoder",
            "maskmem_tpos_enc",
            "obj_ptr_proj",
        },
        "lora": {"sam_mask_decoder", "image_encoder"},
    }[learns]
    assert expected <= changed <= expected | {"obj_ptr_tpos_proj"}
    assert done.trained < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("learns", ["mask_decoder", "memory"])
def test_fine_tuning_sees_colours_as_the_predictors_do(learns):
    image, labels = _case()

    def losses(*images):
        torch.manual_seed(0)
        model = miniature.build_sam2(128)
        cases = [(one, labels) for one in images]
        settings = Settings(learns=learns, slices=12, images=4, seed=1)
        return finetune(model, cases, settings)[0].losses

    grey, equal = image, np.repeat(image[..., None], 3, axis=-1)
    turned = np.stack([image, image[:, ::-1], 1 - image], axis=-1)
    assert losses(grey) == pytest.approx(losses(equal), abs=1e-5)
    assert losses(grey) != pytest.approx(losses(turned), abs=1e-5)
    assert np.isfinite(losses(grey, turned)).all()  # both in one batch


def test_what_cannot_be_done_is_refused():
    model = miniature.build_sam2(128)
    image, labels = _case()
    with pytest.raises(StudyError, match="'encoder' is unknown"):
        choose_parameters(model, "encoder")
    with pytest.raises(ValidationError, match="learns"):
        Settings(learns="encoder")
    with pytest.raises(StudyError, match="single images. Memory modules learn from volumes"):
        finetune(model, [(image[4:5], labels[4:5])], Settings(learns="memory"))
    with pytest.raises(InputError, match="none has an object of 20 pixels"):
        finetune(model, [(image, 0 * labels)], Settings())


def test_cases_beyond_memory_are_read_again_and_give_the_same_steps():
    image, labels = _case()
    losses = []
    for kept_bytes in (1, 1 << 30):
        torch.manual_seed(0)
        model = miniature.build_sam2(128)
        reads = []

        def load(number, reads=reads):
            reads.append(number)
            return image[number : number + 4], labels[number : number + 4]

        cases = TrainingCases([lambda n=n: load(n) for n in (0, 4)], 128, kept_bytes)
        training = Training(model, cases, Settings(slices=16, seed=3))
        training.run()
        losses.append(training.losses)
        assert (len(reads) > 2) == (kept_bytes == 1)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("learns", LEARNS)
def test_a_step_of_metas_smallest_network_with_random_weights(learns):
    """Its own configuration, at 256 pixels instead of 1024 so that it takes seconds."""
    row = load_manifest(ROOT / "data_manifest.yaml").checkpoint("sam2_hiera_tiny")
    small = row.model_copy(update={"image_size": 256})
    network = load_model(small, ROOT, device="cpu", dtype="float32", untrained_seed=0).network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    done, trained = finetune(network, [_case()], Settings(learns=learns, slices=3, images=1, sequence=3))
    after = trained.state_dict()
    assert np.isfinite(done.losses).all() and list(after) == list(before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
