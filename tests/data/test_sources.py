import pickle
import shutil

import cv2
import numpy as np
import pytest
import scenes
from faster_coco_eval.core import mask as run_lengths

from data_prep import builder, shards
from data_prep import crowd as crowd_builder
from data_prep.account import Account
from occjax.data import pipeline, records, sources
from occjax.errors import UserError


def encoded(source, count: int | None = None) -> list[dict]:
    """Records of a source with PNG images, and bytes in all kinds of segments."""
    found = []
    for index in range(count or len(source)):
        record = source[index]
        data = cv2.imencode(".png", record["image"][..., ::-1])[1].tobytes()
        found.append({**record, "image": data})
        people = record["persons"]
        people["segmentation"] = [b"PZ95\\`o", *[b""] * (len(people["id"]) - 1)]
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folder with a dataset of 20 records in three files."""
    folder = tmp_path_factory.mktemp("datasets")
    items = encoded(scenes.Scenes())

    def read(index, account):
        account.receive(1, len(items[index]["persons"]["id"]))
        return items[index]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 7)
        content = builder.Content(
            list(range(20)), read, Account(), scenes.Scenes.skeleton, {}, {}
        )
        builder.write(folder, "scenes", "train", content)
    return folder


def load(folder, split="train", **options):
    return sources.load({"dataset": "scenes", "dir": folder, **options}, split)


@pytest.mark.parametrize("cache", [False, True])
def test_records_come_back_in_order_and_unchanged(prepared, cache):
    source, plain = load(prepared, cache=cache), encoded(scenes.Scenes())
    assert len(source) == 20
    assert source.max_persons == scenes.Scenes.max_persons
    assert source.skeleton == scenes.Scenes.skeleton
    for index, expected in enumerate(plain):
        for _ in range(2):
            record = source[index]
            assert record["image"] == expected["image"]
            assert record["image_id"] == expected["image_id"]
            assert record["file_name"] == expected["file_name"]
            assert record["persons"].keys() == expected["persons"].keys()
            for name, column in expected["persons"].items():
                np.testing.assert_array_equal(record["persons"][name], column)
            pixels = scenes.Scenes()[index]["image"]
            np.testing.assert_array_equal(records.pixels(record), pixels)


def test_facts_are_known_without_reading_a_record(prepared):
    source, plain = load(prepared), scenes.Scenes()
    for index in range(20):
        record = plain[index]
        assert tuple(source.sizes[index]) == (record["height"], record["width"])
        joints = np.sum(record["persons"]["joints"][..., 2] > 0)
        assert source.labelled_joints[index] == joints
    assert source._records is None


def test_sources_survive_pickling_before_and_after_reading(prepared):
    for source in (load(prepared), load(prepared, cache=True)):
        unread = pickle.loads(pickle.dumps(source))
        first = source[3]["image_id"]
        read = pickle.loads(pickle.dumps(source))
        assert unread[3]["image_id"] == read[3]["image_id"] == first


def test_cache_reads_every_record_once():
    class Counting(scenes.Scenes):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    cached = sources.Cached(Counting())
    assert cached[4] is cached[4]
    cached[5]
    assert Counting.reads == 2
    assert len(cached) == 20
    with pytest.raises(AttributeError, match="sizes"):
        _ = cached.sizes


def test_batches_from_disk_equal_batches_from_memory(prepared):
    data = {"size": 64, "max_persons": 4, "threads": 2, "augment": {}}
    live = pipeline.train_batches(scenes.Scenes(), data, 4, 3)
    disk = pipeline.train_batches(load(prepared), data, 4, 3)
    for _ in range(6):
        first, second = next(live), next(disk)
        np.testing.assert_array_equal(first.inputs.image, second.inputs.image)
        np.testing.assert_array_equal(first.labels.joints, second.labels.joints)
        np.testing.assert_array_equal(first.image_id, second.image_id)


def test_index_out_of_range_is_an_index_error(prepared):
    with pytest.raises(IndexError, match="no record 20 of 20"):
        load(prepared)[20]


def test_missing_dataset_names_the_command_that_prepares_it(tmp_path):
    data = {"dataset": "ochuman", "dir": "datasets"}
    with pytest.raises(UserError) as caught:
        sources.load({**data, "dir": str(tmp_path / "datasets")}, "train")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path}/datasets/ochuman is not there; prepare it")
    assert (
        "python -m data_prep.ochuman --split train --images IMAGES "
        "--annotations ochuman_coco_format_val_range_0.00_1.00.json --out" in message
    )
    with pytest.raises(
        UserError, match="data_prep.crowdpose --split test .*_test.json"
    ):
        sources.load({"dataset": "crowdpose", "dir": str(tmp_path)}, "test")
    with pytest.raises(UserError, match="data_prep.coco --name mine --split val "):
        sources.load({"dataset": "mine", "dir": str(tmp_path)}, "val")


def test_missing_split_names_those_that_there_are(prepared):
    with pytest.raises(UserError, match="no split 'test', only train; prepare"):
        load(prepared, "test")
    with pytest.raises(UserError, match="built-in crowd has no split 'val'"):
        sources.load({"dataset": "crowd"}, "val")


def test_skeleton_of_shipped_datasets_is_known_before_they_are_there(prepared):
    def of(dataset, **options):
        data = {"dataset": dataset, "dir": prepared, "split": "train", **options}
        return sources.skeleton_of(data).name

    assert of("crowdpose") == "crowdpose"
    assert of("mpii") == "mpii"
    assert of("ochuman") == of("coco") == of("scenes") == of("crowd") == "coco"
    assert of("crowd", crowd={"skeleton": "ocpose"}) == "ocpose"
    with pytest.raises(UserError, match="nowhere is not there"):
        of("nowhere")


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "facts", "info"])
def test_damaged_file_is_named(prepared, tmp_path, damage):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "scenes" / records.VERSION
    shard = folder / "scenes-train.array_record-00001-of-00003"
    data = bytearray(shard.read_bytes())
    named = shard.name
    match damage:
        case "cut":
            shard.write_bytes(data[: len(data) // 2])
        case "gone":
            shard.unlink()
        case "flipped":
            data[len(data) // 2] ^= 255
            shard.write_bytes(data)
        case "facts":
            named = "metadata.json"
            (folder / named).write_text('{"skeleton": "coco", "spl')
        case "info":
            named = "dataset_info.json"
            (folder / named).write_text("")
    with pytest.raises(UserError, match=rf"{named} is damaged.* prepare scenes again"):
        [load(tmp_path)[index] for index in range(7, 14)]


@pytest.mark.parametrize("format", [".jpg", ".png"])
def test_cut_images_are_refused_and_whole_ones_decoded(format):
    image = cv2.GaussianBlur(scenes.Scenes()[0]["image"], (0, 0), 3)
    data = cv2.imencode(format, image[..., ::-1])[1].tobytes()
    whole = records.decode(data, "a")
    assert np.abs(whole.astype(int) - image).mean() < 3
    records.decode(data + bytes(20), "trailing zeros are harmless")
    for keep in (len(data) - 8, len(data) // 2, 60, 3):
        with pytest.raises(UserError, match="a: "):
            records.decode(data[:keep], "a")
    with pytest.raises(UserError, match="empty"):
        records.decode(b"", "a")
    with pytest.raises(UserError, match="no readable image"):
        records.decode(b"GIF89a nonsense", "a")


def test_thumbnail_in_the_header_does_not_hide_a_cut():
    image = scenes.Scenes()[0]["image"]
    data = cv2.imencode(".jpg", image)[1].tobytes()
    small = cv2.imencode(".jpg", image[:8, :8])[1].tobytes()
    header = b"\xff\xe1" + (2 + len(small)).to_bytes(2, "big") + small
    tagged = data[:2] + header + data[2:]
    assert records.decode(tagged, "a").shape == image.shape
    with pytest.raises(UserError, match="cut short"):
        records.decode(tagged[:-30], "a")


@pytest.mark.parametrize("seed", range(6))
def test_pixels_of_hidden_regions_are_those_of_the_coco_tools(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(5, 300, 2)
    smooth = cv2.GaussianBlur(rng.random(size), (0, 0), 1 + 3 * seed)
    masks = [smooth > np.median(smooth), smooth < np.quantile(smooth, 0.1)]
    if seed == 0:
        masks = [np.ones(size, bool), np.zeros(size, bool)]
    encoded = [
        run_lengths.encode(np.asfortranarray(mask, np.uint8))["counts"]
        for mask in masks
    ]
    record = scenes.record(
        np.zeros((*size, 3), np.uint8),
        np.zeros((3, 17, 3)),
        segmentation=[*encoded, b""],
    )
    expected = np.where(masks[0] | masks[1], 0, 255)
    np.testing.assert_array_equal(records.kept_pixels(record), expected)


def test_listed_size_must_be_that_of_the_pixels():
    record = {**scenes.Scenes()[0], "height": 5}
    with pytest.raises(UserError, match="expected 5 x .* found"):
        records.pixels(record)


def test_crowd_splits_render_different_scenes():
    options = {"num_scenes": 5, "test_scenes": 3, "size": (64, 64), "seed": 1}
    data = {"dataset": "crowd", "crowd": options, "cache": True}
    train, test = (sources.load(data, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (5, 3)
    assert not np.array_equal(train[0]["image"], test[0]["image"])
    other = sources.load({**data, "crowd": {**options, "seed": 0}}, "test")
    assert not np.array_equal(train[0]["image"], other[0]["image"])
    batches = pipeline.test_batches(
        test, {"size": 64, "threads": 0, "max_persons": 4}, 3, labels=True
    )
    assert [batch.inputs.image.shape for batch in batches] == [(3, 64, 64, 3)]


def test_a_run_may_be_tested_on_another_dataset_of_the_same_joints(tmp_path):
    options = {"num_scenes": 2, "test_scenes": 2, "size": (64, 64)}
    for name, skeleton in (("one", "coco"), ("two", "coco"), ("limbs", "ocpose")):
        chosen = {**options, "skeleton": skeleton}
        crowd_builder.write(str(tmp_path), name, "test", chosen)
    crowd_builder.write(str(tmp_path), "one", "train", options)
    data = {"dir": str(tmp_path), "dataset": "one", "split": "train"}
    data["eval_split"] = "test"
    assert sources.load_test(data).name == "one"
    assert sources.load_test(data, "train").split == "train"
    assert sources.load_test({**data, "eval_dataset": "two"}).name == "two"
    with pytest.raises(UserError, match="eval_dataset: expected the joints of coco"):
        sources.load_test({**data, "eval_dataset": "limbs"})
