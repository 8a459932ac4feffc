"""An OPEC-Net file with the released code's names, from conversion to poses."""

import json

import golden_weights
import numpy as np
import pytest

from data_prep import coco
from occjax import convert, evaluate
from occjax.runtime import config, weight_files
from occjax.runtime.options import Options
from occjax.skeletons import OCPOSE

BASE = "generator.model.pyranet."  # of the names of an end-to-end checkpoint


@pytest.fixture
def state_dict(golden):
    """Weights by rule under all names that such a checkpoint has."""
    _, base = golden_weights.load(golden / "fastpose", "fastpose101_se")
    _, head = golden_weights.load(golden / "opec_net", "forward_eval")
    both = {BASE + name: array for name, array in base.items()} | head
    counters = [name for name in both if name.endswith(".running_mean")]
    names = (name.replace("running_mean", "num_batches_tracked") for name in counters)
    return both | dict.fromkeys(names, np.float32(3))


@pytest.fixture
def datasets(photographs, tmp_path):
    """A photograph of OCHuman with two people, labelled as OCPose is."""
    folder = photographs / "ochuman"
    path = folder / "annotations" / "ochuman_coco17.json"
    content = json.loads(path.read_text())
    content["images"] = content["images"][:1]
    image = content["images"][0]["id"]
    people = [one for one in content["annotations"] if one["image_id"] == image]
    for one in people:  # COCO's joints are five of the face and then OCPose's
        one["keypoints"] = one["keypoints"][15:]
    content["annotations"] = people
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps(content))
    out = tmp_path / "datasets"
    coco.prepare(out, "ocpose", "test", folder / "images", chosen, OCPOSE)
    return out


@pytest.mark.slow
def test_an_end_to_end_file_is_converted_and_finds_limbs(
    state_dict, datasets, tmp_path
):
    settings = config.load("configs/opecnet.py:ocpose")
    with settings.unlocked():
        settings.batch_size = 2
        settings.data.update(dict(dir=str(datasets), threads=0))
    file, run = tmp_path / "opec.pth", str(tmp_path / "run")
    weight_files.write(file, state_dict)
    convert.read_torch(settings, str(file), run, False, False)

    convert.write_torch(run, str(tmp_path / "back.pth"))
    back = weight_files.read(tmp_path / "back.pth")
    assert back.keys() == {name for name in state_dict if "num_batches" not in name}
    for name, array in back.items():
        np.testing.assert_array_equal(array, state_dict[name])

    evaluate.score_run(run, None, Options(None, (1.0,)), None)
    found = json.loads((tmp_path / "run" / "detections.json").read_text())
    assert len(found) == 2
    for person in found:
        assert len(person["keypoints"]) == 3 * len(OCPOSE.joints) == 36
        assert np.all(np.isfinite(person["keypoints"]))
