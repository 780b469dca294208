"""Clips and their sound as STiCA takes them: frames at 30 a second, log-mel filter banks of a 24 kHz
track."""

import inspect
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

from ...data.processor_base import VideoSSLProcessor
from ...data.reader import read_audio
from ...data.spectrogram import LogMelSpectrogram
from ...data.video_input import decoded_frames, list_of_videos
from ...data.video_processing import SampledVideo, VideoSSLVideoProcessor
from ...errors import ConfigurationError, InputError
from ...remote_code import SavesItsCode
from .configuration_stica import STiCAConfig

__all__ = ["STiCAFeatureExtractor", "STiCAProcessor", "STiCAVideoProcessor"]

# A processor may come from a stranger's repository: what it asks for must fit into memory.
_LARGEST = {
    "num_mel_bins": 4096,
    "sampling_rate": 1_000_000,
    "audio_seconds": 3600,
    "n_fft": 65536,
    "hop_length": 1_000_000,
    "window_length": 65536,
}


class STiCAVideoProcessor(VideoSSLVideoProcessor):
    """Two seconds of the middle: 60 frames at 30 a second, short side 128, centre 112 x 112."""

    num_frames = 60
    fps = 30.0
    size = {"shortest_edge": 128}  # noqa: RUF012
    crop_size = {"height": 112, "width": 112}  # noqa: RUF012
    image_mean = [0.45, 0.45, 0.45]  # noqa: RUF012
    image_std = [0.225, 0.225, 0.225]  # noqa: RUF012


class STiCAFeatureExtractor(SavesItsCode, SequenceFeatureExtractor):
    """Log-mel filter banks of mono sound, `input_features` (sounds, 1, mel, time).

    Args:
        num_mel_bins: filters, `feature_size` of transformers.
        sampling_rate: samples a second that waveforms have and files are read at.
        audio_seconds: length of the sound; longer ones are cut, shorter spectrograms are padded with zeros.
        window_length, hop_length, n_fft, f_min, f_max, preemphasis, window_function, waveform_scale,
            log_offset: see `LogMelSpectrogram`; `f_max` None is half the sampling rate.
        time_pooling: so many neighbouring time steps are averaged; an incomplete last group is dropped.
        subtract_mean: "clip" subtracts the mean over each whole spectrogram, "bin" that of each of its bins
            over time, so that what stays is not heard (cepstral mean normalisation); padding excluded.
        feature_mean, feature_std: standardisation after that; GDT uses 1.93 and 17.89, STiCA none (0 and 1).
        unit_scale: floating-point waveforms lie in [-1, 1] and are multiplied by 32768. Off, they must be
            in the scale of 16-bit integers, and such that lie within [-1, 1] are refused.
    """

    model_input_names = ["input_features"]  # noqa: RUF012

    def __init__(
        self,
        num_mel_bins: int = 257,
        sampling_rate: int = 24000,
        audio_seconds: float = 2.0,
        window_length: int = 480,
        hop_length: int = 240,
        n_fft: int = 1024,
        f_min: float = 0.0,
        f_max: float | None = None,
        preemphasis: float = 0.97,
        window_function: str = "boxcar",
        waveform_scale: float = 1.0,
        log_offset: float = 0.0,
        time_pooling: int = 1,
        subtract_mean: str | None = None,
        feature_mean: float = 0.0,
        feature_std: float = 1.0,
        unit_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs = {
            name: value for name, value in kwargs.items() if name not in ("feature_size", "padding_value")
        }
        super().__init__(feature_size=num_mel_bins, sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.audio_seconds = audio_seconds
        self.window_length = window_length
        self.hop_length = hop_length
        self.n_fft = n_fft
        self.f_min = f_min
        self.f_max = sampling_rate / 2 if f_max is None else f_max
        self.preemphasis = preemphasis
        self.window_function = window_function
        self.waveform_scale = waveform_scale
        self.log_offset = log_offset
        self.time_pooling = time_pooling
        self.subtract_mean = subtract_mean
        self.feature_mean = feature_mean
        self.feature_std = feature_std
        self.unit_scale = unit_scale
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value <= largest:
                raise ConfigurationError(
                    f"{name} must be a positive number of at most {largest}, got {value!r:.80}"
                )
        if not audio_seconds > 0 or time_pooling < 1 or not feature_std > 0:
            raise ConfigurationError(
                "audio_seconds, time_pooling and feature_std must be positive, got "
                f"{audio_seconds}, {time_pooling} and {feature_std}"
            )
        if subtract_mean not in (None, "clip", "bin"):
            raise ConfigurationError(f"subtract_mean must be 'clip', 'bin' or None, got {subtract_mean!r}")
        self._spectrogram()  # refuses settings that contradict each other

    def _spectrogram(self) -> LogMelSpectrogram:
        return LogMelSpectrogram(
            sample_rate=self.sampling_rate,
            num_mel_bins=self.num_mel_bins,
            window_length=self.window_length,
            hop_length=self.hop_length,
            n_fft=self.n_fft,
            f_min=self.f_min,
            f_max=self.f_max,
            preemphasis=self.preemphasis,
            window=self.window_function,
            waveform_scale=self.waveform_scale,
            log_offset=self.log_offset,
        )

    @property
    def num_samples(self) -> int:
        """Samples of `audio_seconds`."""
        return round(self.audio_seconds * self.sampling_rate)

    @property
    def num_steps(self) -> int:
        """Time steps of the output."""
        return self._spectrogram().num_steps(self.num_samples) // self.time_pooling

    def __call__(
        self, audio: Any, sampling_rate: int | None = None, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Turn sound into model inputs.

        Args:
            audio: one sound or a list of them: waveforms (samples,) in the scale of 16-bit integers, or
                sound
                files as path, URL, bytes, file object or `{"bytes", "path"}` cell. An array (sounds,
                samples) is a list.
            sampling_rate: samples a second of the waveforms, to check that it is the one expected.
            return_tensors: "pt" or "np".
            kwargs: `unit_scale` for this call.

        Raises:
            InputError: a shape, type, rate or value that does not fit.
            NoAudioError: a file without sound.
        """
        unit_scale = bool(kwargs.pop("unit_scale", self.unit_scale))
        if kwargs:
            raise InputError(f"unknown setting {', '.join(sorted(kwargs))}; known is unit_scale")
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise InputError(
                f"sound at {sampling_rate} Hz, expected {self.sampling_rate} Hz: pass the file itself, or "
                "resample it"
            )
        features = [self._features(self._waveform(sound, unit_scale)) for sound in _list_of_sounds(audio)]
        return BatchFeature({"input_features": torch.stack(features)}, tensor_type=return_tensors or "pt")

    def _waveform(self, sound: Any, unit_scale: bool) -> Tensor:
        """(samples,), in the scale of 16-bit integers."""
        if isinstance(sound, (str, bytes, os.PathLike, Mapping)) or hasattr(sound, "read"):
            sound = read_audio(sound, 0.0, self.audio_seconds, self.sampling_rate)
        waveform = torch.as_tensor(sound)
        if waveform.ndim != 1 or not len(waveform):
            raise InputError(
                f"a waveform has shape {tuple(waveform.shape)}, expected (samples,): one channel"
            )
        if not waveform.is_floating_point():
            return waveform
        largest = float(waveform.abs().amax())
        if not math.isfinite(largest):
            raise InputError("a waveform has values that are NaN or infinite")
        if unit_scale:
            return waveform * 32768
        if 0 < largest <= 1:
            raise InputError(
                f"a floating-point waveform has no value beyond {largest:g}, expected the scale of 16-bit "
                "integers: pass unit_scale=True if it lies in [-1, 1]"
            )
        return waveform

    def _features(self, waveform: Tensor) -> Tensor:
        """(samples,) to (1, mel, time)."""
        features = self._spectrogram()(waveform[: self.num_samples]).unsqueeze(0)
        steps = features.shape[-1] // self.time_pooling
        if self.time_pooling > 1:
            features = features[..., : steps * self.time_pooling].unflatten(-1, (steps, -1)).mean(-1)
        if self.subtract_mean is not None:
            axes = (-1,) if self.subtract_mean == "bin" else (-2, -1)
            features = features - features.mean(axes, keepdim=True)
        features = (features - self.feature_mean) / self.feature_std
        return F.pad(features, (0, self.num_steps - steps))


class STiCAProcessor(VideoSSLProcessor):
    """Videos to `pixel_values_videos`, their sound to `input_features`.

    Args:
        video_processor: default `STiCAVideoProcessor()`.
        feature_extractor: default `STiCAFeatureExtractor()`.
    """

    def __init__(self, video_processor: Any = None, feature_extractor: Any = None, **kwargs: Any) -> None:
        super().__init__(
            video_processor=video_processor or STiCAVideoProcessor(),
            feature_extractor=feature_extractor or STiCAFeatureExtractor(),
            **kwargs,
        )

    @classmethod
    def from_config(cls, config: STiCAConfig, **settings: Any) -> "STiCAProcessor":
        """A processor that feeds models of this configuration; GDT's standardises its spectrograms.

        Args:
            config: gives frames, rate, image size, mel bins and seconds of sound.
            settings: any setting of the video processor or of the feature extractor, by its name there.

        Raises:
            ConfigurationError: a setting that neither of them has.
        """
        video: dict[str, Any] = {
            "num_frames": config.num_frames,
            "fps": config.fps,
            "size": {"shortest_edge": round(config.image_size * 8 / 7)},
            "crop_size": {"height": config.image_size, "width": config.image_size},
        }
        audio: dict[str, Any] = {"num_mel_bins": config.num_mel_bins, "audio_seconds": config.audio_seconds}
        if config.objective == "gdt":
            audio.update(feature_mean=1.93, feature_std=17.89)
        of_audio = inspect.signature(STiCAFeatureExtractor.__init__).parameters.keys() - {"self", "kwargs"}
        of_video = STiCAVideoProcessor.valid_kwargs.__annotations__.keys()
        if unknown := settings.keys() - of_audio - of_video:
            raise ConfigurationError(
                f"unknown processor setting {', '.join(sorted(unknown))}; known are "
                + ", ".join(sorted(of_audio | of_video))
            )
        for name, value in settings.items():
            (audio if name in of_audio else video)[name] = value
        return cls(STiCAVideoProcessor(**video), STiCAFeatureExtractor(**audio))

    def __call__(
        self,
        videos: Any = None,
        audio: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn videos, sound, or both into model inputs.

        Args:
            videos: one video or a list; see `VideoSSLVideoProcessor`.
            audio: one sound or a list; see `STiCAFeatureExtractor`. True (or "track") takes the videos' own
                sound from the start of each clip on; the videos must be files then. With several clips of a
                video `input_features` is (videos, clips, 1, mel, time).
            sampling_rate: of waveforms in `audio`.
            return_tensors: "pt" or "np".
            kwargs: settings of the video processor for this call.

        Raises:
            InputError: what does not fit, or neither videos nor audio.
            NoAudioError: the track of a video without sound was asked for.
        """
        if videos is None and audio is None:
            raise InputError("give videos, audio, or both")
        sounds = None
        if audio is True or (isinstance(audio, str) and audio == "track"):
            videos = self._read_with_sound(videos, kwargs)
            waveforms = torch.stack([video.waveforms for video in videos])
            sounds = self.feature_extractor(waveforms.flatten(0, 1))["input_features"]
            if waveforms.shape[1] > 1:
                sounds = sounds.unflatten(0, waveforms.shape[:2])
        elif audio is not None:
            sounds = self.feature_extractor(audio, sampling_rate=sampling_rate)["input_features"]
        features: dict[str, Any] = {}
        if videos is not None:
            features.update(self.video_processor(videos, return_tensors=return_tensors, **kwargs))
        if sounds is not None:
            features.update(BatchFeature({"input_features": sounds}, tensor_type=return_tensors or "pt"))
        return BatchFeature(features)

    def _read_with_sound(self, videos: Any, settings: Mapping[str, Any]) -> list[SampledVideo]:
        """Read each file once, for its clips and the sound that goes with them."""
        if videos is None:
            raise InputError("audio=True takes the sound of videos, and no videos were given")
        sampled = []
        for video in list_of_videos(videos):
            if isinstance(video, SampledVideo) and video.waveforms is not None:
                sampled.append(video)
                continue
            if decoded_frames(video, settings.get("input_data_format")) is not None:
                raise InputError("decoded frames have no sound track: pass the file, or the sound as audio=")
            sampled.append(
                self.video_processor.sample(
                    video,
                    audio_seconds=self.feature_extractor.audio_seconds,
                    audio_sampling_rate=self.feature_extractor.sampling_rate,
                    **settings,
                )
            )
        return sampled


def _list_of_sounds(audio: Any) -> list[Any]:
    """One sound or several, as a list of sounds; a list of numbers is one waveform."""
    if isinstance(audio, (np.ndarray, Tensor)):
        return list(audio) if audio.ndim == 2 else [audio]
    if isinstance(audio, (list, tuple)):
        if not len(audio):
            raise InputError("no sound: an empty list was given")
        return [torch.tensor(audio)] if isinstance(audio[0], (int, float)) else list(audio)
    return [audio]
