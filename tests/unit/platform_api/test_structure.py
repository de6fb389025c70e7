"""Images and movies are what their headers and tables say."""

import io
import os
import random
import struct

import pytest
from PIL import Image

from platform_api.media.images import IMAGES, check_image, size_in_head
from platform_api.media.movies import check_movie
from platform_api.media.rules import IMAGE_BYTES_MAX, RULES, BadFile
from tests.support.files import box, movie, png, track

AVC = box(b"avcC", bytes([1, 66, 0, 30, 0xFF]))
HVC = box(b"hvcC", bytes(21) + b"\xff")


def problem(check, content, *more):
    try:
        check(io.BytesIO(content), *more)
    except BadFile as error:
        assert str(error) in RULES
        return str(error)
    return None


def unit(content=b"\x65slice"):
    return len(content).to_bytes(4, "big") + content


def painted(format_, size=(3, 2)):
    out = io.BytesIO()
    Image.new("RGB", size).save(out, format_)
    return out.getvalue()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "GIF", "WEBP"])
def test_whole_image_is_kept_and_its_size_known(format_):
    content, type_ = painted(format_), f"image/{format_.lower()}"
    assert type_ in IMAGES and problem(check_image, content, type_) is None
    assert size_in_head(io.BytesIO(content), type_) == (3, 2)
    assert problem(check_image, content[:12], type_) == "image_broken"
    assert size_in_head(io.BytesIO(content[:12]), type_) is None


def test_image_has_a_most_of_pixels_and_of_a_side():
    for width, height in ((20_000, 20_000), (10_001, 10_000), (32_768, 1), (2**31 - 1, 2**31 - 1)):
        assert problem(check_image, png(width=width, height=height), "image/png") == "image_too_large"
    assert problem(check_image, png(width=10_000, height=10_000), "image/png") is None
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + painted("GIF")[10:]
    assert problem(check_image, gif, "image/gif") == "image_too_large"


def test_pieces_of_a_png_are_looked_at_to_the_last():
    content = png(os.urandom(500))
    assert problem(check_image, content, "image/png") is None
    turned = bytearray(content)
    turned[-20] ^= 1  # in the pixels
    assert problem(check_image, bytes(turned), "image/png") == "image_broken"
    assert problem(check_image, content[:-12], "image/png") == "image_broken"
    assert problem(check_image, png(width=0), "image/png") == "image_broken"


def test_image_of_too_many_bytes_is_not_read():
    class Long(io.BytesIO):
        def seek(self, place, whence=0):
            return IMAGE_BYTES_MAX + 1 if whence == os.SEEK_END else super().seek(place)

    with pytest.raises(BadFile, match="image_too_many_bytes"):
        check_image(Long(painted("WEBP")), "image/webp")


@pytest.mark.parametrize(
    "content",
    [movie(), movie([b"x" * 300] * 5), movie(kind=b"soun", codec=b"mp4a", brand=b"M4A "),
     movie([unit() + unit(b"\x41b"), unit()], codec=b"avc1", config=AVC),
     movie([unit(b"\x26\x01")], codec=b"hvc1", config=HVC)],
    ids=["mpeg-4", "long", "sound", "h264", "h265"],
)  # fmt: skip
def test_movie_whose_samples_are_there_is_kept(content):
    assert problem(check_movie, content) is None
    assert problem(check_movie, content + box(b"free", bytes(9))) is None


def test_random_bytes_are_no_samples():
    noise = random.Random(7).randbytes(400)
    assert problem(check_movie, movie([noise], codec=b"avc1", config=AVC)) == "movie_samples_broken"
    assert problem(check_movie, movie([unit()[:-1]], codec=b"avc1", config=AVC)) == "movie_samples_broken"
    assert problem(check_movie, movie([unit(b"\xe5x")], codec=b"avc1", config=AVC)) == "movie_samples_broken"
    assert problem(check_movie, box(b"ftyp", b"isom", bytes(4)) + box(b"mdat", noise)) == "movie_no_index"


def test_tables_name_nothing_outside_of_the_media_data():
    head = box(b"ftyp", b"isom", bytes(4))
    media = box(b"mdat", bytes(100))
    start = len(head) + 8
    for sizes, offset, expected in (
        ([50, 50], start, None), ([50, 51], start, "movie_samples_missing"), ([10], start - 1, "movie_samples_missing"),
        ([10], start + 91, "movie_samples_missing"), ([1], 2**32 - 1, "movie_samples_missing"),
        ([], start, "movie_broken"),
    ):  # fmt: skip
        content = head + media + box(b"moov", track(sizes, offset))
        assert problem(check_movie, content) == expected, (sizes, offset)
    subtitles = head + media + box(b"moov", track([10], start, kind=b"text", codec=b"tx3g"))
    assert problem(check_movie, subtitles) == "movie_no_track"
    assert problem(check_movie, head + media + box(b"moov", bytes(0))) == "movie_no_track"
    assert problem(check_movie, head + media + box(b"moov", track([10], start)) * 2) == "movie_no_index"


def test_fragments_take_the_place_of_tables():
    empty = box(
        b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"vide"), box(b"minf", box(
            b"stbl", box(b"stsd", struct.pack(">II", 0, 1), box(b"mp4v", bytes(78))), box(b"stsc", bytes(8)),
            box(b"stsz", bytes(12)), box(b"stco", bytes(8))))))  # fmt: skip
    head = box(b"ftyp", b"iso5", bytes(4)) + box(b"moov", empty, box(b"mvex", box(b"trex", bytes(24))))
    run = box(b"moof", box(b"traf", box(b"tfhd", bytes(8)), box(b"trun", struct.pack(">II", 0, 3))))
    assert problem(check_movie, head + run + box(b"mdat", b"abc")) is None
    assert problem(check_movie, head + run) == "movie_no_track"
    assert problem(check_movie, head + box(b"mdat", b"abc")) == "movie_no_track"


def test_whatever_is_broken_is_told_and_nothing_else_happens():
    chance = random.Random(11)
    for content, check, more in ((movie([unit()] * 3, codec=b"avc1", config=AVC), check_movie, ()),
                                 (painted("WEBP"), check_image, ("image/webp",)),
                                 (painted("GIF"), check_image, ("image/gif",)),
                                 (painted("JPEG"), check_image, ("image/jpeg",)),
                                 (png(b"filler"), check_image, ("image/png",))):  # fmt: skip
        for cut in range(0, len(content), 7):
            problem(check, content[:cut], *more)
        for _ in range(300):
            turned = bytearray(content)
            for _ in range(chance.randint(1, 4)):
                turned[chance.randrange(len(turned))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            problem(check, bytes(turned), *more)
