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


def muted(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours of walls and floors [count, 3]: rather grey, of any brightness."""
    hue, saturation, value = rng.uniform((0, 0.04, 0.25), (1, 0.42, 0.95), (count, 3)).T
    return from_hsv(hue, saturation, value)


# Strength of hoops, stripes and dots: plain, hoops, stripes, dots, plaid.
_KINDS = np.array(
    [
        *((0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 0, 0)),
        *((0, 1, 0), (0, 0, 1), (0.5, 0.5, 0)),
    ]
)


def _cloths(rng: np.random.Generator, count: int) -> paint.Fabrics:
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


def fabrics(
    rng: np.random.Generator, people: int, things: int, others: int
) -> paint.Fabrics:
    """All materials of a scene, waves in periods per stature.

    Rows: NUM_SLOTS for each person, two for each thing (the second for its leaves),
    then the others.
    """
    clothes, leaves = people * flesh.NUM_SLOTS, people * flesh.NUM_SLOTS + 2 * things
    rows = _cloths(rng, leaves + others)
    foliage = slice(clothes + 1, leaves, 2)
    hue, saturation, value = rng.uniform(
        (0.2, 0.4, 0.35), (0.4, 0.85, 0.75), (things, 3)
    ).T
    rows.color[foliage] = from_hsv(hue, saturation, value)
    rows.pattern[foliage] = 0.0
    source = _dress(rng, rows, people)
    for field in rows:
        field[:clothes] = field[source]
    return rows


def _dress(rng: np.random.Generator, rows: paint.Fabrics, count: int) -> np.ndarray:
    """Gives `count` people skin and hair; returns the row that each slot takes."""
    slots = flesh.NUM_SLOTS
    color, second, pattern = (
        field[: count * slots].reshape(count, slots, 3)
        for field in (rows.color, rows.second, rows.pattern)
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
    return (source + slots * np.arange(count)[:, None]).reshape(-1)
