"""On-disk layouts of the study's picture data sets, as their downloads unpack.

Like `layouts_3d`: only names are looked at, at any depth below the data set's folder.
"""

from pathlib import Path

from medsam_nb.data.names import clean_name, natural, visible
from medsam_nb.data.reading import PICTURES, suffix_of
from medsam_nb.data.sources import Source
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet


def _folder_of(folder: Path, *names: str) -> Path:
    """Return the one folder below (or the folder itself) that holds all the named folders."""
    found = [
        path
        for path in [folder, *visible(path for path in folder.rglob("*") if path.is_dir())]
        if all((path / name).is_dir() for name in names)
    ]
    if not found:
        raise InputError(
            folder, f"no folder with {' and '.join(names)} in it.", "Put the unpacked download there."
        )
    return found[0]


def _pictures(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by their name before the last dot; a second of a name by all of it."""
    found: dict[str, Path] = {}
    for path in visible(folder.glob("*")):
        if suffix_of(path) in PICTURES:
            found[path.name if path.stem in found else path.stem] = path
    return found


def _same_names(images: Path, masks: Path, prefix: str = "") -> list[Source]:
    """Pair pictures that share their name; one without its partner is a case that fails."""
    pictures, labels = _pictures(images), _pictures(masks)
    return [
        Source(
            clean_name(prefix + stem),
            pictures.get(stem) or images / labels[stem].name,
            (labels.get(stem) or masks / pictures[stem].name,),
        )
        for stem in sorted({*pictures, *labels}, key=natural)
    ]


def find_kaggle_chest(folder: Path, row: DataSet) -> list[Source]:
    """Chest masks from Kaggle: `CXR_png/X.png` with `masks/X_mask.png` (Shenzhen) or `masks/X.png`.

    Pictures without a mask (96 of 800) are no cases.
    """
    base = _folder_of(folder, "CXR_png", "masks")
    images = _pictures(base / "CXR_png")
    sources = []
    for stem, mask in _pictures(base / "masks").items():
        case = stem.removesuffix("_mask")
        sources.append(Source(clean_name(case), images.get(case, base / "CXR_png" / f"{case}.png"), (mask,)))
    return sources


def find_montgomery(folder: Path, row: DataSet) -> list[Source]:
    """Montgomery: `CXR_png/X.png` with `ManualMask/leftMask/X.png` and `ManualMask/rightMask/X.png`."""
    base = _folder_of(folder, "CXR_png", "ManualMask")
    return [
        Source(
            clean_name(stem),
            image,
            tuple(base / "ManualMask" / side / image.name for side in ("leftMask", "rightMask")),
            "any",
        )
        for stem, image in _pictures(base / "CXR_png").items()
    ]


def find_hip_xray(folder: Path, row: DataSet) -> list[Source]:
    """Hip X-rays (Mendeley): `images/X.nii.gz` with `labels/X.nii.gz`, one slice each."""
    base = _folder_of(folder, "images", "labels")
    masks = {path.name: path for path in visible((base / "labels").glob("*.nii.gz"))}
    names = sorted({path.name for path in visible((base / "images").glob("*.nii.gz"))} | set(masks))
    return [
        Source(clean_name(name.removesuffix(".nii.gz")), base / "images" / name, (base / "labels" / name,))
        for name in names
    ]


def find_busi(folder: Path, row: DataSet) -> list[Source]:
    """BUSI: `{benign,malignant}/X (n).png` with `X (n)_mask.png` and perhaps `_mask_1.png`, `_mask_2.png`.

    Several masks of one picture are united. The class "normal" has no object.
    """
    base = _folder_of(folder, "benign", "malignant")
    sources = []
    for kind in ("benign", "malignant"):
        pictures = _pictures(base / kind)
        for stem in dict.fromkeys(name.split("_mask")[0] for name in pictures):
            masks = [path for name, path in pictures.items() if name.startswith(f"{stem}_mask")]
            image, missing = (base / kind / f"{stem}{end}.png" for end in ("", "_mask"))
            image = pictures.get(stem, image)
            sources.append(Source(clean_name(stem), image, tuple(masks) or (missing,), "any"))
    return sources


def find_ct2us(folder: Path, row: DataSet) -> list[Source]:
    """CT2US kidneys: `slice/slice/X.png` with `mask/mask/X.png`."""
    base = _folder_of(folder, "slice", "mask")
    inner = [
        base / name / name if (base / name / name).is_dir() else base / name for name in ("slice", "mask")
    ]
    return _same_names(*inner)


def find_marzola(folder: Path, row: DataSet) -> list[Source]:
    """Muscle ultrasound: `{BB,GM,TA}/{Healthy,Pathological}/{Images,Masks}/X.png`."""
    sources = []
    for masks in visible(path for path in folder.rglob("Masks") if path.is_dir()):
        state, muscle = masks.parent, masks.parent.parent
        sources += _same_names(masks.with_name("Images"), masks, f"{muscle.name}_{state.name}_")
    return sources


def find_mmotu(folder: Path, row: DataSet) -> list[Source]:
    """MMOTU, 2D part, in its two published layouts.

    Original: `OTU_2d/images/N.JPG` with `annotations/N.PNG` (and `N_binary.PNG`, which is not used).
    Repackaged: `OTU_2D/train/train_image/N.JPG` with `train_label/label/N.PNG`, and
    `OTU_2D/test/image/N.JPG` with `test/label/black_write/N.PNG`.
    """
    places = [
        ("images", "annotations", ""),
        ("train_image", "train_label/label", "train_"),
        ("image", "label/black_write", "test_"),
    ]
    sources = []
    for images, masks, prefix in places:
        for found in visible(path for path in folder.rglob(images) if path.is_dir()):
            labels = found.parent / masks
            if labels.is_dir():
                kept = [s for s in _same_names(found, labels, prefix) if "_" not in s.masks[0].stem]
                sources += kept
    return sources


def find_us_nerve(folder: Path, row: DataSet) -> list[Source]:
    """Ultrasound nerve (Kaggle 2016): `train/S_N.tif` with `train/S_N_mask.tif`; S is the patient."""
    pictures = [path for path in visible(folder.rglob("*.tif")) if path.parent.name != "test"]
    images = dict.fromkeys(path.with_stem(path.stem.removesuffix("_mask")) for path in pictures)
    return [
        Source(clean_name(image.stem), image, (image.with_stem(f"{image.stem}_mask"),)) for image in images
    ]
