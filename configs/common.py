"""What several experiments share: constants, and the choice of a variant."""

from ml_collections import ConfigDict

# The papers' whole-image augmentation (PINet, DEKR, HigherHRNet).
WHOLE_IMAGE = dict(
    scale=(0.75, 1.5),  # window side, relative to the short side of the image
    rotate=30.0,  # degrees, at most
    translate=0.2,  # of the window side, at most
    flip=0.5,
    flip_shift=0.0,  # 3.0 mislabels mirrored images as the official code does
)

# Crops, or images, that an epoch of published code has.
COCO_PEOPLE = 149_813  # of train2017, as HRNet's code keeps them
MPII_PEOPLE = 22_246  # of its training part
LSP_PEOPLE = 1_000
OCPOSE_IMAGES = 7_200  # of the released training list
CROWDPOSE_IMAGES = 12_000  # of its training and validation parts
OCHUMAN_IMAGES = 2_500  # of its validation part

# Crops of one person, HRNet's for COCO.
CROP = dict(
    scale=(0.65, 1.35),  # factor of the window
    rotate=90.0,  # degrees, at most: two deviations of 45
    rotate_share=0.6,  # of crops that are turned at all
    flip=0.5,
    half_body=0.3,  # share of crops of one half, of people with many joints
)

# HRNet's for MPII.
UPRIGHT_CROP = dict(
    scale=(0.75, 1.25), rotate=60.0, rotate_share=0.6, flip=0.5, half_body=0.0
)

# Gentler, for scenes that are rendered to fill the image.
RENDERED = dict(scale=(0.95, 1.1), rotate=5.0, translate=0.03, flip=0.5, flip_shift=0.0)

# The built-in crowd as the laptop experiments use it.
CROWD = dict(
    size=(96, 96),
    num_scenes=16000,
    test_scenes=300,
    people=(2, 3),
    overlap=0.29,  # mean largest box IoU of two people, as on CrowdPose
    height=(0.8, 0.95),
    objects=(0, 1),
)

# The same in the style of OCPose: two people, mostly one behind the other.
COUPLES = dict(CROWD, people=(2, 2), overlap=0.47, skeleton="ocpose")

# How a step is computed. A large network's state is shared out over so many devices;
# a batch that does not fit is computed in so many parts; batch norm sees groups of so
# many images, as unsynchronised batch norm of several GPUs does, or 0: all of them.
COMPUTING = dict(state_shards=1, accumulate=1, norm_group=0)


def choose(variants: dict, name: str) -> ConfigDict:
    """The experiment of a variant, with the keys of COMPUTING where it has none.

    Args:
        variants: what makes each by its name; "" is the one that needs no name.
        name: of the variant.

    Raises:
        ValueError: there is no such variant.
    """
    check(name, tuple(variants))
    config = variants[name]()
    config.update({key: COMPUTING[key] for key in COMPUTING if key not in config})
    return config


def check(name: str, variants: tuple[str, ...]) -> None:
    """Refuses the name of a variant that there is not.

    Raises:
        ValueError: naming those that there are.
    """
    if name not in variants:
        known = ", ".join(key for key in variants if key)
        raise ValueError(f"there is no variant {name!r}; there are {known}")
