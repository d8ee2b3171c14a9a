"""Data: what goes in comes out, draws are what their protocol says, and bad input is named."""

import os
import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.stats import binom, chi2, norm

from pyrovae import data
from pyrovae.data import arrays, dataset, files, sources
from pyrovae.data.binarise import fresh_draw
from pyrovae.data.synthetic.oscillations import ANGLE, DAMPING, DRIFT, NOISE

needs_mnist = pytest.mark.skipif(
    not (Path(os.environ.get("PYROVAE_DATA", "/nowhere")) / "MNIST" / "raw").is_dir(),
    reason="PYROVAE_DATA does not name a folder that holds MNIST/raw",
)


@pytest.fixture
def grey():
    """2,000 grey bytes a split, from black to white."""
    rng = np.random.default_rng(0)
    return {s: rng.integers(0, 256, (200, 1, 5, 2), dtype=np.uint8) for s in ("train", "validation", "test")}


def pass_over(d, split="train", shuffle=False, **options):
    return torch.cat(list(d.batches(split, 64, shuffle=shuffle, **options)))


# What is stored comes back


def test_digits_are_all_of_them_as_counts():
    from sklearn.datasets import load_digits

    d = data.load("digits")
    assert (d.size("train"), d.size("validation"), d.size("test")) == (1295, 143, 359)
    assert (d.values, d.levels, d.event_shape) == ("counts", 16, (1, 8, 8))
    everything = torch.cat([d.train, d.validation, d.test])
    assert everything.dtype == torch.float32
    theirs = np.asarray(load_digits().images.reshape(1797, 64))
    ours = everything.reshape(1797, 64).numpy()
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_labels_stay_with_their_images():
    from sklearn.datasets import load_digits

    label_of = {
        x.tobytes(): y for x, y in zip(load_digits().images.astype(np.uint8), load_digits().target, strict=True)
    }
    d = data.load("digits")
    for split, x in d.stored.items():
        assert [label_of[image.numpy().tobytes()] for image in x] == d.labels[split].tolist()


@pytest.mark.parametrize(("name", "sizes"), [("breast_cancer", (411, 45, 113)), ("wine", (129, 14, 35))])
def test_tables_are_all_rows_in_their_units(name, sizes):
    from sklearn import datasets

    d = data.load(name)
    assert tuple(d.size(s) for s in ("train", "validation", "test")) == sizes
    theirs = getattr(datasets, f"load_{name}")()
    assert (d.values, d.levels, d.event_shape) == ("real", None, theirs.data.shape[1:])
    x, y = (torch.cat([getattr(d, s) for s in d.stored]), torch.cat(list(d.labels.values())))
    ours = sorted((*row, label) for row, label in zip(x.tolist(), y.tolist(), strict=True))
    rows = theirs.data.astype(np.float32).tolist()
    assert ours == sorted((*row, label) for row, label in zip(rows, theirs.target.tolist(), strict=True))
    assert torch.equal(d.test, data.load(name, seed=1).test)
    assert not torch.equal(d.validation, data.load(name, seed=1).validation)


def test_labelled_data_stand_behind_their_labels():
    d, digits = data.load("digits", labelled=True), data.load("digits")
    assert (d.values, d.levels, d.event_shape, d.content_shape, d.classes) == ("counts", 16, (65,), (1, 8, 8), 10)
    assert d.protocol["labelled"] == {split: d.size(split) for split in ("train", "validation", "test")}
    for split in ("train", "validation", "test"):
        x = getattr(d, split)
        assert torch.equal(x[:, 0].long(), digits.labels[split])
        assert torch.equal(x[:, 1:], getattr(digits, split).flatten(1))
    x = torch.cat(list(d.batches("train", 100, shuffle=True, generator=torch.Generator().manual_seed(0))))
    rows = {tuple(row) for row in d.train.tolist()}
    assert {tuple(row) for row in x.tolist()} == rows  # a label stays with its pixels


def test_so_many_training_data_keep_their_label():
    d = data.load("digits", labelled=25)
    told = ~d.train[:, 0].isnan()
    assert d.protocol["labelled"] == {"train": 25, "validation": 143, "test": 359}
    y = data.load("digits").labels["train"]
    assert torch.equal(d.train[told, 0].long(), y[told])
    assert sorted(torch.bincount(y[told]).tolist()) == [2] * 5 + [3] * 5
    assert torch.equal(told, ~data.load("digits", labelled=25).train[:, 0].isnan())
    other = data.load("digits", labelled=25, seed=1, validation=0)
    assert int((~other.train[:, 0].isnan()).sum()) == 25
    assert len(data.load("digits", labelled=1295).train[:, 0].unique()) == 10  # all, where classes are not equal


def test_labels_do_not_change_under_binarisation():
    d = data.from_arrays(torch.rand(50, 1, 2, 2), labels=torch.arange(50) % 7, binarise="dynamic", labelled=True)
    (x,) = d.batches("train", 100, shuffle=False)
    assert torch.equal(x[:, 0].long(), d.labels["train"])
    assert set(x[:, 1:].unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(next(d.batches("train", 100, shuffle=False)), x)


@pytest.mark.parametrize("labelled", [3, 2000, 1.5, "all"])
def test_a_wrong_number_of_labels_is_refused(labelled):
    with pytest.raises(ValueError, match="expects labelled as True, False, or how many of 1295"):
        data.load("digits", labelled=labelled)


def test_labels_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="expects labels of every split, got none for 'train'"):
        data.load("oscillations", missing=True, labelled=True)


def test_oscillations_are_the_series_that_their_rule_says():
    """Moments of x_t by propagating those of z_t; lengths uniform on 4..12; what is missing is the end."""
    with pytest.raises(ValueError, match="load with missing=True"):
        data.load("oscillations")
    d = data.load("oscillations", missing=True)
    assert (d.size("train"), d.size("validation"), d.size("test")) == (1080, 120, 300)
    x = torch.cat([d.train, d.validation, d.test]).double()
    seen = ~x.isnan()
    lengths = seen.sum(1)
    assert torch.equal(seen, torch.arange(12) < lengths[:, None])
    counts = torch.bincount(lengths, minlength=13)
    assert counts[:4].sum() == 0
    expected = len(x) / 9
    assert float(((counts[4:] - expected) ** 2 / expected).sum()) < chi2.isf(1e-6, 8)
    turn = DAMPING * np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
    scores, variance, first = [], np.eye(2), np.eye(2)
    for t in range(12):
        of_t, pairs = x[seen[:, t], t], x[seen[:, t], 0] * x[seen[:, t], t]
        expected_square = variance[0, 0] + NOISE**2
        covariance = first[0, 0] + (NOISE**2 if t == 0 else 0)
        for draws, mean in ((of_t, 0.0), (of_t**2, expected_square), (pairs, covariance)):
            scores.append(float((draws.mean() - mean) / (draws.std() / len(draws) ** 0.5)))
        variance, first = turn @ variance @ turn.T + DRIFT**2 * np.eye(2), turn @ first
    assert max(map(abs, scores)) < norm.isf(1e-6 / 2 / len(scores))
    again = data.load("oscillations", missing=True, seed=1)
    assert torch.equal(again.test.nan_to_num(), d.test.nan_to_num())


def test_pendulums_are_the_series_that_their_rule_says():
    """x_1 by its exact moments, all steps by those of 50,000 pendulums drawn here; lengths uniform on 6..12."""
    d = data.load("pendulums", missing=True)
    assert d.event_shape == (12, 2)
    assert (d.size("train"), d.size("validation"), d.size("test")) == (1080, 120, 300)
    x = torch.cat([d.train, d.validation, d.test]).double().numpy()
    seen = ~np.isnan(x)
    lengths = seen[..., 0].sum(1)
    assert (seen == (np.arange(12) < lengths[:, None])[..., None]).all()
    counts, expected = np.bincount(lengths, minlength=13), len(x) / 7
    assert counts[:6].sum() == 0
    assert ((counts[6:] - expected) ** 2 / expected).sum() < chi2.isf(1e-6, 6)
    rng, n = np.random.default_rng(1), 50_000
    theta, omega, steps = 1.5 * rng.standard_normal(n), 1.5 * rng.standard_normal(n), []
    for _ in range(12):
        noise = 0.1 * rng.standard_normal((n, 2))
        steps.append(np.stack([np.sin(theta), np.cos(theta)], 1) + noise)
        omega += -0.5 * (2.0 * np.sin(theta) + 0.2 * omega) + 0.15 * rng.standard_normal(n)
        theta += 0.5 * omega
    s, c = x[:, 0].T
    mean, square = np.exp(-(1.5**2) / 2), np.exp(-2 * 1.5**2)
    pairs = [(c - mean, 0.0), (s**2 - (1 - square) / 2 - 0.01, 0.0), (c**2 - (1 + square) / 2 - 0.01, 0.0)]
    for t in range(12):
        a, b = x[lengths > t], np.stack(steps, 1)
        for i in (0, 1):
            pairs += [(a[:, t, i], b[:, t, i]), (a[:, t, i] ** 2, b[:, t, i] ** 2)]
            pairs += [
                (a[:, t, i] * a[:, t - k, j], b[:, t, i] * b[:, t - k, j]) for k in (1, 2) for j in (0, 1) if k <= t
            ]
    scores = [(np.mean(a) - np.mean(b)) / np.sqrt(np.var(a) / np.size(a) + np.var(b) / np.size(b)) for a, b in pairs]
    assert max(map(abs, scores)) < norm.isf(1e-6 / 2 / len(scores))


def test_test_digits_are_the_same_under_every_seed_and_validation_digits_are_not():
    a, b = data.load("digits", seed=0), data.load("digits", seed=1)
    assert torch.equal(a.test, b.test)
    assert not torch.equal(a.validation, b.validation)
    assert torch.equal(a.validation, data.load("digits", seed=0).validation)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (np.array([[0, 255], [51, 3]], dtype=np.uint8), "unit"),
        (np.array([[0, 1], [1, 1]], dtype=np.uint8), "binary"),  # as grey levels they would be black
        (np.array([[False, True]]), "binary"),
        (np.array([[0.0, 1.0]]), "binary"),
        (np.array([[0.0, 0.3]], dtype=np.float16), "unit"),
        (np.array([[0.0, 1.3]]), "real"),
        (torch.tensor([[0.0, 0.3]], dtype=torch.float64), "unit"),
        ([[1, 2], [3, -4]], "real"),
    ],
)
def test_auto_tells_what_the_numbers_are(given, values):
    d = data.from_arrays(given)
    assert d.values == values
    assert d.train.dtype == torch.float32
    expected = np.asarray(given, dtype=np.float32) / (
        255 if values == "unit" and d.stored["train"].dtype == torch.uint8 else 1
    )
    assert np.array_equal(d.train.numpy(), expected)


def test_counts_are_kept_when_asked_for():
    d = data.from_arrays(np.array([[0, 16], [3, 4]]), values="counts", levels=16)
    assert (d.values, d.levels) == ("counts", 16)
    assert d.train.tolist() == [[0, 16], [3, 4]]


def test_a_split_that_was_given_is_not_cut_again(grey):
    d = data.from_arrays(**grey)
    for split, x in grey.items():
        assert torch.equal(d.stored[split], torch.from_numpy(x))


@pytest.mark.parametrize("binarise", [None, "static", "dynamic", "threshold"])
def test_scalars_are_data_too(tmp_path, binarise):
    """[N], as a plain Pyro program may read them: events of shape []."""
    x = np.random.default_rng(0).random(40, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", train=x[:30], test=x[30:])
    paths = (data.load(tmp_path / f"x.{kind}", binarise=binarise) for kind in ("npy", "npz"))
    for d in (data.from_arrays(x, binarise=binarise), data.from_arrays(x.tolist(), binarise=binarise), *paths):
        assert d.event_shape == ()
        assert d.protocol["event_shape"] == []
        for split in d.stored:
            drawn = pass_over(d, split, shuffle=True)
            assert drawn.shape == (d.size(split),)
            if not (binarise == "dynamic" and split == "train"):
                assert sorted(drawn.tolist()) == sorted(getattr(d, split).tolist())
        if binarise is None:
            assert sorted(torch.cat(list(d.stored.values())).tolist()) == sorted(x.tolist())


@pytest.mark.parametrize(("validation_size", "held"), [(None, 20), (50, 50), (0.25, 50), (0, 0)])
def test_validation_is_a_seeded_choice_out_of_train(validation_size, held):
    x = np.arange(200, dtype=np.float32)[:, None]
    d = data.from_arrays(x, labels=np.arange(200), validation_size=validation_size)
    assert d.size("validation") == held
    assert (d.validation is None) == (held == 0)
    assert d.test is None
    assert sorted(torch.cat(list(d.stored.values()))[:, 0].tolist()) == x[:, 0].tolist()
    assert all(torch.equal(d.stored[s][:, 0].long(), y) for s, y in d.labels.items())
    if held:
        assert d.validation[:, 0].tolist() != list(range(200 - held, 200))


def test_protocol_is_plain_text_that_tells_the_splits_and_the_draw():
    d = data.load("digits", binarise="threshold", threshold=0.25, seed=3)
    assert yaml.safe_load(yaml.safe_dump(d.protocol)) == d.protocol
    assert d.protocol["sizes"] == {"train": 1295, "validation": 143, "test": 359}
    assert (d.protocol["binarise"], d.protocol["threshold"], d.protocol["seed"]) == ("threshold", 0.25, 3)
    assert "143 of the training set" in d.protocol["origin"]["validation"]


# Batches


def test_unshuffled_batches_are_the_split_in_order():
    d = data.load("digits")
    for split in ("train", "validation", "test"):
        assert torch.equal(pass_over(d, split), getattr(d, split))


def test_unshuffled_float_batches_share_the_storage():
    x = torch.randn(100, 3)
    d = data.from_arrays(x, validation_size=0)
    first = next(d.batches("train", 10, shuffle=False))
    assert first.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_a_batch_does_not_write_to_what_is_stored():
    x = torch.rand(50, 3).mul(16).round()
    d = data.from_arrays(x.clone(), values="counts", levels=16, binarise="threshold", validation_size=0)
    pass_over(d)
    assert torch.equal(d.stored["train"], x)


def test_shuffled_batches_are_one_permutation_of_the_caller_s_seed():
    d = data.from_arrays(np.arange(300)[:, None], validation_size=0)
    torch.manual_seed(5)
    order = torch.randperm(300)
    after = torch.rand(1)
    torch.manual_seed(5)
    x = pass_over(d, shuffle=True)
    assert torch.equal(x[:, 0].long(), order)
    assert torch.equal(torch.rand(1), after)  # one randperm and nothing else
    assert not torch.equal(pass_over(d, shuffle=True), x)


def test_a_split_moves_to_the_device_once_where_it_fits(monkeypatch):
    d = data.from_arrays(np.ones((8, 2), dtype=np.float32), validation_size=0)
    meta = torch.device("meta")  # a device that every machine has
    assert all(b.device == meta for b in d.batches("train", 4, shuffle=True, device="meta"))
    held = d._resident("train", False, meta)
    assert held is d._resident("train", False, meta)
    monkeypatch.setattr(dataset, "RESIDENT_BYTES", 1)
    assert d._resident("train", False, meta).device.type == "cpu"
    assert all(b.device == meta for b in d.batches("train", 4, shuffle=True, device="meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("large", [False, True])
def test_batches_on_a_gpu_are_those_of_the_cpu(large, grey, monkeypatch):
    monkeypatch.setattr(dataset, "RESIDENT_BYTES", 1 if large else 2**31)
    for kind in (None, "static", "threshold"):
        d = data.from_arrays(**grey, binarise=kind)
        torch.manual_seed(0)
        here = pass_over(d, shuffle=True)
        torch.manual_seed(0)
        there = pass_over(d, shuffle=True, device="cuda")
        assert there.is_cuda
        assert torch.equal(there.cpu(), here)
    d = data.from_arrays(**grey, binarise="dynamic")
    a, b = pass_over(d, device="cuda"), pass_over(d, device="cuda")
    assert a.is_cuda
    assert not torch.equal(a, b)
    assert torch.equal(pass_over(d, "test", device="cuda").cpu(), d.test)


# Binarisation


@pytest.mark.parametrize("kind", ["static", "dynamic", "threshold"])
def test_ink_stays_ink(kind, grey):
    """`x < U` would invert the image, and only the colours would tell."""
    d = data.from_arrays(**grey, binarise=kind)
    assert (d.values, d.levels) == ("binary", None)
    for split, x in grey.items():
        for drawn in (pass_over(d, split), getattr(d, split)):
            assert set(drawn.unique().tolist()) == {0.0, 1.0}
            assert torch.all(drawn[torch.from_numpy(x == 255)] == 1)
            assert torch.all(drawn[torch.from_numpy(x == 0)] == 0)
            correlation = np.corrcoef(x.ravel(), drawn.numpy().ravel())[0, 1]
            assert correlation > 0.5


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_draws_have_the_mean_of_the_grey(kind):
    """A z-test on 40,000 pixels; fails by chance once in 1e6 seeds, and the seed is fixed."""
    torch.manual_seed(0)
    x = np.random.default_rng(1).random((2000, 20), dtype=np.float32)
    d = data.from_arrays(x, binarise=kind, validation_size=0)
    for drawn in (pass_over(d), d.train):
        z = (drawn.double().sum().item() - x.sum(dtype=np.float64)) / np.sqrt((x * (1 - x)).sum(dtype=np.float64))
        assert 2 * norm.sf(abs(z)) > 1e-6


LEVELS = torch.arange(256, dtype=torch.uint8)


def test_every_grey_level_has_its_probability():
    """20,000 draws of each level against u / 255, by the exact binomial; fails once in 1e6 seeds."""
    n = 20_000
    ones = sum(fresh_draw(LEVELS.expand(1000, 256), 255).sum(0) for _ in range(n // 1000)).numpy()
    assert (ones[0], ones[255]) == (0, n)
    p = np.arange(256) / 255
    tails = np.minimum(binom.cdf(ones, n, p), binom.sf(ones - 1, n, p))
    assert tails.min() > 1e-6 / 2 / 256


def test_the_probability_of_every_grey_level_is_within_2_to_the_minus_17(monkeypatch):
    """All 2^16 values that 16 bits can take, in place of random ones: the probabilities themselves."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)

    def all_bits(words, *_):
        return words.copy_(every[:, None].expand(-1, 256).contiguous().view(torch.int64).flatten())

    monkeypatch.setattr(torch.Tensor, "random_", all_bits)
    p = fresh_draw(LEVELS.expand(2**16, 256), 255).double().mean(0)
    assert (p - LEVELS.double() / 255).abs().max() <= 2**-17
    assert (p[0], p[255]) == (0, 1)


@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_draws_that_share_a_random_word_are_independent(lag):
    """Neighbours take 16 bits each of one word: agreements of 400,000 pairs, z-test, fails once in 1e6 seeds."""
    x = fresh_draw(torch.full((2, 400_000), 128, dtype=torch.uint8), 255).flatten()
    p = 128 / 255
    a, b = x[:400_000] - p, x[lag : 400_000 + lag] - p
    z = (a * b).double().sum().item() / (p * (1 - p) * np.sqrt(400_000))
    assert abs(z) < norm.isf(1e-6 / 2 / 4)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 7, 11), (128, 784)])
@pytest.mark.parametrize("kind", ["bytes", "floats", "counts", "channels last"])
def test_fresh_draws_of_any_shape(kind, shape):
    x = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    x.view(-1)[:4] = torch.tensor([0, 255, 0, 255])
    scale = {"floats": 1, "counts": 16}.get(kind, 255)
    x = {"floats": x / 255, "counts": x.clamp(max=16)}.get(kind, x)
    x = x.movedim(-1, min(1, x.ndim - 1)) if kind == "channels last" else x
    torch.manual_seed(3)
    drawn = fresh_draw(x, scale)
    assert drawn.shape == x.shape
    assert drawn.dtype == torch.float32
    assert drawn.is_contiguous()
    assert torch.all((drawn == 0) | (drawn == 1))
    assert torch.all(drawn[x == 0] == 0)
    assert torch.all(drawn[x == scale] == 1)
    torch.manual_seed(3)
    assert torch.equal(fresh_draw(x, scale), drawn)
    if x.numel() > 1000:
        assert not torch.equal(fresh_draw(x, scale), drawn)


def test_dynamic_draws_training_batches_afresh_and_the_rest_once(grey):
    d = data.from_arrays(**grey, binarise="dynamic")
    assert not torch.equal(pass_over(d), pass_over(d))
    for split in ("validation", "test"):
        assert torch.equal(pass_over(d, split), pass_over(d, split))
        assert torch.equal(pass_over(d, split), getattr(d, split))
        again = data.from_arrays(**grey, binarise="dynamic")
        assert torch.equal(getattr(d, split), getattr(again, split))
    assert torch.equal(d.train, d.train)


def test_dynamic_training_draws_follow_the_caller_s_seed(grey):
    d = data.from_arrays(**grey, binarise="dynamic")
    torch.manual_seed(1)
    first = pass_over(d, shuffle=True)
    torch.manual_seed(1)
    assert torch.equal(pass_over(d, shuffle=True), first)


def test_a_fixed_draw_takes_nothing_from_the_caller_s_generator(grey):
    torch.manual_seed(2)
    after = torch.rand(1)
    torch.manual_seed(2)
    d = data.from_arrays(**grey, binarise="static")
    pass_over(d), d.train, d.validation, d.test
    assert torch.equal(torch.rand(1), after)


def test_static_is_one_draw_of_its_seed(grey):
    d, other = (data.from_arrays(**grey, binarise="static", seed=seed) for seed in (0, 1))
    assert torch.equal(pass_over(d), pass_over(d))
    assert torch.equal(pass_over(d), d.train)
    assert not torch.equal(d.train, other.train)
    same = dict.fromkeys(grey, grey["train"])
    d = data.from_arrays(**same, binarise="static")
    assert not torch.equal(d.train, d.test)  # splits do not share their random numbers


def test_a_fixed_draw_does_not_depend_on_its_blocks():
    from pyrovae.data.binarise import fixed_draw, stream

    x = torch.rand(3, 2**21)  # three blocks
    uniform = torch.from_numpy(stream(0, "train").random(tuple(x.shape), dtype=np.float32))
    assert torch.equal(fixed_draw(x, 1, 0, "train"), (uniform < x).to(torch.uint8))


def test_threshold_is_a_comparison(grey):
    d = data.from_arrays(**grey, binarise="threshold", threshold=0.2)
    assert torch.equal(d.train, (torch.from_numpy(grey["train"]) > 0.2 * 255).float())


def test_digit_counts_are_binarised_as_sixteenths():
    grey, drawn = data.load("digits"), data.load("digits", binarise="threshold")
    assert torch.equal(drawn.train, (grey.train > 8).float())
    static = data.load("digits", binarise="static").train
    assert torch.all(static[grey.train == 16] == 1)
    assert torch.all(static[grey.train == 0] == 0)


# Files


def test_npz_in_both_spellings_with_labels(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8), np.arange(40)
    np.savez(tmp_path / "keras.npz", x_train=x[:30], y_train=y[:30, None], x_test=x[30:], y_test=y[30:])
    np.savez_compressed(tmp_path / "ours.npz", train=x[:20], validation=x[20:30], test=x[30:], labels_test=y[30:])
    keras, ours = data.load(tmp_path / "keras.npz", validation=0), data.load(str(tmp_path / "ours.npz"))
    assert keras.name == "keras"
    assert keras.event_shape == (1, 6, 5)
    assert torch.equal(keras.labels["train"], torch.arange(30))
    assert torch.equal(keras.stored["train"], torch.from_numpy(x[:30, None]))
    assert torch.equal(ours.stored["validation"], torch.from_numpy(x[20:30, None]))
    assert list(ours.labels) == ["test"]
    assert str(tmp_path) in ours.protocol["origin"]["test"]


def test_channels_that_come_last_are_moved_by_a_view(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "colour.npy", x)
    d = data.load(tmp_path / "colour.npy")
    assert d.event_shape == (3, 6, 5)
    assert torch.equal(d.stored["train"], torch.from_numpy(x[: d.size("train")]).permute(0, 3, 1, 2))
    assert not d.stored["train"].is_contiguous()
    assert next(d.batches("train", 4, shuffle=True)).is_contiguous()
    np.savez(tmp_path / "kept.npz", train=np.zeros((4, 3, 9, 3), dtype=np.uint8), test=np.zeros((4, 3, 9, 3)))
    assert data.load(tmp_path / "kept.npz").event_shape == (3, 9, 3)


def test_npy_stays_in_its_file(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (1200, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "big.npy", x)
    d = data.load(tmp_path / "big.npy")
    assert [d.size(s) for s in ("train", "validation", "test")] == [972, 108, 120]
    starts = {s: t.data_ptr() - d.stored["train"].data_ptr() for s, t in d.stored.items()}
    assert starts == {"train": 0, "validation": 972 * 16, "test": 1080 * 16}  # slices of one mapping
    mapped = d.stored["train"].untyped_storage().data_ptr()
    lines = Path("/proc/self/maps").read_text().splitlines() if Path("/proc/self/maps").exists() else []
    home = [line for line in lines if int(line.split("-")[0], 16) <= mapped < int(line.split("-")[1].split()[0], 16)]
    assert not lines or str(tmp_path / "big.npy") in home[0]
    assert torch.equal(torch.cat(list(d.stored.values())), torch.from_numpy(x)[:, None])
    assert d.protocol["values_decided_from"] == "the first 1,000 rows of train"
    assert torch.equal(pass_over(d), d.train)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16", "uint16", ">f4"])
def test_npy_of_any_number_type(dtype, tmp_path):
    x = np.arange(60).reshape(30, 2).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    d = data.load(tmp_path / "x.npy", validation=0)
    assert np.array_equal(d.train.numpy(), x[:27].astype(np.float32))
    assert next(d.batches("train", 5, shuffle=True)).dtype == torch.float32


def test_a_read_only_mapping_is_not_copied_either(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((100, 3), dtype=np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    d = data.from_arrays(x)
    assert d.stored["train"].data_ptr() == x.ctypes.data
    assert d.stored["validation"].data_ptr() == x[90:].ctypes.data


def test_huge_files_are_not_scanned_to_the_end(tmp_path, monkeypatch):
    x = np.zeros((3000, 2), dtype=np.float32)
    x[2000] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match="2 NaN or infinite"):
        data.load(tmp_path / "x.npy")
    monkeypatch.setattr(arrays, "SCAN_BYTES", 1)
    assert data.load(tmp_path / "x.npy").values == "binary"


def save_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_a_flat_folder_of_grey_images(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 6, 5), dtype=np.uint8)
    for i, pixels in enumerate(x):
        save_image(tmp_path / f"{i:02d}.png", pixels)
    d = data.load(tmp_path)
    assert [d.size(s) for s in ("train", "validation", "test")] == [25, 2, 3]
    assert d.event_shape == (1, 6, 5)
    assert d.values == "unit"
    assert not d.labels
    assert sorted(i.numpy().tobytes() for t in d.stored.values() for i in t) == sorted(i.tobytes() for i in x)


def test_a_folder_of_classes_and_splits(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6, 5, 3), dtype=np.uint8)
    for split, by_class in zip(("train", "val"), x, strict=True):
        for cls, images in zip(("ant", "bee", "cat"), by_class, strict=True):
            for i, pixels in enumerate(images):
                save_image(tmp_path / split / cls / "deep" / f"{i}.PNG", pixels)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    d = data.load(tmp_path, seed=1)
    assert d.event_shape == (3, 6, 5)
    assert torch.equal(d.stored["validation"], torch.from_numpy(x[1].reshape(12, 6, 5, 3)).permute(0, 3, 1, 2))
    assert d.labels["validation"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (d.size("train"), d.size("test")) == (11, 1)
    assert data.load(tmp_path, validation=0).validation is None


def test_a_grey_image_among_colours_is_colour(tmp_path):
    save_image(tmp_path / "a.png", np.full((4, 4), 7, dtype=np.uint8))
    save_image(tmp_path / "b.jpg", np.full((4, 4, 3), 200, dtype=np.uint8))
    d = data.load(tmp_path)
    assert d.event_shape == (3, 4, 4)
    assert torch.all(d.stored["train"][0] == 7)


# Torchvision's sets, from files in its layout


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def fake_idx(root, kind="MNIST", prefix="", n=20):
    x = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    test = "test" if prefix else "t10k"
    for split, images in (("train", x), (test, x[:5])):
        write_idx(root / kind / "raw" / f"{prefix}{split}-images-idx3-ubyte", images)
        write_idx(root / kind / "raw" / f"{prefix}{split}-labels-idx1-ubyte", np.arange(len(images), dtype=np.uint8))
    return torch.from_numpy(x)


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_sets_like_mnist(name, kind, tmp_path, monkeypatch):
    x = fake_idx(tmp_path, kind)
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path))
    d = data.load(name)
    order = d.labels["train"].tolist()
    assert torch.equal(d.stored["train"], x[order, None])
    assert torch.equal(d.test, x[:5, None].float() / 255)
    assert (d.size("train"), d.size("validation"), d.values) == (18, 2, "unit")
    assert "torchvision" in d.protocol["origin"]["test"]


def test_emnist_is_turned_upright(tmp_path):
    x = fake_idx(tmp_path, "EMNIST", "emnist-balanced-")
    d = data.load("emnist", root=tmp_path, validation=0)
    assert torch.equal(d.stored["train"][:, 0], x.transpose(1, 2))


def test_cifar10_comes_channels_first(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    x = np.random.default_rng(0).integers(0, 256, (6, 3 * 32 * 32), dtype=np.uint8)
    for i, (file, _) in enumerate(CIFAR10.train_list + CIFAR10.test_list):
        (folder / file).write_bytes(pickle.dumps({"data": x[i : i + 1], "labels": [i]}))
    d = data.load("cifar10", root=tmp_path, validation=0)
    assert torch.equal(d.stored["train"], torch.from_numpy(x[:5]).reshape(5, 3, 32, 32))
    assert d.labels["test"].tolist() == [5]


def test_svhn_comes_channels_first(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": np.array([[1], [10], [2], [3]])})
    d = data.load("svhn", root=tmp_path, validation=0)
    assert torch.equal(d.stored["train"], torch.from_numpy(x))
    assert d.stored["train"].is_contiguous()
    assert d.labels["test"].tolist() == [1, 0, 2, 3]


def test_omniglot_is_decoded_once_with_ink_as_one(tmp_path, monkeypatch):
    from torchvision.datasets import Omniglot

    monkeypatch.setattr(Omniglot, "_check_integrity", lambda self: True)
    page = np.full((105, 105), 255, dtype=np.uint8)
    page[:, :53] = 0  # ink on the left
    for folder in ("images_background", "images_evaluation"):
        for i in range(3):
            save_image(tmp_path / "omniglot-py" / folder / "Greek" / f"character0{i}" / "0_1.png", page)
    d = data.load("omniglot", root=tmp_path, validation=0)
    assert (d.size("train"), d.size("test"), d.event_shape) == (3, 3, (1, 28, 28))
    assert torch.all(d.train[..., :12] == 1)
    assert torch.all(d.train[..., 16:] == 0)
    assert d.labels["test"].tolist() == [0, 1, 2]
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.setattr(sources, "decode_into", None)  # a second call decodes nothing
    assert torch.equal(data.load("omniglot", root=tmp_path, validation=0).train, d.train)
    damaged = tmp_path / "omniglot_train_1x28x28.npy"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cannot be read.*Delete it and load again"):
        data.load("omniglot", root=tmp_path)


def test_celeba_is_the_centre_of_the_face_in_its_official_splits(tmp_path, monkeypatch):
    from torchvision.datasets import CelebA

    monkeypatch.setattr(CelebA, "_check_integrity", lambda self: True)
    home = tmp_path / "celeba"
    face = np.full((218, 178, 3), 250, dtype=np.uint8)
    face[35:183, 15:163] = (10, 100, 200)
    names = [f"{i}.png" for i in range(6)]
    for file in names:
        save_image(home / "img_align_celeba" / file, face)
    for file, rows, header in (
        ("list_eval_partition.txt", [[s] for s in (0, 0, 1, 1, 2, 2)], ""),
        ("identity_CelebA.txt", [[i + 7] for i in range(6)], ""),
        ("list_bbox_celeba.txt", [[0]] * 6, "6\nx\n"),
        ("list_landmarks_align_celeba.txt", [[0]] * 6, "6\nx\n"),
        ("list_attr_celeba.txt", [[1]] * 6, "6\nx\n"),
    ):
        lines = [" ".join([n, *map(str, row)]) for n, row in zip(names, rows, strict=True)]
        (home / file).write_text(header + "\n".join(lines) + "\n")
    d = data.load("celeba", root=tmp_path)
    assert [d.size(s) for s in ("train", "validation", "test")] == [2, 2, 2]
    assert torch.equal(
        d.stored["train"], torch.tensor([10, 100, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 64, 64)
    )
    assert d.labels["test"].tolist() == [11, 12]
    assert "148x148" in d.protocol["origin"]["test"]


def offline(self):
    raise urllib.error.URLError("Name or service not known")


def test_a_set_that_is_nowhere_is_said_to_be_nowhere(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "download", offline)
    with pytest.raises(
        FileNotFoundError, match=r"'mnist' was not found: looked for MNIST/raw in .*Set PYROVAE_DATA"
    ) as e:
        data.load("mnist", root=tmp_path)
    assert str(tmp_path) in str(e.value)
    assert "Name or service not known" in str(e.value)


def test_an_absent_set_is_downloaded(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "download", lambda self: fake_idx(tmp_path))
    assert data.load("mnist", root=tmp_path).size("test") == 5


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_file_cut_short_is_named(keep, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "download", offline)
    fake_idx(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"'mnist' cannot be read from .*MNIST/raw.*delete it and load again"):
        data.load("mnist", root=tmp_path)


@needs_mnist
def test_mnist_is_mnist():
    d = data.load("mnist")
    assert [d.size(s) for s in ("train", "validation", "test")] == [55_000, 5_000, 10_000]
    assert all(x.dtype == torch.uint8 for x in d.stored.values())
    everything = torch.cat([d.stored["train"], d.stored["validation"]])
    assert everything.sum(dtype=torch.int64).item() == 1_567_298_545  # of the 60,000 official training images
    assert d.labels["test"][:5].tolist() == [7, 2, 1, 0, 4]


@needs_mnist
def test_mnist_dynamically_binarised_is_bright_where_the_digits_are():
    d = data.load("mnist", binarise="dynamic")
    x = next(d.batches("train", 500, shuffle=False))
    grey = d.stored["train"][:500].float() / 255
    assert torch.corrcoef(torch.stack([x.flatten(), grey.flatten()]))[0, 1] > 0.8
    assert x.mean() < 0.3  # a digit is mostly background


# Bad input: who, expected, got, remedy

X = np.random.default_rng(0).random((20, 3))


def with_bad(value, n=1):
    x = X.copy()
    x[:n, 0] = value
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: data.load("minst"),
            r"'minst' is not known; did you mean 'mnist'\? Known: breast_cancer, celeba, ",
        ),
        (lambda: data.load("digits", binarise="dynamc"), "binarise by 'dynamc'; did you mean 'dynamic'"),
        (lambda: data.load("digits", validation=5000), "1438 training examples, and validation=5000 leaves none"),
        (lambda: data.load("digits", validation=1.5), r"validation to be a number of examples or a fraction.*1.5"),
        (lambda: data.load("digits", validation="many"), r"validation to be a number of examples.*'many'"),
        (lambda: data.load("digits", seed=-1), "seed to be an integer >= 0, got -1"),
        (lambda: data.load("digits", threshold=1.0), r"threshold in \[0, 1\), got 1.0"),
        (lambda: data.load("digits").batches("tset", 1, shuffle=False), "no split 'tset'; did you mean 'test'"),
        (lambda: data.load("digits").batches("train", 0, shuffle=False), "positive integer, got 0"),
        (lambda: data.load("digits", validation=0).batches("validation", 1, shuffle=False), "no validation split"),
        (
            lambda: data.from_arrays(with_bad(np.nan, 3)),
            r"split 'train' expects finite numbers, got 3 NaN or infinite of 60",
        ),
        (lambda: data.from_arrays(X, test=with_bad(-np.inf)), "split 'test' expects finite numbers, got 1"),
        (lambda: data.from_arrays(np.zeros((0, 3))), r"split 'train' is empty: shape \[0, 3\]"),
        (lambda: data.from_arrays(7.0), r"expects an array \[N, \*event\], got a single number"),
        (lambda: data.from_arrays(X, labels=np.arange(3)), "split 'train' expects one label for each of its 20.*got 3"),
        (lambda: data.from_arrays(X, labels={"tests": np.arange(3)}), "labels for split 'tests' and no such data"),
        (lambda: data.from_arrays(X, labels=["cat"] * 20), "labels of split 'train' to be integers"),
        (
            lambda: data.from_arrays(X, test=X[:, :2]),
            r"one event shape, got \[3\] in split 'train' and \[2\] in split 'test'",
        ),
        (lambda: data.from_arrays(X, X, validation_size=3), "brings its own validation split, got validation_size=3"),
        (
            lambda: data.from_arrays(with_bad(1.5), values="unit"),
            r"expects numbers in \[0, 1\], got .* to 1.5. Rescale",
        ),
        (lambda: data.from_arrays(X, test=with_bad(9)), r"split 'test': values='unit' expects numbers in \[0, 1\]"),
        (lambda: data.from_arrays(X, values="counts", levels=4), r"the integers 0..4, got non-integer numbers"),
        (lambda: data.from_arrays([[0, 5]], values="counts", levels=4), r"the integers 0..4, got numbers from 0 to 5"),
        (lambda: data.from_arrays(X, values="counts"), "expects levels, the largest count, got None. Pass levels=16"),
        (lambda: data.from_arrays(X, levels=3), "levels=3 expects values='counts'"),
        (lambda: data.from_arrays(X, values="grey"), "does not know values='grey'"),
        (lambda: data.from_arrays(X - 5, binarise="static"), r"expects values in \[0, 1\], got real values from -"),
        (lambda: data.from_arrays([[1, 2], [3]]), "split 'train' is not a rectangular array"),
        (lambda: data.from_arrays(np.array([["a"]])), "expects an array of numbers, got dtype <U1"),
        (lambda: data.from_arrays(np.array([[None]])), "expects an array of numbers, got dtype object"),
        (
            lambda: data.from_arrays(torch.zeros(2, 2, dtype=torch.complex64)),
            "expects real numbers, got torch.complex64",
        ),
        (
            lambda: data.from_arrays((X * 255).astype(np.uint8), test=X),
            "mixes uint8 and float splits as values='unit'",
        ),
    ],
)
def test_bad_input_is_named_with_its_remedy(call, message):
    with pytest.raises(ValueError, match=message) as e:
        call()
    assert str(e.value).count("\n") == 0


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


def saved(path, **given):
    np.savez(path, **given) if path.suffix == ".npz" else np.save(path, given["train"])
    return path


def garbled(path):
    saved(path, train=np.random.default_rng(0).random((200, 3)))
    content = bytearray(path.read_bytes())
    content[800:900] = bytes(100)
    path.write_bytes(content)
    return path


OBJECTS = np.array([[{}]], dtype=object)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: saved(p / "a.npz", images=X, y=X), "expects an array 'train' or 'x_train', got images, y"),
        (
            lambda p: saved(p / "a.npz", train=OBJECTS),
            r"\(array 'train'\) expects numbers, got Python objects.*never unpickles",
        ),
        (lambda p: saved(p / "a.npy", train=OBJECTS), "expects numbers, got Python objects.*never unpickles"),
        (lambda p: saved(p / "a.npz", train=X, y_train=np.arange(3)), "one label for each of its 20"),
        (lambda p: cut(saved(p / "a.npz", train=X), 300), "cannot be read.*damaged or cut short"),
        (lambda p: garbled(p / "a.npz"), "cannot be read.*damaged or cut short"),
        (lambda p: cut(saved(p / "a.npy", train=X), 300), "cannot be read.*damaged or cut short"),
        (lambda p: cut(saved(p / "a.npy", train=X), 0), "cannot be read.*damaged or cut short"),
        (lambda p: saved(p / "a.npy", train=np.zeros((0, 3))), "split 'train' is empty"),
        (lambda p: saved(p / "a.npy", train=X).rename(p / "b.npz"), "is not a .npz archive"),
        (lambda p: (p / "a.csv").write_text("1") and p / "a.csv", "expects a .npz or .npy file or a folder.*'a.csv'"),
        (lambda p: p, "expects a folder of images.*found none"),
    ],
)
def test_bad_files_are_named_with_their_remedy(make, message, tmp_path):
    path = make(tmp_path)
    with pytest.raises(ValueError, match=message) as e:
        data.load(path)
    assert path.stem in str(e.value)


@pytest.mark.parametrize("name", ["nowhere.npz", "nowhere.npy", "some/folder"])
def test_an_absent_path_is_a_missing_file(name):
    with pytest.raises(FileNotFoundError, match=r"does not exist \(looked in .*Check the path"):
        data.load(name)


def test_bad_images_are_named(tmp_path):
    for i in range(3):
        save_image(tmp_path / f"{i}.png", np.zeros((4 if i < 2 else 9, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"one size, got 4x4 in .*0.png' and 4x9 in .*2.png'"):
        data.load(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"2.png' cannot be read"):
        data.load(tmp_path)
    save_image(tmp_path / "2.png", np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8))
    cut(tmp_path / "2.png", 60)
    with pytest.raises(ValueError, match=r"2.png' cannot be read"):
        data.load(tmp_path)
    save_image(tmp_path / "2.png", np.zeros((4, 4), dtype=np.uint16))
    with pytest.raises(ValueError, match=r"2.png' expects 8 bits a channel"):
        data.load(tmp_path)


def test_an_interrupted_cache_leaves_nothing(tmp_path):
    def fill(array):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_npy(tmp_path / "x.npy", (3,), np.uint8, fill)
    assert not list(tmp_path.iterdir())
