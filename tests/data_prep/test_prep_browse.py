import subprocess
import sys

import numpy as np
import scenes

from data_prep import browse


def test_sheet_shows_the_records_with_their_poses():
    sheet = browse.sheet(scenes.Scenes(8), 8)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 6 * 300  # six columns
    assert (
        len(np.unique(sheet[::8, ::8].reshape(-1, 3), axis=0)) > 20
    )  # poses have colours
    assert browse.sheet(scenes.Scenes(2), 24).shape[0] < sheet.shape[0]


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
