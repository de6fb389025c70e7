"""The size and the structure of an image, read without decoding it: a small file can be an image that fills a memory.

Headers are read by Pillow, of the one type that the file's first bytes say; PNG's pieces are checked to the last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import BinaryIO

from PIL.GifImagePlugin import GifImageFile
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from platform_api.media.rules import IMAGE_BYTES_MAX, IMAGE_SIDE_MAX, PIXELS_MAX, BadFile

__all__ = ["IMAGES", "check_image", "is_too_large", "size_in_head"]

IMAGES: Mapping[str, Callable[[BinaryIO], ImageFile]] = {
    "image/png": PngImageFile, "image/jpeg": JpegImageFile, "image/gif": GifImageFile, "image/webp": WebPImageFile,
}  # fmt: skip
_UNREADABLE = (SyntaxError, ValueError, OSError, EOFError, IndexError, KeyError, TypeError, OverflowError)
"""What Pillow raises for headers that are none."""


def check_image(file: BinaryIO, type_: str) -> None:
    """Blocking. Raises BadFile: `image_broken`, `image_too_large`, `image_too_many_bytes`."""
    if file.seek(0, os.SEEK_END) > IMAGE_BYTES_MAX:
        raise BadFile("image_too_many_bytes")
    file.seek(0)
    try:
        image = IMAGES[type_](file)
        _check_size(image.size)
        image.verify()
    except DecompressionBombError as error:
        raise BadFile("image_too_large") from error
    except _UNREADABLE as error:
        raise BadFile("image_broken") from error


def size_in_head(file: BinaryIO, type_: str) -> tuple[int, int] | None:
    """Width and height, of the first bytes of an image; None where they stand further behind. Fast."""
    try:
        return IMAGES[type_](file).size
    except (DecompressionBombError, *_UNREADABLE):
        return None


def is_too_large(size: tuple[int, int]) -> bool:
    width, height = size
    return width * height > PIXELS_MAX or max(size) > IMAGE_SIDE_MAX


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise BadFile("image_broken")
    if is_too_large(size):
        raise BadFile("image_too_large")
