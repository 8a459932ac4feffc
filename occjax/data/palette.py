"""Colours and textures. Nothing here knows where a joint is."""

import numpy as np

from occjax.data import flesh, paint

_SKINS = np.array(
    [
        *((244, 212, 184), (236, 198, 166), (228, 184, 148), (208, 158, 118)),
        *((176, 124, 84), (141, 94, 62), (108, 70, 48), (78, 50, 36)),
    ],
    float,
)
_HAIRS = np.array(
    [
        *((28, 24, 24), (52, 36, 28), (84, 54, 34), (120, 78, 44), (176, 132, 70)),
        *((222, 190, 120), (150, 64, 34), (168, 166, 164), (226, 224, 220)),
        *((206, 60, 90), (60, 110, 170)),
    ],
    float,
)


def from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours [..., 3] 0..255 from hue, saturation, value in 0..1."""
    turn = (hue[..., None] * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    dip = np.clip(np.minimum(turn, 4.0 - turn), 0.0, 1.0)
    value = value[..., None]
    return 255.0 * (value - value * saturation[..., None] * dip)


def cloth(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Colours of clothes and things [*shape, 3], some grey, black or white."""
    hue, saturation, value, grey = rng.uniform(size=(4, *shape))
    saturation = np.where(grey < 0.25, 0.06, 0.35 + 0.55 * saturation)
    return from_hsv(hue, saturation, 0.16 + 0.8 * value)


# Strength of hoops, stripes and dots: plain, hoops, stripes, dots, plaid.
_KINDS = np.array(
    [
        *((0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 0, 0)),
        *((0, 1, 0), (0, 0, 1), (0.5, 0.5, 0)),
    ]
)


def fabrics(rng: np.random.Generator, count: int) -> paint.Fabrics:
    """Random cloths, waves in periods per stature."""
    colors = cloth(rng, (2, count))
    wave, duty, *phase = rng.uniform(size=(4, count))
    return paint.Fabrics(
        color=colors[0],
        second=colors[1],
        pattern=_KINDS[rng.integers(len(_KINDS), size=count)],
        wave=14.0 + 22.0 * wave,
        phase=np.stack(phase, axis=-1),
        duty=0.3 + 0.35 * duty,
    )


def foliage(rng: np.random.Generator, count: int) -> paint.Fabrics:
    """Plain greens."""
    low, high = (0.2, 0.4, 0.35), (0.4, 0.85, 0.75)
    greens = from_hsv(*rng.uniform(low, high, (count, 3)).T)
    rows = fabrics(rng, count)
    return rows._replace(color=greens, pattern=np.zeros((count, 3)))


def wardrobe(rng: np.random.Generator, count: int) -> paint.Fabrics:
    """Clothes, skin and hair of `count` people, NUM_SLOTS rows each."""
    slots = flesh.NUM_SLOTS
    rows = fabrics(rng, count * slots)
    color, second, pattern = (
        field.reshape(count, slots, 3) for field in (rows.color, rows.second, rows.pattern)
    )
    tone = rng.uniform(0.0, len(_SKINS) - 1.001, count)
    low = tone.astype(int)
    part = (tone - low)[:, None]
    skin = (1.0 - part) * _SKINS[low] + part * _SKINS[low + 1]
    hair = _HAIRS[rng.integers(len(_HAIRS), size=count)]
    color[:, flesh.SKIN], color[:, flesh.HAIR] = skin, hair
    color[:, flesh.FACE], second[:, flesh.FACE] = skin, hair
    color[:, flesh.NOSE] = 0.9 * skin
    color[:, flesh.LIP] = 0.55 * skin + (44.0, 0.0, 6.0)
    color[:, flesh.WHITE], color[:, flesh.DARK] = 240.0, (38.0, 30.0, 32.0)
    pattern[:, flesh.PLAIN] = 0.0
    # Bare arms, short or long sleeves; shorts or trousers.
    sleeves, legs = rng.integers(3, size=count), rng.uniform(size=count) < 0.65
    source = np.tile(np.arange(slots), (count, 1))
    source[:, flesh.SLEEVE] = np.where(sleeves > 0, flesh.TOP, flesh.SKIN)
    source[:, flesh.CUFF] = np.where(sleeves > 1, flesh.TOP, flesh.SKIN)
    source[:, flesh.TROUSER] = np.where(legs, flesh.BOTTOM, flesh.SKIN)
    source += slots * np.arange(count)[:, None]
    return paint.Fabrics(*(field[source.reshape(-1)] for field in rows))
