import json

import commands
import cv2
import numpy as np
import pytest
import runs

from occjax import predict
from occjax.data import folder
from occjax.errors import UserError
from occjax.runtime.options import Options
from occjax.skeletons import COCO

PLAIN = Options(None, (1.0,))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return str(runs.make(tmp_path_factory.mktemp("run"))[0])


@pytest.fixture
def pictures(tmp_path):
    """Two readable pictures of different size, and one broken file."""
    place = tmp_path / "in"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("wide.png", (50, 90, 3)), ("more.jpg", (60, 100, 3))):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        cv2.imwrite(str(place / name), image)
    (place / "broken.png").write_bytes(b"no image")
    return place


def test_folder_gives_poses_and_drawings_and_names_broken_files(
    workdir, pictures, tmp_path, capsys
):
    out = tmp_path / "out"
    predict.predict(workdir, folder.find(pictures), str(out), PLAIN, None)

    found = json.loads((out / "poses.json").read_text())
    assert {item["file_name"] for item in found} == {"wide.png", "more.jpg"}
    for item in found:
        assert len(item["keypoints"]) == 3 * COCO.num_joints
        assert item["image_id"] == (1 if item["file_name"] == "more.jpg" else 2)
    drawings = {path.name for path in (out / "drawings").iterdir()}
    assert drawings == {"wide.png.png", "more.jpg.png"}
    assert cv2.imread(str(out / "drawings/wide.png.png")).shape == (50, 90, 3)
    printed = capsys.readouterr().out
    assert "2 images" in printed
    assert "1 of 3 files could not be read" in printed
    assert "broken.png" in printed


def test_only_poses_above_the_least_score_are_drawn(pictures, tmp_path):
    source = folder.Folder([pictures / "wide.png"], COCO)
    keypoints = np.random.default_rng(1).uniform(10, 40, 3 * 17).tolist()
    found = [{"image_id": 1, "keypoints": keypoints, "score": s} for s in (0.2, 0.6)]
    plain = cv2.imread(str(pictures / "wide.png"))
    for least, people in ((0.1, 2), (0.5, 1), (0.9, 0)):
        assert predict._draw_all(tmp_path, source, found, least) == people
        drawn = cv2.imread(str(tmp_path / "wide.png.png"))
        assert np.array_equal(drawn, plain) == (people == 0)


def test_least_score_is_that_of_the_last_evaluation(tmp_path):
    assert predict._least_score(str(tmp_path)) == 0.1
    (tmp_path / "metrics.json").write_text('{"confident_score": 0.037}')
    assert predict._least_score(str(tmp_path)) == 0.037


def test_nothing_readable_and_unusable_output_are_told(workdir, pictures, tmp_path):
    broken = [pictures / "broken.png"]
    with pytest.raises(UserError, match="no readable image.*broken.png"):
        predict.predict(workdir, broken, str(tmp_path / "out"), PLAIN, None)
    taken = str(pictures / "wide.png")
    with pytest.raises(UserError, match="--output"):
        predict.predict(workdir, [pictures / "wide.png"], taken, PLAIN, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input=a.png", "--output=out"], "--workdir is missing"),
        (["--workdir=w", "--input=absent.png", "--output=out"], "absent.png"),
        (["--workdir=absent", "--input=README.md", "--output=out"], "absent"),
        (["--workdr=a"], "workdr"),
        (
            [
                *("--workdir=w", "--input=README.md", "--output=out"),
                "--score=heatmap,oaks",
            ],
            "--score: expected one",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    (tmp_path / "README.md").write_text("text")
    assert words in commands.mistake("occjax.predict", arguments, tmp_path)
