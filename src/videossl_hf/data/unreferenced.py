"""Tells from the first bytes of a packet whether other frames refer to its frame.

Such packets need not be decoded unless their own frame is wanted. FFmpeg's `skip_frame` does the same, but
while it is set the H.264 decoder no longer complains of packets that hold no frame, so a destroyed one would
go unnoticed and the frames after it come out wrong. In other codecs leaving out frames is not exact (AV1
loses frames, VP8 and VP9 carry statistics from frame to frame, in HEVC a higher temporal layer may refer to
them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["unreferenced_test"]

H264_SLICE = 1  # of a picture that is no IDR one
H264_HARMLESS = (6, 9, 12)  # supplemental information, access unit delimiter, filler: may be left out with it
MPEG4_PICTURE = b"\0\0\1\xb6"
MPEG4_B_FRAME = 2


def unreferenced_test(context: Any) -> Callable[[memoryview], bool]:
    """A function (bytes of a packet) -> whether no other frame refers to it; in doubt it says no.

    Args:
        context: the `av.VideoCodecContext` of the stream.
    """
    codec = context.codec.canonical_name
    if codec == "h264":
        extradata = context.extradata or b""
        # The avcC record says how many bytes hold the length of a unit; without it start codes divide them.
        if len(extradata) > 4 and extradata[0] == 1:
            length_size = (extradata[4] & 3) + 1
            return lambda packet: _h264_unreferenced(_units_by_length(packet, length_size))
        return lambda packet: _h264_unreferenced(_units_by_start_code(bytes(packet)))
    if codec == "mpeg4":
        return _mpeg4_unreferenced
    return lambda packet: False


def _h264_unreferenced(headers: Iterator[int]) -> bool:
    slices = 0
    for header in headers:
        kind, referenced = header & 31, header >> 5
        if kind == H264_SLICE and not referenced:
            slices += 1
        elif kind not in H264_HARMLESS:
            return False
    return slices > 0


def _units_by_length(packet: memoryview, length_size: int) -> Iterator[int]:
    """First byte of every unit of an H.264 packet; 0, which is no unit, where the lengths do not fit."""
    place = 0
    while place < len(packet):
        body = place + length_size
        place = body + int.from_bytes(packet[body - length_size : body], "big")
        yield packet[body] if body < place <= len(packet) else 0


def _units_by_start_code(packet: bytes) -> Iterator[int]:
    place = packet.find(b"\0\0\1")
    if place > 1:
        yield 0
    while 0 <= place < len(packet) - 3:
        yield packet[place + 3]
        place = packet.find(b"\0\0\1", place + 3)


def _mpeg4_unreferenced(packet: memoryview) -> bool:
    data = bytes(packet)
    place = data.find(MPEG4_PICTURE)
    # A second picture in the packet is one that is referred to, packed in with a B-frame.
    if not 0 <= place < len(data) - 4 or data.find(MPEG4_PICTURE, place + 4) >= 0:
        return False
    return data[place + 4] >> 6 == MPEG4_B_FRAME
