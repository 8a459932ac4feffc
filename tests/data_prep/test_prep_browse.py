import subprocess
import sys

import numpy as np
import scenes

from data_prep import browse
from occjax import draw
from occjax.data import sources
from occjax.runtime import config as configs


def test_sheet_shows_the_records_with_their_poses():
    source = scenes.Scenes(8)

    def sheet_of(count):
        return draw.contact_sheet(browse.plain(source, count), source.skeleton)

    sheet = sheet_of(8)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 6 * 300  # six columns
    assert (
        len(np.unique(sheet[::8, ::8].reshape(-1, 3), axis=0)) > 20
    )  # poses have colours
    assert sheet_of(24).shape == sheet.shape  # there are no more
    assert sheet_of(2).shape[0] < sheet.shape[0]


def test_training_views_of_a_config_stand_beside_their_records(tmp_path):
    out = tmp_path / "sheet.png"
    command = [sys.executable, "-m", "data_prep.browse", "--count=3", f"--output={out}"]
    config = "--config=configs/pinet.py:smoke"
    few = "--config.data.crowd.num_scenes=20"
    done = subprocess.run(
        [*command, config, few], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "joints occluded" in done.stdout
    assert out.exists()
    settings = configs.load("configs/pinet.py:smoke")
    data = {**settings.data.to_dict(), "occlusion": ({"name": "mask_joints"},)}
    source = sources.load(data, "train")
    ((before, after, *_), *_) = browse.before_and_after(source, 2, data)
    assert before.image.shape == after.image.shape == (64, 64, 3)
    assert np.any(before.image != after.image)
    assert len(after.joints) == len(before.joints) >= 2


def test_a_view_of_people_shows_the_crop_of_each():
    data = configs.load("configs/couplegraph.py:smoke").data.to_dict()
    data["crowd"]["num_scenes"] = 4
    source = sources.load(data, "train")
    ((record, *crops),) = browse.before_and_after(source, 1, data)
    assert len(crops) == len(record.joints) == 2
    for crop in crops:
        assert crop.image.shape == (64, 64, 3)
        assert crop.joints.shape == (1, source.skeleton.num_joints, 2)
    assert np.any(crops[0].image != crops[1].image)


def test_command_counts_a_file_without_its_images(photographs, tmp_path):
    file = photographs / "crowdpose" / "annotations" / "crowdpose_images_1.json"

    def run(*more):
        command = [sys.executable, "-m", "data_prep.browse", "--annotations", str(file)]
        command += more
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = run("--skeleton", "crowdpose")
    assert done.returncode == 0, done.stderr
    assert "largest IoU of boxes, mean" in done.stdout
    failed = run()
    assert failed.returncode == 1
    assert failed.stderr == f"error: {file} has 14 joints a person, coco has 17.\n"
