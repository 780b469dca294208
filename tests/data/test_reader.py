from __future__ import annotations

import functools
import http.server
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from media import decode_all, moving_texture, write_media
from videossl_hf.data import video_index
from videossl_hf.data.reader import VideoReader
from videossl_hf.errors import DecodeError, InputError, NoAudioError, NoVideoError, VideoSSLError

SIZE = (20, 28)
# Encoders, containers and structures between two keyframes: whatever may break "seek and count".
STRUCTURES: dict[str, dict[str, object]] = {
    "h264 closed": {"options": {"g": "12", "bf": "3"}},
    "h264 open": {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "h264 intra refresh": {"options": {"g": "12", "x264-params": "intra-refresh=1:scenecut=0"}},
    "h264 one keyframe": {"options": {"g": "500", "bf": "2"}},
    "h264 all keyframes": {"options": {"g": "1"}},
    "h264 10 bit": {"pix_fmt": "yuv420p10le", "options": {"g": "12"}},
    "h264 4:4:4": {"pix_fmt": "yuv444p", "options": {"g": "12"}},
    "h264 interlaced": {"options": {"g": "12", "x264-params": "interlaced=1"}},
    "h264 matroska": {"name": "clip.mkv", "options": {"g": "12", "bf": "3"}},
    "h264 avi": {"name": "clip.avi", "options": {"g": "12", "bf": "2"}},
    "h264 program stream": {"name": "clip.ts", "options": {"g": "12", "bf": "2"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg4 avi": {"codec": "mpeg4", "name": "clip.avi", "options": {"g": "12"}},
    "mpeg4 avi with b-frames": {"codec": "mpeg4", "name": "clip.avi", "options": {"g": "12", "bf": "2"}},
    "mpeg2": {"codec": "mpeg2video", "fps": 25, "options": {"g": "12", "bf": "2"}},
    "mpeg1": {"codec": "mpeg1video", "name": "clip.mpg", "fps": 25, "options": {"g": "12", "bf": "2"}},
    "vp8": {"codec": "libvpx", "name": "clip.webm", "options": {"g": "12", "auto-alt-ref": "1"}},
    "vp9": {"codec": "libvpx-vp9", "name": "clip.webm", "options": {"g": "12", "cpu-used": "8"}},
    "av1": {"codec": "libsvtav1", "name": "clip.mkv", "options": {"g": "12", "preset": "12"}},
    "mjpeg": {"codec": "mjpeg", "name": "clip.mov", "pix_fmt": "yuvj420p"},
}
NUM_FRAMES = 50


@pytest.fixture(scope="module", params=STRUCTURES)
def structured_clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    what = dict(STRUCTURES[request.param])
    path = tmp_path_factory.mktemp("structures") / str(what.pop("name", "clip.mp4"))
    return write_media(path, num_frames=NUM_FRAMES, **what)  # type: ignore[arg-type]


def all_frames(reader: VideoReader, path: Path, size: tuple[int, int] = SIZE) -> np.ndarray:
    """What decoding everything from the start gives, scaled as the reader scales."""
    decoded = decode_all(path)
    frames = np.empty((len(decoded), *size, 3), dtype=np.uint8)
    for frame, place in zip(decoded, frames, strict=True):
        reader._convert(frame, place)
    return frames


def test_frames_are_those_of_decoding_everything(structured_clip: Path) -> None:
    with VideoReader(structured_clip) as reader:
        wanted = all_frames(reader, structured_clip)
        assert len(reader) == len(wanted) == NUM_FRAMES
        random = np.random.default_rng(0)
        starts = [(start, stride) for start in range(0, 50, 4) for stride in (1, 3)]
        dense = [np.minimum(start + stride * np.arange(8), 49) for start, stride in starts]
        sparse = [random.permutation(50)[:5] for _ in range(12)]
        for indices in (*dense, *sparse, np.arange(50)[::-1], np.array([7, 7, 49, 7, 0])):
            np.testing.assert_array_equal(reader.frames(indices, SIZE), wanted[indices])


def test_several_clips_are_read_in_one_pass(structured_clip: Path) -> None:
    with VideoReader(structured_clip) as reader:
        wanted = all_frames(reader, structured_clip)
        clips = [[3, 4, 5], [], [40, 4, 0], range(10, 30, 5)]
        for clip, frames in zip(clips, reader.clips(clips, SIZE), strict=True):
            np.testing.assert_array_equal(frames, wanted[list(clip)])


def test_a_reader_of_bytes_reads_what_a_reader_of_the_file_reads(structured_clip: Path) -> None:
    with VideoReader(structured_clip) as reader, VideoReader(structured_clip.read_bytes()) as other:
        np.testing.assert_array_equal(reader.frames([11, 40]), other.frames([11, 40]))


@pytest.mark.parametrize("name", ["h264 closed", "h264 open", "h264 matroska", "hevc", "mpeg4", "vp9", "av1"])
def test_only_the_needed_part_of_a_sound_file_is_decoded(
    name: str, write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(num_frames=NUM_FRAMES, **STRUCTURES[name])
    with VideoReader(path) as reader:
        monkeypatch.setattr(reader, "_read_from_start", lambda *_: pytest.fail("decoded from the start"))
        attempts = []
        try_run = reader._try_run
        monkeypatch.setattr(
            reader, "_try_run", lambda run, key, deliver: attempts.append(key) or try_run(run, key, deliver)
        )
        reader.frames([44, 45])
        assert len(attempts) == 1
        assert attempts[0] > 0


def test_frames_at_their_own_size_are_those_of_pyav(clip_with_sound: Path) -> None:
    plain = np.stack([frame.to_ndarray(format="rgb24") for frame in decode_all(clip_with_sound)])
    with VideoReader(clip_with_sound) as reader:
        np.testing.assert_array_equal(reader.frames(range(30)), plain)


def test_pictures_come_out_in_rgb_as_they_were_written(write_clip: Callable[..., Path]) -> None:
    texture = moving_texture(6, 64, 96)
    path = write_clip(frames=texture, pix_fmt="yuv444p", options={"crf": "4"})
    with VideoReader(path) as reader:
        assert np.abs(reader.frames(range(6)).astype(int) - texture).mean() < 3
        halves = texture.reshape(6, 32, 2, 48, 2, 3).mean((2, 4))
        assert np.abs(reader.frames(range(6), 32).astype(int) - halves).mean() < 4


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_display_matrix_is_applied(
    rotation: int, mirrored: bool, write_clip: Callable[..., Path]
) -> None:
    with VideoReader(write_clip("plain.mp4", num_frames=4)) as reader:
        stored = reader.frames([0, 3])
    upright = np.rot90(stored, rotation // 90, axes=(1, 2))
    upright = upright[:, :, ::-1] if mirrored else upright

    with VideoReader(write_clip("turned.mp4", num_frames=4, rotation=rotation, mirrored=mirrored)) as reader:
        assert (reader.info.height, reader.info.width) == upright.shape[1:3]
        assert mirrored or reader.info.rotation == rotation
        np.testing.assert_array_equal(reader.frames([0, 3]), upright)
        tall = reader.info.height > reader.info.width
        assert reader.frames([0], 24).shape == ((1, 32, 24, 3) if tall else (1, 24, 32, 3))


@pytest.mark.parametrize(
    ("size", "shape"),
    [(None, (48, 64)), (24, (24, 32)), (100, (100, 133)), ((10, 90), (10, 90)), (1, (1, 1))],
)
def test_the_size_is_the_short_side_or_height_and_width(
    size: object, shape: tuple[int, int], clip_with_sound: Path
) -> None:
    with VideoReader(clip_with_sound) as reader:
        assert reader.frames([0, 1, 2], size).shape == (3, *shape, 3)


def test_odd_sizes_and_one_pixel(write_clip: Callable[..., Path]) -> None:
    for height, width in ((33, 51), (1, 1), (2, 77)):
        path = write_clip(height=height, width=width, num_frames=3, pix_fmt="yuv444p")
        with VideoReader(path) as reader:
            assert reader.frames([2, 0]).shape == (2, height, width, 3)


def test_times_follow_the_presentation_times_not_the_count(write_clip: Callable[..., Path]) -> None:
    ticks = [0, 40, 80, 300, 340, 1000, 1040, 2000]
    for name in ("uneven.mp4", "uneven.mkv"):
        path = write_clip(name, num_frames=8, ticks=ticks, options={"g": "4", "bf": "2"})
        with VideoReader(path) as reader:
            np.testing.assert_allclose(reader.frame_times, np.array(ticks) / 1000, atol=2e-3)
            np.testing.assert_array_equal(reader.frames([5, 2], SIZE), all_frames(reader, path)[[5, 2]])
            assert reader.info.fps == pytest.approx(3.5, rel=0.01)


def test_times_begin_with_the_first_frame_of_a_late_video(write_clip: Callable[..., Path]) -> None:
    path = write_clip("late.mkv", num_frames=5, ticks=[5000, 5100, 5200, 5300, 5400])
    with VideoReader(path) as reader:
        np.testing.assert_allclose(reader.frame_times, [0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)
        assert not reader.frame_times.flags.writeable


def test_a_video_of_one_frame(write_clip: Callable[..., Path]) -> None:
    with VideoReader(write_clip(num_frames=1)) as reader:
        assert len(reader) == 1
        assert reader.frames([0, 0, 0]).shape == (3, 48, 64, 3)
        assert reader.info.duration == pytest.approx(0.1)


def test_info_says_what_the_video_is(clip_with_sound: Path, write_clip: Callable[..., Path]) -> None:
    with VideoReader(clip_with_sound) as reader:
        info = reader.info
    assert (info.num_frames, info.fps, info.duration) == (30, 10.0, 3.0)
    assert (info.height, info.width, info.rotation, info.codec) == (48, 64, 0, "h264")
    assert (info.has_audio, info.audio_sample_rate) == (True, 24000)
    with VideoReader(write_clip()) as reader:
        assert (reader.info.has_audio, reader.info.audio_sample_rate) == (False, None)
        with pytest.raises(NoAudioError, match="no sound"):
            reader.audio(0, 1, 16000)


# Sources


@pytest.fixture
def server(clip_with_sound: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=clip_with_sound.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_kind_of_source_gives_the_same_frames(clip_with_sound: Path, server: str) -> None:
    data = clip_with_sound.read_bytes()
    with VideoReader(clip_with_sound) as reader:
        wanted = reader.frames([25, 3])
    with clip_with_sound.open("rb") as file:
        file.seek(100)
        sources = [
            str(clip_with_sound),
            f"{server}/{clip_with_sound.name}?token=secret",
            data,
            memoryview(data),
            file,
            io.BytesIO(data),
            {"bytes": data, "path": "clip.mp4"},
            {"bytes": None, "path": str(clip_with_sound)},
        ]
        for source in sources:
            with VideoReader(source) as reader:
                np.testing.assert_array_equal(reader.frames([25, 3]), wanted)
        assert not file.closed


def test_a_stream_that_cannot_seek_is_read_whole(clip_with_sound: Path) -> None:
    read, write = os.pipe()
    feeder = threading.Thread(target=lambda: (os.write(write, clip_with_sound.read_bytes()), os.close(write)))
    feeder.start()
    with os.fdopen(read, "rb") as pipe, VideoReader(pipe) as reader:
        assert len(reader) == 30
    feeder.join()


def test_errors_name_the_source_briefly_and_without_its_secrets(server: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError) as caught:
        VideoReader(f"{server}/nothing.mp4?token=secret")
    assert "nothing.mp4" in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(DecodeError, match=r"<5 bytes>"):
        VideoReader(b"hello")
    with pytest.raises(DecodeError, match="named"):
        VideoReader({"bytes": b"hello", "path": "named.mp4"})
    with pytest.raises(DecodeError) as caught:
        VideoReader(tmp_path / ("long" * 40))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("source", [None, 3, ["clip.mp4"]])
def test_what_is_no_source_is_an_input_error(source: object) -> None:
    with pytest.raises(InputError, match="source is a path"):
        VideoReader(source)


# Errors


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"This is a text, named .mp4 by mistake.\n" * 40, "no video or sound file"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "no video or sound file"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1/a.ts\n", "no video or sound file"),
        (b"\0" * 4000, "no video or sound file"),
    ],
)
def test_what_is_no_video_is_a_typed_error(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=reason):
        VideoReader(path)
    with pytest.raises(DecodeError):
        VideoReader(content)


def test_text_files_are_not_rendered_as_videos(tmp_path: Path) -> None:
    path = tmp_path / "README.txt"
    path.write_text("FFmpeg would draw this.\n" * 40)
    with pytest.raises(DecodeError):
        VideoReader(path)


def test_missing_files_folders_pipes_and_empty_cells(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="no such file"):
        VideoReader(tmp_path / "missing.mp4")
    with pytest.raises(DecodeError, match="not a regular file"):
        VideoReader(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DecodeError, match="not a regular file"):
        VideoReader(tmp_path / "pipe.mp4")
    with pytest.raises(DecodeError, match="neither bytes nor a path"):
        VideoReader({"bytes": None, "path": None})


def test_a_sound_file_has_no_video(write_clip: Callable[..., Path]) -> None:
    path = write_clip("tone.wav", num_frames=0, sound=np.zeros(4000, np.int16), sound_codec="pcm_s16le")
    with pytest.raises(NoVideoError, match="no video stream"):
        VideoReader(path)


def test_a_file_that_is_cut_off_is_an_error(write_clip: Callable[..., Path], tmp_path: Path) -> None:
    whole = write_clip("whole.mp4", num_frames=60).read_bytes()
    # With the index in front, a cut file can be opened: its header lists frames that are not there.
    with (
        av.open(io.BytesIO(whole)) as source,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    front = (tmp_path / "front.mp4").read_bytes()
    assert len(VideoReader(front)) == 60
    for data in (whole[: len(whole) // 2], front[: len(front) * 3 // 4]):
        with pytest.raises(DecodeError):
            VideoReader(data)


@pytest.mark.parametrize("indices", [[30], [0, -1], [5, 10**9]])
def test_frame_numbers_outside_the_video_name_its_range(indices: list[int], clip_with_sound: Path) -> None:
    with VideoReader(clip_with_sound) as reader, pytest.raises(InputError, match="0 to 29"):
        reader.frames(indices)


@pytest.mark.parametrize("indices", [[0.5], [[0, 1]], ["a"], [True]])
def test_frame_numbers_are_whole_and_flat(indices: list, clip_with_sound: Path) -> None:
    with VideoReader(clip_with_sound) as reader, pytest.raises(InputError, match="whole numbers"):
        reader.frames(indices)


@pytest.mark.parametrize("size", [0, -4, (10,), (0, 10), "big", 2.5])
def test_senseless_sizes_are_an_input_error(size: object, clip_with_sound: Path) -> None:
    with VideoReader(clip_with_sound) as reader, pytest.raises(InputError, match="size"):
        reader.frames([0], size)


def test_no_frame_numbers_give_no_frames(clip_with_sound: Path) -> None:
    with VideoReader(clip_with_sound) as reader:
        assert reader.frames([]).shape == (0, 48, 64, 3)


def test_a_closed_reader_says_so(clip_with_sound: Path) -> None:
    reader = VideoReader(clip_with_sound)
    reader.close()
    reader.close()
    with pytest.raises(InputError, match="closed"):
        reader.frames([0])


def test_a_failing_file_object_is_a_decode_error(clip_with_sound: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, *args: object) -> bytes:
            raise TimeoutError("the disk is gone")

    with pytest.raises(DecodeError, match="the disk is gone"):
        VideoReader(Failing(clip_with_sound.read_bytes()))


def test_errors_survive_the_way_back_from_a_worker() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(NoVideoError("clip.mp4", "it has no video stream")))
    assert isinstance(error, NoVideoError)
    assert isinstance(error, VideoSSLError)
    assert (error.source, error.reason) == ("clip.mp4", "it has no video stream")


# Index, descriptors


def test_the_index_of_a_file_is_built_once_and_again_when_the_file_changes(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    build = video_index._build
    monkeypatch.setattr(video_index, "_build", lambda media: built.append(media.name) or build(media))
    path = write_clip(num_frames=20)
    for _ in range(3):
        with VideoReader(path) as reader:
            assert len(reader) == 20
    assert len(built) == 1
    write_clip(num_frames=12, seed=1)
    with VideoReader(path) as reader:
        assert len(reader) == 12
    assert len(built) == 2


def test_the_table_of_indices_is_bounded(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_index, "CACHE_SIZE", 2)
    monkeypatch.setattr(video_index, "_cache", type(video_index._cache)())
    for number in range(4):
        VideoReader(write_clip(f"{number}.mp4", num_frames=2)).close()
    assert len(video_index._cache) == 2


def test_descriptors_stay_flat_also_after_errors(clip_with_sound: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip_with_sound.read_bytes()[:3000])

    def use() -> None:
        with VideoReader(clip_with_sound) as reader:
            reader.frames([3, 20])
            reader.audio(0, 1, 16000)
            with pytest.raises(InputError):
                reader.frames([99])
        with pytest.raises(DecodeError):
            VideoReader(broken)

    use()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        use()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_verify_reads_the_whole_file(clip_with_sound: Path, tmp_path: Path) -> None:
    with VideoReader(clip_with_sound) as reader:
        reader.verify()
        np.testing.assert_array_equal(reader.frames([0, 29]), VideoReader(clip_with_sound).frames([0, 29]))
    data = bytearray(clip_with_sound.read_bytes())
    with av.open(str(clip_with_sound)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-8]
    data[last.pos + 4 : last.pos + last.size] = bytes(last.size - 4)
    with VideoReader(bytes(data)) as reader:
        reader.frames([0, 1, 2])
        with pytest.raises(DecodeError):
            reader.verify()
