"""What flows between data, models and evaluation, and the coordinate convention.

Shape letters: B batch, P persons, J joints, H W map size, C channels, K candidates.

Coordinates: x before y, in pixels, pixel centres on integers: pixel (row i, column j)
is the point (x=j, y=i). A feature map of stride s samples the input at multiples of
s, so input = map * s exactly. Boxes are (x, y, width, height).

Visibility of a joint: 0 unlabelled, 1 labelled and occluded, 2 labelled and visible.
"""

from typing import Any, NamedTuple

Array = Any  # numpy.ndarray on the host, jax.Array on the device

UNLABELLED, OCCLUDED, VISIBLE = 0, 1, 2

WIDEST_CROP = 1.3  # the largest test scale of person crops, in the test of MPII and LSP


class Inputs(NamedTuple):
    """What a model sees. Fields that a method does not use stay None.

    Where an example has a crop of each of P people of an image (`data.view` "people"),
    image, valid, to_source, box and box_score are [B, P, ...], zeros where there is
    nobody; the p-th start pose is in the pixels of the p-th crop.
    """

    image: Array  # [B, H, W, 3] uint8, RGB
    valid: Array  # [B, 2] int32, height and width that the source image reaches into
    to_source: Array  # [B, 2, 3] float32, input pixel -> source image pixel
    scaled: tuple[Array, ...] = ()  # the same view at the further test scales
    scaled_to_source: tuple[Array, ...] = ()  # to_source of each, where they are crops
    clean: Array | None = None  # [B, H, W, 3] un-occluded twin of image
    box: Array | None = None  # [B, 4] float32, source box of a person crop, unpadded
    box_score: Array | None = None  # [B] float32; 1 for annotated boxes
    start_pose: Array | None = None  # [B, P, J, 3] x, y, score in input pixels


class Labels(NamedTuple):
    """What a model must never see: the truth about its inputs, padded to P persons.

    In a person crop the first is the one whom the box is around. Where an example has
    P crops, the p-th person is that of the p-th one and in its pixels; ignore is
    [B, P, H / 4, W / 4].
    """

    joints: Array  # [B, P, J, 2] float32, input pixels
    visibility: Array  # [B, P, J] uint8
    area: Array  # [B, P] float32, box width * height in input pixels; 0 pads
    ignore: Array  # [B, H / 4, W / 4] bool, true where no loss may look
    head_size: Array  # [B, P] float32, input pixels; 0 unknown
    clean_visibility: Array | None = None  # [B, P, J] uint8, in Inputs.clean
    oks_area: Array | None = None  # [B, P] float32, the annotation's, in input pixels


class Poses(NamedTuple):
    """Decoded people in source image pixels, padded to a fixed P."""

    joints: Array  # [B, P, J, 2] float32
    joint_score: Array  # [B, P, J] float32
    visible: Array  # [B, P, J] float32, probability of being seen; NaN: not predicted
    labelled: Array  # [B, P, J] float32, probability of having a label; NaN likewise
    score: Array  # [B, P] float32, -inf where there is no person


class Batch(NamedTuple):
    """One training or test batch."""

    inputs: Inputs
    labels: Labels | None = None
    image_id: Array | None = None  # [B] int64; -1 marks a padding image
