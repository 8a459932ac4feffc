"""Top-down baselines on crops of LSP Extended: what `python -m studies.lsp` trains.

    hrnet             a narrow HRNet
    simple_baseline   a narrow ResNet-18 with three deconvolutions

All from scratch. The crops are small, so inputs are 96 x 96 and Gaussians narrow.
"""

from ml_collections import ConfigDict

from configs import hrnet

BACKBONES = {
    "hrnet": dict(
        name="hrnet",
        width=16,
        modules=(1, 2, 1),
        blocks=2,
        stem=32,
        bottlenecks=2,
        concat=False,
    ),
    "simple_baseline": dict(name="resnet", depth=18, width=32),
}


def get_config(variant: str = "hrnet") -> ConfigDict:
    """The experiment of a backbone.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in BACKBONES:
        raise ValueError(
            f"there is no variant {variant!r}; there are {list(BACKBONES)}"
        )
    config = hrnet.laptop()
    config.update(
        dict(steps=4000, eval_every=1000, checkpoint_every=1000, log_every=50)
    )
    del config.data["crowd"]
    config.data.update(dict(dataset="lsp_crops", size=(96, 96), padding=1.0))
    config.data.update(dict(eval_images=0))
    config.data.augment.update(dict(rotate=60.0, scale=(0.75, 1.25), rotate_share=1.0))
    config.model.backbone = ConfigDict(BACKBONES[variant])
    config.model.sharpness = 10.0
    config.loss.location = 0.01
    if variant == "simple_baseline":
        config.model.deconv = (128, 96, 64)
    return config
