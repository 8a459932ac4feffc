import struct

import cv2
import numpy as np
import pytest

from occjax.data import folder, records
from occjax.errors import UserError
from occjax.skeletons import COCO


@pytest.fixture
def picture():
    """A smooth picture, wider than high, that survives JPEG."""
    ramp = np.linspace(0, 255, 60).astype(np.uint8)
    return np.stack([np.tile(ramp, (40, 1))] * 3, axis=-1)


def with_orientation(jpeg, code):
    """The JPEG with a camera's orientation tag."""
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, code, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jpeg(picture):
    return cv2.imencode(".jpg", picture)[1].tobytes()


def test_pictures_stand_as_their_orientation_tag_says(tmp_path, picture):
    data = with_orientation(jpeg(picture), 6)  # a quarter turn clockwise
    path = tmp_path / "turned.jpg"
    path.write_bytes(data)

    source = folder.Folder([path], COCO)

    assert source.sizes.tolist() == [[60, 40]]
    expected = np.rot90(picture, -1).astype(int)
    assert np.abs(source[0]["image"].astype(int) - expected).max() < 12
    assert records.decode(data, "labelled").shape == (40, 60, 3)


def test_unreadable_files_are_left_out_and_named(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(jpeg(picture))
    (tmp_path / "b.jpg").write_bytes(jpeg(picture)[:200])
    (tmp_path / "c.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")

    source = folder.Folder(folder.find(tmp_path), COCO)

    assert [path.name for path in source.paths] == ["a.jpg"]
    assert len(source.unreadable) == 2
    assert "b.jpg" in source.unreadable[0]
    assert "c.png" in source.unreadable[1]
    assert records.pixels(source[0]).shape == (40, 60, 3)


def test_missing_path_and_folder_without_images_are_told_in_one_line(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match=str(path)) as caught:
            folder.find(path)
        assert "\n" not in str(caught.value)
