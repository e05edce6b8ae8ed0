"""Pictures as viewers show them: turned, every page, every kind of pixel; masks by colour and opacity."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from medsam_nb.data.formats import read_volume
from medsam_nb.data.pictures import REDUCED, read_colour_mask, read_mask_picture
from medsam_nb.data.prepare import prepare
from medsam_nb.data.prepared import case_folders, load_case
from medsam_nb.errors import InputError
from medsam_nb.manifest.rows import DataSet

GREY = np.random.default_rng(0).integers(1, 255, (40, 60)).astype(np.uint8)
MASK = np.zeros((40, 60), np.uint8)
MASK[5:15, 10:40] = 1
TURNED = {  # by EXIF orientation: where row 0 and column 0 of what is stored are seen
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a),
}  # fmt: skip
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def refusal(read, *arguments, **how):
    with pytest.raises(InputError) as caught:
        read(*arguments, **how)
    return str(caught.value)


def coloured(**parts):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[5:15, 10:40], picture[20:30, 10:40] = parts.get("upper", RED), parts.get("lower", GREEN)
    return picture


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_viewers_turn_them(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    Image.fromarray(GREY).save(tmp_path / f"plain{suffix}", quality=95)
    if suffix == ".tif" and orientation > 4:  # Pillow garbles these where they are not compressed
        assert f"cannot be turned as its orientation {orientation}" in refusal(
            read_volume, tmp_path / "a.tif"
        )
        return
    volume, stored = read_volume(tmp_path / f"a{suffix}"), read_volume(tmp_path / f"plain{suffix}").array[0]
    assert np.array_equal(volume.array[0], TURNED[orientation](stored))
    words = f"turned as its EXIF orientation {orientation} says"
    assert volume.remarks == ((words,) if orientation > 1 else ())


def test_what_a_phone_stores_beside_a_picture_is_no_page(tmp_path):
    preview = Image.fromarray(GREY[:20, :30])
    Image.fromarray(GREY).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview], quality=95)
    assert read_volume(tmp_path / "a.jpg").array.shape == (1, 40, 60)


def test_colours_of_every_kind_become_luminance(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    picture, opaque = Image.fromarray(colours), Image.new("L", (60, 40), 200)
    picture.save(tmp_path / "rgb.png")
    with_opacity = picture.copy()
    with_opacity.putalpha(opaque)
    with_opacity.save(tmp_path / "rgba.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.tif")
    picture.convert("YCbCr").save(tmp_path / "ycbcr.tif")
    cv2.imwrite(str(tmp_path / "deep.png"), colours[..., ::-1].astype(np.uint16) * 257)
    grey = np.rint(colours @ [0.299, 0.587, 0.114])
    for name, scale, near in (
        ("rgb.png", 1, 0), ("rgba.png", 1, 0), ("palette.png", 1, 60), ("cmyk.tif", 1, 2),
        ("ycbcr.tif", 1, 3), ("deep.png", 257, 1),
    ):  # fmt: skip
        volume = read_volume(tmp_path / name)
        assert np.abs(volume.array[0] / scale - grey).max() <= near, name
        assert volume.remarks == (REDUCED,)
    assert read_volume(tmp_path / "deep.png").array.dtype == np.uint16


def test_grey_levels_are_kept_in_their_depth(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65535, (40, 60)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "a.tif")
    Image.fromarray(deep.astype(np.float32) / 7).save(tmp_path / "f.tif")
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read_volume(tmp_path / name).array[0], deep)
    assert np.array_equal(read_volume(tmp_path / "f.tif").array[0], deep.astype(np.float32) / 7)


def stack(path, pages, description=""):
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others, description=description)


PAGES = np.random.default_rng(3).integers(1, 255, (6, 40, 60)).astype(np.uint8)


def test_every_page_counts(tmp_path):
    masks = np.zeros_like(PAGES)
    masks[2:4, 5:15, 10:40] = 255
    stack(tmp_path / "a.tif", PAGES)
    stack(tmp_path / "m.tif", masks)
    assert np.array_equal(read_volume(tmp_path / "a.tif").array, PAGES)
    assert np.array_equal(read_mask_picture(tmp_path / "m.tif", 128).array, masks > 0)
    assert np.array_equal(read_volume(tmp_path / "m.tif", labels=True).array, masks)
    stack(tmp_path / "uneven.tif", [PAGES[0], PAGES[1, :20]])
    assert "its pages differ in size" in refusal(read_volume, tmp_path / "uneven.tif")


@pytest.mark.parametrize(
    ("description", "volumes"),
    [
        ("ImageJ=1.54f\nimages=6\nslices=6\n", [PAGES]),
        ("ImageJ=1.54f\nimages=6\n", [PAGES]),
        ("ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n", [PAGES[::2], PAGES[1::2]]),
        ("ImageJ=1.54f\nimages=6\nframes=6\n", list(PAGES[:, None])),
        ('<OME><Pixels DimensionOrder="XYZCT" SizeC="2" SizeT="1" SizeZ="3"/></OME>', [PAGES[:3], PAGES[3:]]),
    ],
)
def test_pages_are_what_their_program_says(tmp_path, description, volumes):
    stack(tmp_path / "a.tif", PAGES, description)
    if len(volumes) > 1:
        assert f"holds {len(volumes)} volumes" in refusal(read_volume, tmp_path / "a.tif")
    for number, expected in enumerate(volumes):
        assert np.array_equal(read_volume(tmp_path / "a.tif", frame=number).array, expected)


def test_pages_that_cannot_be_read_are_missed(tmp_path):
    stack(tmp_path / "a.tif", PAGES, "ImageJ=1.54f\nimages=900\nslices=900\n")
    assert "announces 900 pages, 6 can be read" in refusal(read_volume, tmp_path / "a.tif")


def test_a_mask_drawn_in_opacity(tmp_path):
    black = np.zeros((40, 60, 4), np.uint8)
    black[..., 3] = MASK * 255
    Image.fromarray(black).save(tmp_path / "rgba.png")
    Image.fromarray(np.stack([MASK * 0 + 255, MASK], axis=2)).save(tmp_path / "la.png")
    for name, value in (("rgba.png", 255), ("la.png", 1)):
        volume = read_volume(tmp_path / name, labels=True)
        assert np.array_equal(volume.array[0], MASK * value)
        assert volume.remarks == ("the mask is the picture's opacity",)
    assert np.array_equal(read_mask_picture(tmp_path / "rgba.png", 128).array[0], MASK)
    drawn = np.dstack([MASK * 255] * 3 + [np.full_like(MASK, 255)])  # the usual kind: opaque everywhere
    Image.fromarray(drawn).save(tmp_path / "opaque.png")
    assert np.array_equal(read_volume(tmp_path / "opaque.png", labels=True).array[0], MASK * 255)


def test_colours_as_labels(tmp_path):
    Image.fromarray(coloured()).save(tmp_path / "m.png")
    message = refusal(read_volume, tmp_path / "m.png", labels=True)
    assert "its labels are colours: #000000 (1800 pixels)" in message and "`mask_colours`" in message
    labels = read_colour_mask(tmp_path / "m.png", {"#FF0000": 3, "#00ff00": 7}).array[0]
    assert labels[5, 10] == 3 and labels[20, 10] == 7 and (labels > 0).sum() == 600
    Image.fromarray(coloured()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(
        tmp_path / "p.png"
    )
    assert np.array_equal(read_colour_mask(tmp_path / "p.png", {"#ff0000": 3, "#00ff00": 7}).array[0], labels)
    message = refusal(read_colour_mask, tmp_path / "m.png", {"#ff0000": 3})
    assert "does not name: #00ff00 (300 pixels)" in message
    Image.fromarray(coloured()).save(tmp_path / "m.jpg")
    assert "is a JPEG" in refusal(read_colour_mask, tmp_path / "m.jpg", {"#ff0000": 3, "#00ff00": 7})
    on_white = np.where(coloured().any(axis=2, keepdims=True), coloured(), WHITE).astype(np.uint8)
    Image.fromarray(on_white).save(tmp_path / "w.png")
    known = {"#ffffff": 0, "#ff0000": 3, "#00ff00": 7}
    assert np.array_equal(read_colour_mask(tmp_path / "w.png", known).array[0], labels)


def test_any_channel_reaches_the_threshold_whatever_the_kind_of_picture(tmp_path):
    """Red has a luminance of 76: as luminance, half of the mask would be lost without a word."""
    expected = coloured().any(axis=2)
    picture = Image.fromarray(coloured())
    picture.save(tmp_path / "rgb.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(tmp_path / "palette.png")
    Image.fromarray(expected).save(tmp_path / "bit.png")
    for name in ("rgb.png", "palette.png", "bit.png"):
        assert np.array_equal(read_mask_picture(tmp_path / name, 128).array[0], expected), name


def test_a_palette_with_its_background_elsewhere_is_refused(tmp_path):
    picture = Image.fromarray(MASK, "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "m.png")
    assert "shows index 1 in black and index 0 in a colour" in refusal(
        read_volume, tmp_path / "m.png", labels=True
    )
    labels = read_colour_mask(tmp_path / "m.png", {"#ffffff": 5}).array[0]
    assert np.array_equal(labels, (1 - MASK) * 5)


def png(path, rows, bits=8, announced=None, kind=0, interlaced=0, passes=None):
    """Write a grey PNG by hand: any depth, interlaced or not, and a height that need not be true."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packed = []
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in np.ravel(row))
        packed.append(
            b"\0" + int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
        )
    width, height = len(rows[0]), announced or len(rows)
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    rows_of_passes = b"".join(packed) if passes is None else passes
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows_of_passes)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits_are_what_is_stored(tmp_path, bits):
    labels = np.random.default_rng(bits).integers(0, 2**bits, (40, 60))
    png(tmp_path / "m.png", labels, bits)
    assert np.array_equal(read_volume(tmp_path / "m.png", labels=True).array[0], labels)


def test_labels_with_opacity_of_16_bits_are_not_cut_to_8(tmp_path):
    labels = MASK.astype(np.uint16) * 300
    png(tmp_path / "m.png", np.stack([labels, np.full_like(labels, 65535)], axis=2), 16, kind=4)
    assert np.array_equal(read_volume(tmp_path / "m.png", labels=True).array[0], labels)


@pytest.mark.parametrize("labels", [False, True])
def test_missing_rows_are_noticed_though_the_file_ends_properly(tmp_path, labels):
    png(tmp_path / "a.png", GREY[:20], announced=40)
    message = refusal(read_volume, tmp_path / "a.png", labels=labels)
    assert "a.png: cannot be read (rows of the 40 it announces are missing)" in message
    png(tmp_path / "black.png", np.vstack([GREY[:20], GREY[:20] * 0]))  # rows that are there and black
    assert read_volume(tmp_path / "black.png", labels=labels).array[0, 20:].max() == 0
    Image.fromarray(GREY).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    assert "its last rows are missing" in refusal(read_volume, tmp_path / "a.jpg", labels=labels)


ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def test_rows_of_an_interlaced_picture_are_counted(tmp_path):
    passes = [GREY[y::dy, x::dx] for x, y, dx, dy in ADAM7]
    data = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    png(tmp_path / "a.png", GREY, interlaced=1, passes=data)
    assert np.array_equal(read_volume(tmp_path / "a.png").array[0], GREY)
    for kept in range(0, len(data), 7):  # Pillow reads ten of these without a word
        png(tmp_path / "a.png", GREY, interlaced=1, passes=data[:kept])
        assert "a.png: cannot be read" in refusal(read_volume, tmp_path / "a.png")


def test_a_picture_larger_than_the_memory_is_refused_before_it_is_read(tmp_path):
    png(tmp_path / "a.png", GREY[:2], announced=2**31 - 1)
    head = bytearray((tmp_path / "a.png").read_bytes())
    head[16:20] = struct.pack(">I", 2**31 - 1)
    head[29:33] = struct.pack(">I", zlib.crc32(bytes(head[12:29])))
    (tmp_path / "a.png").write_bytes(head)
    assert "its header announces 1 x 2147483647 x 2147483647" in refusal(read_volume, tmp_path / "a.png")


def row(**more):
    fields = {
        "name": "own", "title": "Own", "modality": "US", "dimension": 2,
        "objects": {"upper": [1], "lower": [2]},
        "intensity": {"policy": "min_max"}, "layout": {"name": "picture_pairs"},
    }  # fmt: skip
    return DataSet.model_validate(fields | more)


def write_case(root, name="a", suffix=".png", mask=None):
    for folder, array in (("images", GREY), ("masks", coloured() if mask is None else mask)):
        place = root / "raw" / "own" / folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(place / f"{name}{suffix}")


def test_a_data_set_with_coloured_masks(tmp_path):
    write_case(tmp_path)
    made = row(mask_colours={"#ff0000": 1, "#00ff00": 2})
    table = prepare(made, tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert table.error.tolist() == [""]
    case = load_case(case_folders(tmp_path / "prepared", "own")[0])
    assert case.mask("upper").sum() == case.mask("lower").sum() == 300
    table = prepare(row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert table.status.tolist() == ["failed"] and "`mask_colours`" in table.error[0]


def test_a_lossy_mask_says_what_to_set(tmp_path):
    write_case(tmp_path, suffix=".jpg", mask=MASK * 255)
    table = prepare(row(), tmp_path / "raw", tmp_path / "prepared", progress=False)
    assert "does not name" in table.error[0] and "A JPEG blurs edges: set `mask_threshold`" in table.error[0]
    one = row(objects={"upper": [1]}, mask_threshold=128)
    assert prepare(one, tmp_path / "raw", tmp_path / "prepared", progress=False).error.tolist() == [""]


@pytest.mark.parametrize(
    "colours", [{"red": 1}, {"#ff00": 1}, {"#ff0000": -1}, {"#ff0000": 1, "#FF0000": 2}, {}]
)
def test_wrong_colours_are_refused_with_the_manifest(colours):
    with pytest.raises(ValueError, match="mask_colours|colour"):
        row(mask_colours=colours)
    with pytest.raises(ValueError, match="not both"):
        row(mask_colours={"#ff0000": 1}, mask_threshold=1.0)
