"""Lays out, in this folder, files of the names that the documents use.

PYTHONPATH=tests:tests/data_prep python tests/walk_files.py SHARED
"""

import json
import pathlib
import re
import sys

import cv2
import documents
import golden_weights
import numpy as np
import test_prep_lsp
import test_prep_ocpose

from data_prep import lsp
from occjax import skeletons
from occjax.data import sources
from occjax.data.crowd import Crowd
from occjax.runtime import config as configs
from occjax.runtime import weight_files


def main() -> None:
    """Lays all of it out."""
    shared = pathlib.Path(sys.argv[1])
    photographs(shared / "data")
    coco(shared / "data")
    others(shared / "data")
    mpii(shared / "data" / "mpii")
    poses_of_lsp(shared / "data" / "lsp_extended")
    couples(shared / "data" / "crowdpose")
    scored(shared / "data")
    weights(shared / "golden")
    film(pathlib.Path("film.mp4"))
    method()


def link(name: str, target: pathlib.Path) -> None:
    """Lets a name stand for a file or folder that is there."""
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target.resolve())


def write(name: str, content: object) -> None:
    """Writes a json file."""
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def photographs(data: pathlib.Path) -> None:
    """All images in one folder, under all of its names; some of them, and boxes."""
    for album in ("coco", "crowdpose", "ochuman", "mpii"):
        for path in (data / album / "images").iterdir():
            link(f"images/{path.name}", path)
    for name in ("IMAGES", "FOLDER", "train2017", "val2017"):
        link(name, pathlib.Path("images"))
    for path in sorted((data / "coco" / "images").iterdir())[:3]:
        link(f"photos/{path.name}", path)
    link("photo.jpg", path)
    boxes = [{"image_id": number, "bbox": [20, 20, 200, 300], "score": 0.9}
             for number in (1, 2, 3)]  # fmt: skip
    write("boxes.json", boxes)
    source = sources.load_test(configs.load("configs/hrnet.py").data)
    records = [source[i] for i in range(20)]
    boxes = [
        {"image_id": record["image_id"], "bbox": box.tolist(), "score": 0.9}
        for record in records
        for box in record["persons"]["bbox"]
    ]
    write("BOXES.json", boxes)


def coco(data: pathlib.Path) -> None:
    """Annotations of the photographs, by the split that they come from."""
    path = data / "coco" / "annotations" / "person_keypoints_shared.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for split, name in (("train", "TRAIN"), ("val", "VAL")):
        images = [i for i in content["images"] if i["coco_split"] == f"{split}2017"]
        ids = {image["id"] for image in images}
        people = [a for a in content["annotations"] if a["image_id"] in ids]
        found = {**content, "images": images, "annotations": people}
        write(f"annotations/person_keypoints_{split}2017.json", found)
        write(f"{name}.json", found)


def others(data: pathlib.Path) -> None:
    """CrowdPose and OCHuman; one file stands for all splits."""
    path = data / "crowdpose" / "annotations" / "crowdpose_images_1.json"
    for part in ("trainval", "test", "val"):
        link(f"crowdpose_{part}.json", path)
    folder = data / "ochuman" / "annotations"
    link("ochuman.json", folder / "ochuman.json")
    for part in ("val", "test"):
        name = f"ochuman_coco_format_{part}_range_0.00_1.00.json"
        link(name, folder / "ochuman_coco17.json")


def mpii(folder: pathlib.Path) -> None:
    """pytorch-pose's file, of which one half is for validation."""
    people = json.loads((folder / "annotations" / "test_mpii.json").read_text())
    items = [
        {
            "img_paths": person["image"],
            "isValidation": float(number % 2),
            "joint_self": np.column_stack(
                [person["joints"], person["joints_vis"]]
            ).tolist(),
            "objpos": person["center"],
            "scale_provided": person["scale"],
        }
        for number, person in enumerate(people)
    ]
    write("mpii_annotations.json", items)
    truth = dict(np.load(folder / "annotations" / "mpii_val.npz"))
    shown = np.where(truth["joint_missing"] == 1, 0, 1 + truth["joint_visible"])
    joints = np.dstack([truth["joints_xy"], shown])
    corners = truth["headbox_xyxy"]
    head = 0.6 * np.linalg.norm(corners[:, 2:] - corners[:, :2], axis=1)
    np.savez("T.npz", joints=joints, head=head)
    noise = np.random.default_rng(0).normal(0, 10, joints[..., :2].shape)
    np.savez("P.npz", joints=joints[..., :2] + noise)


def poses_of_lsp(folder: pathlib.Path) -> None:
    """joints.mat of LSP, with few of its images, and of its extension."""
    people = json.loads((folder / "annotations" / "lspet_images.json").read_text())
    joints = np.zeros((max(p["index"] for p in people["images"]), 14, 3))
    for person in people["images"]:
        joints[person["index"] - 1] = person["joints"]
    link("lspet_dataset/images", folder / "images")
    test_prep_lsp.as_official(pathlib.Path("lspet_dataset"), joints, lsp.EXTENDED)
    joints = np.zeros((2000, 14, 3))
    for person in people["images"][:8]:
        for start in (0, 1000):
            number = person["index"] + start
            link(f"lsp_dataset/images/{lsp.LSP.file_name.format(number)}",
                 folder / "images" / person["file_name"])  # fmt: skip
            joints[number - 1] = person["joints"]
            joints[number - 1, :, 2] = 0
    test_prep_lsp.as_official(pathlib.Path("lsp_dataset"), joints, lsp.LSP)


def couples(folder: pathlib.Path) -> None:
    """OCPose's file, made of the people of CrowdPose, and its lists."""
    path = folder / "annotations" / "crowdpose_images_1.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    joints = skeletons.OCPOSE.joints
    named = [{"id": 1, "name": "person", "keypoints": list(joints)}]
    of_image: dict[int, list] = {}
    for person in content["annotations"]:
        of_image.setdefault(person["image_id"], []).append(person)
    content["annotations"] = [x for both in of_image.values() for x in both[:2]]
    people = test_prep_ocpose.as_layout(content, joints)
    write("annot_all.json", {**people, "categories": named})
    names = sorted(image["file_name"] for image in content["images"])
    for part, chosen in (("train", names[::2]), ("test", names[1::2])):
        pathlib.Path(f"{part}_list.txt").write_text("\n".join(chosen) + "\n")


def scored(data: pathlib.Path) -> None:
    """Labels, detections of two systems, and boxes."""
    name = "coco/annotations/person_keypoints_shared.json"
    link("A.json", data / name)
    folder = data / "eval_reference"
    link("D.json", folder / "coco_images_seed16_good.detections.json")
    link("E.json", folder / "coco_images_mediapipe.detections.json")


def weights(golden: pathlib.Path) -> None:
    """Files of weights with the published names."""
    for name, folder, part in (
        ("hrnet_w32-36af842e", "hrnet_w32_backbone", None),
        ("resnet50-19c8e357", "torchvision_resnet", "resnet50"),
        ("duc_se", "fastpose", "fastpose101_se"),
        ("FILE", "pinet_coco", None),
        ("MODEL", "dekr_coco", None),
        ("RESCORER", "dekr_coco", "rescore_net"),
    ):
        _, arrays = golden_weights.load(golden / folder, part)
        if name.startswith("hrnet"):  # the published file can tell cats from dogs
            arrays["classifier.bias"] = np.zeros(1000, np.float32)
        weight_files.write(pathlib.Path(f"{name}.pth"), arrays)


def film(path: pathlib.Path) -> None:
    """Two seconds of video: a scene of the built-in crowd that moves sideways."""
    image = np.asarray(Crowd(num_scenes=1, size=(96, 128))[0]["image"])
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, 24.0, (128, 96))
    for number in range(48):
        writer.write(np.roll(image[..., ::-1], 2 * number, axis=1))
    writer.release()


def method() -> None:
    """The method that docs/new_method.md makes up, with its config."""
    page = pathlib.Path("docs/new_method.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.S)
    for folder, text in zip(("occjax/methods", "configs"), code, strict=True):
        pathlib.Path(folder, f"{documents.EXAMPLE}.py").write_text(text)


if __name__ == "__main__":
    main()
