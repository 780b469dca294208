from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from videossl_hf.data.sounding_shapes import (
    CLASS_NAMES,
    REVERSAL,
    SPLITS,
    VOCABULARY,
    ClipSettings,
    draw_clip,
    render_frames,
    render_sound,
)
from videossl_hf.data.sounding_shapes.motions import draw_motion, moments, offsets, reverse_motion, states
from videossl_hf.data.sounding_shapes.render import NUISANCE_LEVELS, draw_appearance, render
from videossl_hf.errors import ConfigurationError, InputError

SMALL = ClipSettings(size=24)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_states(name: str, count: int, seed: int, frames: int = 8) -> np.ndarray:
    """(count, 3, frames) trajectories of one motion."""
    draws = generator(seed)
    return np.stack([states(draw_motion(name, draws), moments(frames)) for _ in range(count)])


# The motions


def test_there_are_exactly_twelve_motions_in_five_pairs_and_two_that_reverse_into_themselves():
    pairs = [("left", "right"), ("up", "down"), ("up_right", "down_left"), ("clockwise", "counter")]
    pairs += [("grow", "shrink"), ("bounce", "bounce"), ("shake", "shake")]
    assert set(CLASS_NAMES) == {name for pair in pairs for name in pair}
    assert all(REVERSAL[first] == second for first, second in pairs)
    assert len(CLASS_NAMES) == 12
    assert all(REVERSAL[REVERSAL[name]] == name for name in CLASS_NAMES)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_frames_played_backwards_are_the_frames_of_the_partner_with_the_same_draws(name):
    draws = generator(1)
    motion, appearance = draw_motion(name, draws), draw_appearance("full", draws)
    forwards = render(appearance, states(motion, moments(15)), 24)
    partner = render(appearance, states(reverse_motion(motion), moments(15)), 24)
    assert np.abs(forwards[::-1].astype(int) - partner).max() <= (0 if name != REVERSAL[name] else 1)
    assert len({frame.tobytes() for frame in forwards}) > 7, "the shape must move"


@pytest.mark.parametrize("name", ["left", "up", "up_right", "clockwise", "grow"])
def test_a_pair_has_the_same_frames_in_another_order(name):
    motion = draw_motion(name, generator(2))
    appearance = draw_appearance("mid", generator(3))
    clips = [render(appearance, states(m, moments(16)), 24) for m in (motion, reverse_motion(motion))]
    assert Counter(f.tobytes() for f in clips[0]) == Counter(f.tobytes() for f in clips[1])
    assert not np.array_equal(clips[0], clips[1])


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_reversed_trajectories_are_distributed_as_those_of_the_partner(name):
    backwards = draw_states(name, 400, seed=10)[:, :, ::-1]
    partner = draw_states(REVERSAL[name], 400, seed=11)
    for trajectories in (lambda s: s, lambda s: np.diff(s, axis=-1), lambda s: s[..., 5:] - s[..., :3]):
        ours, theirs = trajectories(backwards), trajectories(partner)
        for axis in range(3):
            for frame in range(ours.shape[-1]):
                assert stats.ks_2samp(ours[:, axis, frame], theirs[:, axis, frame]).pvalue > 1e-4


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_place_and_size_are_uniform_at_every_frame(name):
    trajectories = draw_states(name, 600, seed=20)
    for axis in range(3):
        for frame in range(trajectories.shape[-1]):
            assert stats.kstest(trajectories[:, axis, frame], "uniform").pvalue > 1e-4


def test_the_motions_go_where_their_names_say():
    def travelled(name: str) -> np.ndarray:
        path = offsets(draw_motion(name, generator(4)), np.linspace(-0.5, 0.5, 101))
        return path[:, -1] - path[:, 0]

    assert travelled("right")[0] > 0.5
    assert travelled("left")[0] < -0.5
    assert travelled("up")[1] > 0.5
    assert travelled("down_left")[0] == pytest.approx(travelled("down_left")[1])
    assert travelled("down_left")[0] < -0.3
    assert travelled("grow")[2] > 0.7

    x, y, _ = offsets(draw_motion("counter", generator(4)), np.linspace(-0.5, 0.5, 101))
    assert np.all(x[:-1] * np.diff(y) - y[:-1] * np.diff(x) > 0), "counter-clockwise with y upwards"


def test_up_is_upwards_in_the_picture_and_the_canvas_wraps_round():
    appearance = draw_appearance("low", generator())
    frames = render(appearance, np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 0.0]]), 32)
    rows = frames[..., 0].max(axis=2) > 128
    assert rows[0, :8].any()
    assert not rows[0, 8:].any()
    assert rows[1, 24:].any()
    assert not rows[1, :24].any()
    assert all(frames[2, row, column, 0] > 128 for row in (0, 31) for column in (0, 31))


def test_an_unknown_motion_is_an_error_that_names_the_motions():
    with pytest.raises(InputError, match=r"'sideways'.*left, right"):
        draw_motion("sideways", generator())


# What one frame tells


def ridge_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """Top-1 of a linear probe in closed form, dual form as there are more features than clips."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-3
    train, test = (train - mean) / scale, (test - mean) / scale
    kernel = train @ train.T
    kernel[np.diag_indices_from(kernel)] += 0.3 * kernel.trace() / len(kernel)
    weights = np.linalg.solve(kernel, np.eye(len(CLASS_NAMES))[train_labels])
    return float(np.mean((test @ train.T @ weights).argmax(axis=1) == test_labels))


def knn_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """Top-1 of ten neighbours by cosine."""
    train, test = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6) for x in (train, test))
    nearest = np.argsort(-(test @ train.T), axis=1)[:, :10]
    votes = np.eye(len(CLASS_NAMES))[train_labels][nearest].sum(axis=1)
    return float(np.mean(votes.argmax(axis=1) == test_labels))


def make_pixels(nuisance: str, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    settings = ClipSettings(size=16, nuisance=nuisance, seed=3)
    draws = [draw_clip(settings, split, index) for index in range(count)]
    clips = np.stack([render_frames(draw, settings) for draw in draws]).astype(np.float32) / 255
    return clips, np.array([CLASS_NAMES.index(draw.motions[0].name) for draw in draws])


@pytest.mark.parametrize("nuisance", NUISANCE_LEVELS)
def test_one_frame_says_nothing_about_the_label_at_any_frame_number(nuisance):
    train, train_labels = make_pixels(nuisance, "train", 720)
    test, test_labels = make_pixels(nuisance, "test", 720)
    chance = 1 / 12
    margin = 3 * np.sqrt(chance * (1 - chance) / len(test))

    for frame in range(train.shape[1]):
        first, second = train[:, frame].reshape(len(train), -1), test[:, frame].reshape(len(test), -1)
        assert abs(ridge_accuracy(first, train_labels, second, test_labels) - chance) < margin
        assert abs(knn_accuracy(first, train_labels, second, test_labels) - chance) < margin

    # The same neighbours find the label from the places that change: they could have found a leak.
    first, second = (np.abs(np.diff(c.mean(axis=-1), axis=1)).reshape(len(c), -1) for c in (train, test))
    assert knn_accuracy(first, train_labels, second, test_labels) > 0.5


def test_the_label_is_independent_of_everything_else_that_is_drawn():
    rows = [draw_clip(ClipSettings(nuisance="full"), "train", index).row() for index in range(1800)]
    labels = np.array([CLASS_NAMES.index(row["label"]) for row in rows])
    for name in ("shape", "colour", "speed", "phase", "x", "y", "size"):
        values = np.array([row[name] for row in rows])
        if values.dtype.kind == "f":
            values = np.digitize(values, np.quantile(values, [0.2, 0.4, 0.6, 0.8]))
        table = stats.contingency.crosstab(labels, values).count
        assert table.shape[1] >= 5
        assert stats.chi2_contingency(table).pvalue > 1e-3, name


# Labels, splits, seeds


def test_labels_are_balanced_in_every_dozen():
    for dozen in range(3):
        rows = [draw_clip(SMALL, "train", 12 * dozen + index).row() for index in range(12)]
        assert sorted(row["label"] for row in rows) == sorted(CLASS_NAMES)


def test_the_same_settings_give_the_same_clip_and_another_seed_or_split_another():
    def everything(settings: ClipSettings, split: str) -> tuple[bytes, bytes, str]:
        draws = draw_clip(settings, split, 5)
        return (
            render_frames(draws, settings).tobytes(),
            render_sound(draws, settings).tobytes(),
            str(draws.row()),
        )

    assert everything(SMALL, "train") == everything(SMALL, "train")
    others = [everything(SMALL, split) for split in SPLITS] + [everything(replace(SMALL, seed=1), "train")]
    assert len({frames for frames, _, _ in others}) == len({sound for _, sound, _ in others}) == 4


def test_no_clip_of_one_split_is_in_another():
    settings = replace(SMALL, nuisance="low")
    motions = [draw_clip(settings, split, index).motions for split in SPLITS for index in range(400)]
    assert len(set(motions)) == len(motions)


def test_size_rate_and_duration_are_free():
    settings = ClipSettings(size=32, fps=12.5, seconds=1.2, sample_rate=16000)
    draws = draw_clip(settings, "train", 0)
    assert render_frames(draws, settings).shape == (15, 32, 32, 3)
    assert render_sound(draws, settings).shape == (19200,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 47}, "even number"),
        ({"size": 8}, "at least 16"),
        ({"fps": 0.5, "seconds": 2}, "two frames"),
        ({"nuisance": "high"}, "low, mid, full"),
        ({"motions": 13}, "1 to 12"),
        ({"sample_rate": 4000}, "8000"),
    ],
)
def test_settings_that_make_no_clip_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ClipSettings(**settings)


# The sound


def find_draws(name: str, settings: ClipSettings = SMALL):
    return next(
        draw for index in range(24) if (draw := draw_clip(settings, "train", index)).motions[0].name == name
    )


def spectra(sound: np.ndarray, window: int = 1440) -> tuple[np.ndarray, np.ndarray]:
    """Power spectra (windows, frequencies) of windows back to back, and the windows' middles as w."""
    windows = sound[: len(sound) // window * window].reshape(-1, window) * np.hanning(window)
    middles = (np.arange(len(windows)) + 0.5) * window / len(sound) - 0.5
    return np.abs(np.fft.rfft(windows, 8 * window)) ** 2, middles


@pytest.mark.parametrize("name", ["up", "down", "up_right", "bounce", "clockwise"])
def test_the_pitch_follows_the_height(name):
    draws = find_draws(name)
    power, w = spectra(render_sound(draws, SMALL))
    pitches = np.arange(150, 1000)  # Hz; the fundamental is where the harmonics together hold most power
    bins = np.rint(np.outer(np.arange(1, 6), pitches) * 8 * 1440 / 24000).astype(int)
    measured = np.log2(pitches[np.sqrt(power)[:, bins].sum(axis=1).argmax(axis=1)])
    assert np.corrcoef(measured, offsets(draws.motions[0], w)[1])[0, 1] > 0.95


@pytest.mark.parametrize("name", ["left", "right", "shake", "counter"])
def test_the_level_follows_the_distance_to_the_right(name):
    draws = find_draws(name)
    power, w = spectra(render_sound(draws, SMALL))
    decibels = 10 * np.log10(power.sum(axis=1))
    assert np.corrcoef(decibels, offsets(draws.motions[0], w)[0])[0, 1] > 0.9


@pytest.mark.parametrize("name", ["grow", "shrink"])
def test_the_timbre_follows_a_size_that_changes(name):
    draws = find_draws(name)
    draws = replace(draws, voice=replace(draws.voice, signal_to_noise=60.0))
    power, w = spectra(render_sound(draws, SMALL))
    bins = np.rint(np.outer(draws.voice.fundamental * np.array([1, 8]), [1]) * 8 * 1440 / 24000).astype(int)
    brightness = np.log(power[:, bins[1, 0]] / power[:, bins[0, 0]])
    assert np.corrcoef(brightness, states(draws.motions[0], w)[2])[0, 1] > 0.9


def test_nothing_that_stands_still_is_heard():
    for index in range(12):
        draws = draw_clip(SMALL, "train", index)
        (motion,) = draws.motions
        size = motion.size if motion.name in ("grow", "shrink") else 0.123
        elsewhere = replace(motion, x=0.321, y=0.456, size=size)
        looks = draw_appearance("full", generator(9))
        changed = replace(draws, motions=(elsewhere,), appearance=looks)
        assert np.array_equal(render_sound(draws, SMALL), render_sound(changed, SMALL))
        assert not np.array_equal(render_frames(draws, SMALL), render_frames(changed, SMALL))


def test_other_draws_of_the_motion_are_heard():
    draws = find_draws("clockwise")
    for change in ({"speed": 1.24}, {"phase": 0.01}, {"name": "counter"}):
        changed = replace(draws, motions=(replace(draws.motions[0], **change),))
        assert not np.array_equal(render_sound(draws, SMALL), render_sound(changed, SMALL))


def test_the_sound_neither_clips_nor_vanishes():
    for index in range(48):
        sound = np.abs(render_sound(draw_clip(SMALL, "train", index), SMALL).astype(int))
        assert 300 < sound.max() < 32767


# Sequences and what is said about them


def test_in_a_sequence_each_different_motion_starts_where_the_last_ended():
    settings = ClipSettings(motions=4)
    for index in range(6):
        motions = draw_clip(settings, "train", index).motions
        assert len({motion.name for motion in motions}) == 4
        for before, after in pairwise(motions):
            jump = (states(after, np.array([-0.5])) - states(before, np.array([0.5])) + 0.5) % 1 - 0.5
            assert np.abs(jump).max() < 1e-9


def test_a_sequence_is_as_long_as_its_motions_in_picture_and_sound():
    settings = ClipSettings(size=24, motions=3, seconds=1)
    draws = draw_clip(settings, "test", 0)
    assert render_frames(draws, settings).shape == (24, 24, 24, 3)
    assert render_sound(draws, settings).shape == (72000,)
    row = draws.row()
    assert [motion["label"] for motion in row["motions"]] == [motion.name for motion in draws.motions]
    assert "label" not in row


def test_each_motion_is_told_while_it_happens_in_words_of_the_vocabulary():
    settings = ClipSettings(motions=4, nuisance="low")
    heard = set()
    for index in range(60):
        row = draw_clip(settings, "train", index).row()
        words, sentences = row["transcript"], row["sentences"]
        heard |= {word["text"] for word in words}
        assert " ".join(word["text"] for word in words) == row["caption"]
        assert all(word["start"] < word["end"] for word in words)
        assert all(a["end"] <= b["start"] for a, b in pairwise(words))
        for number, sentence in enumerate(sentences):
            assert 2 * number <= sentence["start"] < sentence["end"] <= 2 * number + 2
    assert heard <= set(VOCABULARY)
    assert len(VOCABULARY) == 66


def test_every_motion_has_paraphrases_and_colour_and_shape_are_named_rightly():
    told: dict[str, set[str]] = {name: set() for name in CLASS_NAMES}
    named = 0
    for index in range(240):
        row = draw_clip(SMALL, "train", index).row()
        told[row["label"]].add(row["caption"])
        if f"the {row['colour']} {row['shape']}" in row["caption"]:
            named += 1
        else:
            assert not {row["colour"], row["shape"]} & set(row["caption"].split())
    assert 40 < named < 120
    assert all(len(captions) >= 8 for captions in told.values())
