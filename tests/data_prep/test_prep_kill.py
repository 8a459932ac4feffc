import pathlib
import shutil
import time

import commands
import killing
import numpy as np
import pytest

SCRIPT = str(pathlib.Path(killing.__file__))


@pytest.mark.slow
def test_a_build_killed_at_any_step_is_absent_or_whole_and_can_be_finished(tmp_path):
    status, out, err = commands.run(SCRIPT, str(tmp_path))
    assert status == 0, err
    assert int(out.rpartition("steps: ")[2]) > 50


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_build_killed_at_random_is_absent_or_whole_and_can_be_finished(
    tmp_path, workers
):
    datasets = tmp_path / "datasets"
    arguments = (SCRIPT, str(tmp_path), str(workers))
    process = begun(arguments)
    began = time.monotonic()
    assert commands.finish(process)[0] == 0
    took = time.monotonic() - began
    reference = killing.files(datasets)

    rng = np.random.default_rng()  # anything may happen at any moment
    for _ in range(8):
        if killing.whole(datasets) == list(killing.SPLITS):
            shutil.rmtree(datasets)
        process = begun(arguments)
        time.sleep(rng.uniform(0, took))
        process.kill()
        process.communicate()
        killing.whole(datasets)
        killing.tfds_reads(datasets)
    status, _, err = commands.run(*arguments)
    assert status == 0, err
    assert killing.files(datasets) == reference


def begun(arguments):
    """A build that has loaded its libraries and begins."""
    process = commands.start(*arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process
