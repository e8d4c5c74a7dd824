"""Small pictures with captions that describe them, drawn for the tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 200),
    "yellow": (220, 200, 50),
    "white": (235, 235, 235),
}
SHAPES = ("circle", "square", "triangle", "stripes")


def picture(seed: int) -> tuple[Image.Image, str, str]:
    """Return an image, its caption and its label (the shape); different seeds differ in place, size and texture."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[seed % len(SHAPES)]
    front, back = rng.choice(list(COLOURS), 2, replace=False)
    side = 96
    noise = rng.normal(0, 4, (side, side, 3)) + rng.normal(0, 25, (12, 12, 3)).repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(np.clip(np.array(COLOURS[str(back)]) + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    size = int(rng.integers(28, 60))
    x, y = (int(v) for v in rng.integers(4, side - size - 4, 2))
    fill = COLOURS[str(front)]
    if shape == "circle":
        draw.ellipse((x, y, x + size, y + size), fill=fill)
    elif shape == "square":
        draw.rectangle((x, y, x + size, y + size), fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y + size), (x + size // 2, y), (x + size, y + size)], fill=fill)
    else:
        for offset in range(0, side, 16):
            draw.rectangle((offset, 0, offset + 6, side), fill=fill)
    return image, f"a {front} {shape} in front of a {back} background", shape


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """Return an image as JPEG bytes."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files by relative name, and return the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write a tar of (name, bytes) in this order, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def captioned_tar(path: Path, seeds: range, shuffled: frozenset[int] = frozenset()) -> Path:
    """Write pictures with captions as a WebDataset tar; the captions of `shuffled` go to the next of them in turn."""
    captions = {seed: picture(seed)[1] for seed in seeds}
    wrong = sorted(shuffled)
    captions |= {seed: picture(other)[1] for seed, other in zip(wrong, wrong[1:] + wrong[:1], strict=True)}
    members = []
    for seed in seeds:
        members.append((f"{seed:05d}.jpg", jpeg(picture(seed)[0])))
        members.append((f"{seed:05d}.txt", captions[seed].encode()))
    return write_tar(path, members)
