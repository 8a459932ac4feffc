"""2,000 faulty annotation files and images: counted drops or one line, no crash."""

import copy
import json
import math
import pathlib
import tempfile

import cv2
import numpy as np
import pytest

from data_prep import coco, importer
from occjax import skeletons
from occjax.data import records, sources
from occjax.errors import UserError

CASES, GROUPS = 2000, 20
SHAPE = (24, 32)

# What stands where something else is expected.
VALUES = (
    None, True, False, 0, 1, -1, 3.5, -0.0, math.nan, math.inf, -math.inf, 1e300, 1e39,
    2**31, 2**63, -(2**70), 10**400, "", "1", "nan", "é東 ", "\x00", "\ud800", "a\nb",
    "x" * 5000, [], [1], [[]], [None], [math.nan] * 4, ["a"] * 51, {}, {"id": 1},
    [[1, 1, 5, 5, 9, 1e300]], [[1, 1, 5, 5, math.nan, 3]], [[1, 1, 9e9, 5, 7, 3]],
    {"size": list(SHAPE), "counts": [24 * 32]}, {"size": list(SHAPE), "counts": "~~~"},
    {"size": list(SHAPE), "counts": [-1, 10**30]}, {"size": [1, 10**9], "counts": "0"},
    {"size": list(SHAPE), "counts": "o" * 99}, {"size": "a", "counts": None},
)  # fmt: skip
BOXES = (
    [4, 4, 0, 0], [4, 4, 5, 0], [4, 4, -5, 5], [90, 4, 5, 5], [-9, -9, 5, 5],
    [0, 0, 1e9, 1e9], [-5, -5, 50, 50], [4, 4, 5], [4, 4, 5, 5, 5], [2**70, 0, 1, 1],
    [4, 4, math.nan, 5], ["4", 4, 5, 5], [4, 4, True, 5], [[4], 4, 5, 5],
)  # fmt: skip
NAMES = (
    "/etc/hostname", "../0.png", "a/../../0.png", "..", ".", "", "/", "//", "0.png/",
    "0.png/1.png", "nowhere.png", "n" * 300, "\x00", "a\nb.png", "\udcff.png",
    "~/0.png", "C:\\0.png", "%s{}.png", "é東.png", "with space.png", " 0.png",
    "0.PNG", None, 7,
)  # fmt: skip


def pixels(rng) -> np.ndarray:
    return rng.integers(0, 255, (*SHAPE, 3), np.uint8)


def encode(image: np.ndarray, form: str) -> bytes:
    return cv2.imencode(form, image)[1].tobytes()


def cmyk(rng) -> bytes:
    from PIL import Image

    with tempfile.TemporaryFile() as file:
        image = Image.fromarray(rng.integers(0, 255, (*SHAPE, 4), np.uint8), "CMYK")
        image.save(file, "jpeg")
        file.seek(0)
        return file.read()


def rotated(rng) -> bytes:
    """A JPEG whose EXIF tag asks to be shown on its side."""
    data = encode(pixels(rng), ".jpg")
    tag = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00"
    body = b"Exif\x00\x00" + tag + bytes(6)
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def bomb(rng) -> bytes:
    """A PNG that promises more pixels than there is memory for."""
    data = bytearray(encode(pixels(rng), ".png"))
    data[16:24] = int(rng.integers(10**5, 10**9)).to_bytes(4, "big") * 2
    return bytes(data)


def noise(rng) -> bytes:
    """A JPEG or PNG with some bytes changed or its end cut off."""
    data = bytearray(encode(pixels(rng), str(rng.choice([".jpg", ".png"]))))
    for place in rng.integers(0, len(data), rng.integers(0, 9)):
        data[place] = rng.integers(0, 256)
    return bytes(data[: rng.integers(0, len(data) + 1)])


# Images that are as good as others, and those that may be none.
SOUND = (
    lambda rng: encode(pixels(rng)[..., 0], ".jpg"),
    lambda rng: encode(pixels(rng)[..., 0], ".png"),
    lambda rng: encode(pixels(rng).astype(np.uint16) * 257, ".png"),
    lambda rng: encode(np.dstack([pixels(rng), pixels(rng)[..., :1]]), ".png"),
    lambda rng: encode(pixels(rng), ".bmp"),
    lambda rng: encode(pixels(rng), ".webp"),
    cmyk,
    rotated,
)
DAMAGED = (
    lambda rng: b"",
    lambda rng: b"\x00" * 64,
    lambda rng: b"GIF89a",
    lambda rng: rng.bytes(200),
    lambda rng: encode(pixels(rng), ".jpg")[:-40],
    bomb,
    noise,
    noise,
    noise,
)


def plain() -> dict:
    """Three images with two people each, in COCO's form."""
    people = [
        {
            "id": number,
            "image_id": number % 3,
            "iscrowd": 0,
            "bbox": [4, 4, 9, 12],
            "area": 60.0,
            "num_keypoints": 1,
            "keypoints": [6, 6, 2] + [0] * 48,
            "segmentation": [[4, 4, 13, 4, 13, 16, 4, 16]],
        }
        for number in range(6)
    ]
    images = [
        {"id": n, "file_name": f"{n}.png", "height": SHAPE[0], "width": SHAPE[1]}
        for n in range(3)
    ]
    return {"images": images, "annotations": people}


def pick(rng, choices):
    return copy.deepcopy(choices[rng.integers(len(choices))])


def spoil(content: dict, folder: pathlib.Path, rng) -> None:
    """Makes one thing wrong with the content or an image."""
    kind = str(rng.choice(["images", "annotations"]))
    items = content[kind]
    number = int(rng.integers(len(items)))
    item = items[number]
    what = int(rng.integers(9))
    if what == 0:
        items[number] = pick(rng, VALUES)
    elif what == 1:
        items.append(copy.deepcopy(item))
    elif what == 2 and isinstance(item, dict) and item:
        item.pop(str(rng.choice(sorted(item))))
    elif what in (3, 4) and isinstance(item, dict) and item:
        item[str(rng.choice(sorted(item)))] = pick(rng, VALUES)
    elif what == 5:
        person = content["annotations"][rng.integers(len(content["annotations"]))]
        if isinstance(person, dict):
            person["bbox"] = pick(rng, BOXES)
    elif what == 6:
        person = content["annotations"][rng.integers(len(content["annotations"]))]
        if isinstance(person, dict) and isinstance(person.get("keypoints"), list):
            place = rng.integers(51)
            person["keypoints"][place : place + 1] = [pick(rng, VALUES)]
    elif what == 7:
        entry = content["images"][rng.integers(len(content["images"]))]
        if isinstance(entry, dict):
            entry["file_name"] = pick(rng, NAMES)
    else:
        data = pick(rng, SOUND + DAMAGED)(rng)
        (folder / f"{rng.integers(3)}.png").write_bytes(data)


def fill(folder: pathlib.Path, rng) -> None:
    """Three sound images, and two with names that are unusual but good."""
    folder.mkdir(parents=True)
    for name in ("0.png", "1.png", "2.png", "é東.png", "with space.png"):
        (folder / name).write_bytes(encode(pixels(rng), ".png"))


def build(folder: pathlib.Path, content: dict):
    """What became of a file with this content, or the line that refuses it."""
    file = folder / "annotations.json"
    try:
        file.write_text(json.dumps(content))
    except ValueError:  # Python writes no number of so many digits
        file.write_text(json.dumps(content, default=str))
    try:
        read, facts = coco.read_json(file)
        return importer.prepare(
            folder / "datasets",
            "faulty",
            "train",
            folder / "images",
            read,
            skeletons.COCO,
            facts,
        )
    except UserError as error:
        return str(error)


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    """TFDS leaves an empty folder behind for every dataset."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tfds")))


def check(folder: pathlib.Path, content: dict, result) -> str:
    """The one of two good ends that a build came to."""
    data = {"dataset": "faulty", "dir": str(folder / "datasets")}
    if isinstance(result, str):
        assert "\n" not in result
        named = result.startswith("annotations.json: no image is left: ")
        assert named or result.startswith(f"--images: {folder / 'images'} has none of")
        with pytest.raises(UserError, match="is not there"):
            sources.load(data, "train")
        return "refused"
    result.check()
    assert result.given["images"] == len(content["images"])
    assert result.given["persons"] == len(content["annotations"])
    source = sources.load(data, "train")
    assert len(source) == result.kept["images"]
    persons = 0
    for index in range(len(source)):
        record = source[index]
        records.pixels(record)
        records.kept_pixels(record)
        people = record["persons"]
        persons += len(people["id"])
        for name in ("bbox", "joints", "area", "head_size"):
            assert np.all(np.isfinite(people[name]))
        assert np.all(people["bbox"][:, 2:] > 0)
    assert persons == result.kept["persons"]
    return "counted"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("group", range(GROUPS))
def test_faulty_input_is_counted_or_refused_in_one_line(tmp_path, group, capsys):
    rng = np.random.default_rng(group)
    ends = {"counted": 0, "refused": 0}
    dropped: set[str] = set()
    for case in range(CASES // GROUPS):
        folder = tmp_path / str(case)
        content = plain()
        fill(folder / "images", rng)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            spoil(content, folder / "images", rng)
        result = build(folder, content)
        ends[check(folder, content, result)] += 1
        if not isinstance(result, str):
            dropped |= set(result.dropped["images"]) | set(result.dropped["persons"])
    assert ends["counted"] > 50
    assert len(dropped) > 5
    assert capsys.readouterr().err.count("Traceback") == 0


@pytest.mark.parametrize("make", SOUND)
def test_unusual_images_are_kept_as_they_are(tmp_path, make):
    rng = np.random.default_rng(0)
    fill(tmp_path / "images", rng)
    data = make(rng)
    (tmp_path / "images" / "0.png").write_bytes(data)
    account = build(tmp_path, plain())
    assert account.kept == {"images": 3, "persons": 6}
    assert account.notes == {}
    source = sources.load(
        {"dataset": "faulty", "dir": str(tmp_path / "datasets")}, "train"
    )
    assert source[0]["image"] == data
    assert records.pixels(source[0]).shape == (*SHAPE, 3)


@pytest.mark.parametrize("make", [*DAMAGED[:6]])
def test_damaged_images_are_counted(tmp_path, make):
    rng = np.random.default_rng(0)
    fill(tmp_path / "images", rng)
    (tmp_path / "images" / "0.png").write_bytes(make(rng))
    account = build(tmp_path, plain())
    assert account.dropped["images"] == {"image unreadable": 1}
    assert account.dropped["persons"] == {"image unreadable": 2}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/hostname", "file_name outside the folder of images"),
        ("../images/0.png", "file_name outside the folder of images"),
        ("a/../../images/0.png", "file_name outside the folder of images"),
        ("a\nb.png", "image without id or file_name"),
        ("\udcff.png", "image without id or file_name"),
        ("", "image file cannot be read"),
        ("0.png/1.png", "image file cannot be read"),
        ("n" * 300, "image file cannot be read"),
        ("nowhere.png", "image file missing"),
        ("é東.png", None),
        ("with space.png", None),
    ],
)
def test_file_names_stay_in_the_folder(tmp_path, name, reason):
    fill(tmp_path / "images", np.random.default_rng(0))
    content = plain()
    content["images"][0]["file_name"] = name
    account = build(tmp_path, content)
    assert account.dropped["images"] == ({reason: 1} if reason else {})
    assert account.kept["images"] == (2 if reason else 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [4, 4, 0, 5]}, "box without area"),
        ({"bbox": [4, 4, 1e7, 5]}, "box beyond all images"),
        ({"bbox": [2**70, 4, 5, 5]}, "box beyond all images"),
        ({"bbox": [10**400, 4, 5, 5]}, "box beyond all images"),
        ({"keypoints": [1e39, 6, 2] + [0] * 48}, "joints beyond all images"),
        ({"iscrowd": "no"}, "iscrowd other than 0, 1"),
        ({"is_target": math.nan}, "is_target other than 0, 1"),
        ({"head_size": [3]}, "head_size no length"),
        ({"head_size": math.inf}, "head_size no length"),
        ({"head_size": -3}, "head_size no length"),
        ({"id": 2**63}, "annotation without id"),
        ({"id": [1]}, "annotation without id"),
        ({"id": 1.0}, "annotation without id"),
        ({"image_id": [1]}, "annotation of an image that is not listed"),
        ({"image_id": True}, "annotation of an image that is not listed"),
    ],
)
def test_wrong_values_are_counted_under_their_reason(tmp_path, changes, reason):
    fill(tmp_path / "images", np.random.default_rng(0))
    content = plain()
    content["annotations"][4].update(changes)
    account = importer.prepare(
        tmp_path / "datasets",
        "faulty",
        "train",
        tmp_path / "images",
        content,
        skeletons.COCO,
        {},
    )
    assert account.dropped["persons"] == {reason: 1}
    assert account.kept == {"images": 3, "persons": 5}
