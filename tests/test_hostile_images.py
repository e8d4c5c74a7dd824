"""Thousands of damaged images through decode processes: each gives pixels or a named refusal; none kills or hangs.

A sample of 1,500 in the suite; CURATE_FUZZ=10000 for more. Everything is seeded: image n is always the same bytes.
"""

import io
import os
import struct
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from dicoms import dicom
from PIL import Image, ImageDraw
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from curate.crops import Crop
from curate.engine.decoders import Decoders
from curate.engine.examine import Terms
from curate.recipe import CleanTable

COUNT = int(os.environ.get("CURATE_FUZZ", "1500"))
TERMS = Terms(1_000_000, 16, CleanTable(min_side=1))
FAIR = {"", "undecodable", "too_many_pixels", "too_small", "low_quality"}
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def drawn(mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((64, 48))
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill=(250, 20, 20))
    if mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    drawn(mode).save(stream, kind, **options)
    return stream.getvalue()


def interlaced() -> bytes:
    """Say of a PNG that its rows are interlaced: the data is then too short or long, which must be noticed."""
    data = bytearray(saved("PNG"))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    frames = [drawn().rotate(90 * i) for i in (1, 2)]
    grey = np.asarray(drawn("I;16"))
    return [
        saved("JPEG", exif=exif), saved("JPEG", progressive=True), saved("JPEG", "L", restart_marker_rows=1),
        saved("JPEG", "CMYK"), saved("JPEG", icc_profile=b"x" * 3000, subsampling=0),
        saved("PNG"), saved("PNG", "RGBA"), saved("PNG", "P", transparency=0), saved("PNG", "I;16"), saved("PNG", "1"),
        interlaced(), saved("PNG", save_all=True, append_images=frames),
        saved("WEBP"), saved("WEBP", "RGBA", lossless=True), saved("WEBP", save_all=True, append_images=frames),
        dicom(grey), dicom(np.asarray(drawn()), "RGB"), dicom(grey, syntax=RLELossless), dicom(grey, WindowWidth=9,
        WindowCenter=9, RescaleSlope="2", RescaleIntercept="-7"),
        dicom(np.asarray(drawn("L")), syntax=JPEGBaseline8Bit, PixelData=encapsulate([saved("JPEG", "L")])),
        saved("GIF", "P", save_all=True, append_images=frames), saved("TIFF", compression="tiff_lzw"),
        saved("TIFF", "I;16"), saved("BMP"), saved("PPM"),
    ]  # fmt: skip


SEEDS = seeds()


def mutated(number: int) -> bytes:
    rng = np.random.default_rng(number)
    data = bytearray(SEEDS[number % len(SEEDS)])
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, max(1, len(data) if rng.random() < 0.6 else min(len(data), 200))))
        match int(rng.integers(0, 6)):
            case 0:  # flipped bits
                for i in rng.integers(0, len(data), int(rng.integers(1, 9))).tolist() if data else []:
                    data[i] ^= 1 << int(rng.integers(0, 8))
            case 1:  # cut short
                del data[place:]
            case 2:  # spliced with another
                other = SEEDS[int(rng.integers(0, len(SEEDS)))]
                data[place:] = other[int(rng.integers(0, len(other))) :]
            case 3:  # a length or size that lies
                width = int(rng.choice([1, 2, 4]))
                value = int(rng.choice(EXTREMES)) % (1 << 8 * width)
                data[place : place + width] = value.to_bytes(width, str(rng.choice(["big", "little"])))
            case 4:  # a part twice
                end = place + int(rng.integers(1, 64))
                data[place:place] = data[place:end]
            case _:  # a part gone
                del data[place : place + int(rng.integers(1, 64))]
    return bytes(data)


def test_unharmed_seeds_decode() -> None:
    from curate.images import decode

    whole = [decode(data).pixels.shape for i, data in enumerate(SEEDS) if data != interlaced()]
    assert len(whole) == len(SEEDS) - 1
    assert set(whole) == {(48, 64, 3), (64, 48, 3)}


def test_mutated_images_give_pixels_or_a_named_refusal() -> None:
    mutants = [mutated(number) for number in range(COUNT)]
    decoders = Decoders(2, TERMS, Crop(16, 16), 30.0)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(decoders.examine, mutants))
    finally:
        decoders.close()
    unfair = {n: (one.reason, one.detail) for n, one in enumerate(found) if one.reason not in FAIR}
    assert unfair == {}
    counts = Counter(one.reason for one in found)
    print(dict(counts), f"{len(set(mutants))} different")
    assert len(found) == COUNT
    assert counts[""] > COUNT // 20
    assert counts["undecodable"] > COUNT // 5
    assert all((one.crop is None) == (one.reason in {"undecodable", "too_many_pixels"}) for one in found)
