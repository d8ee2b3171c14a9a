"""A race: the same start, the same cost, and what `fit` would have done alone."""

import math

import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae import objectives

QUICK = {"points": 2, "test_particles": 5, "progress": False, "batch_size": 16}


@pytest.fixture
def data():
    x = torch.bernoulli(torch.full((70, 6), 0.4))
    return pv.data.from_arrays(x[:48], x[48:56], x[56:])


def build(data):
    return pv.models.VAE.build(data, latent=2, hidden=[4])


def race(data, runners, vae=None, **options):
    torch.manual_seed(3)
    return pv.lab.race(vae or build(data), data, runners, **QUICK | options)


def test_at_equal_passes_each_has_the_decoder_rows_of_the_cheapest(data):
    table = race(data, ["ELBO", "IWAE(4)", objectives.MIWAE(2, 5)], epochs=20)
    last = table.groupby("objective").last()
    assert last.epoch.to_dict() == {"ELBO": 20, "IWAE": 5, "MIWAE": 2}
    assert last.decoder_passes.to_dict() == {"ELBO": 20, "IWAE": 20, "MIWAE": 20}
    assert table.groupby("objective").size().to_dict() == {"ELBO": 3, "IWAE": 3, "MIWAE": 3}
    starts = table[table.epoch == 0]
    assert len(set(starts.log_evidence)) == 1  # the same weights, the same draws
    assert (starts.seconds == 0).all()
    assert (table.seconds.diff()[table.epoch > 0] > 0).all()


def test_at_equal_epochs_each_has_all_of_them(data):
    table = race(data, ["ELBO", "IWAE(4)"], cost="epochs", epochs=3)
    assert table.groupby("objective").epoch.max().to_dict() == {"ELBO": 3, "IWAE": 3}


def test_budgets_are_rounded_to_the_nearest_epoch_and_are_one_at_least(data):
    table = race(data, ["ELBO", "IWAE(3)", "IWAE(4)", "IWAE(16)"], epochs=5)
    assert table.groupby("particles").epoch.max().to_dict() == {1: 5, 3: 2, 4: 1, 16: 1}  # 5, 1.67, 1.25, 0.3


def test_one_that_cannot_be_trained_sets_no_budget():
    """A penalty on the codes of a batch, and a last batch of one."""
    x = torch.bernoulli(torch.full((70, 6), 0.4))
    data = pv.data.from_arrays(x[:49], x[49:56], x[56:])
    table = race(data, ["InfoVAE", "IWAE(4)"], epochs=8)
    assert "needs at least two data" in table.failed[0]
    assert table.epoch.max() == 8


def test_at_equal_seconds_the_dearer_has_fewer_epochs(data):
    table = race(data, ["ELBO", "IWAE(2000)"], cost="seconds", epochs=40)
    epochs = table.groupby("objective").epoch.max()
    assert epochs["ELBO"] == 40
    assert epochs["IWAE"] < 20


def test_it_trains_as_fit_does(data):
    table = race(data, ["IWAE(3)"], epochs=4, seeds=[7])
    torch.manual_seed(3)
    vae = build(data)
    pv.fit(vae, data, objectives.IWAE(3), epochs=4, batch_size=16, seed=7, progress=False)
    ev = pv.evaluate(vae, data.test, 5)
    assert table.log_evidence.iloc[-1] == ev.log_evidence_mean
    assert table.log_evidence_error.iloc[-1] == ev.log_evidence_mean_error
    assert table.seed.tolist() == [7, 7, 7]


def test_one_seed_gives_one_table_and_a_builder_is_called_under_each(data):
    tables = [race(data, ["ELBO"], lambda: build(data), epochs=2, seeds=(0, 1)).drop(columns="seconds") for _ in "ab"]
    pd.testing.assert_frame_equal(*tables)
    starts = tables[0][tables[0].epoch == 0].log_evidence.tolist()
    assert starts[0] != starts[1]


def test_of_a_large_test_set_the_first_are_taken():
    x = torch.bernoulli(torch.full((700, 6), 0.4))
    table = race(pv.data.from_arrays(x[:48], x[48:56], x[56:]), ["ELBO"], epochs=1, points=1)
    assert table.attrs["data"] == 500


def test_the_callers_random_numbers_are_untouched(data):
    vae = build(data)
    torch.manual_seed(1)
    pv.lab.race(vae, data, ["ELBO"], epochs=1, **QUICK)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after


def test_the_given_model_is_left_as_it_was(data):
    torch.manual_seed(3)
    vae = build(data)
    before = [p.clone() for p in vae.parameters()]
    race(data, ["ELBO"], vae, epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


class Fails(objectives.ELBO):
    def __init__(self, after: int = 0, stop: bool = False):
        super().__init__()
        self.after, self.stop, self.calls = after, stop, 0

    def forward(self, vae, x):
        self.calls += 1
        e = super().forward(vae, x)
        if self.calls <= self.after:
            return e
        if self.stop:
            raise KeyboardInterrupt
        return objectives.Estimate(e.bound * math.nan, e.surrogate * math.nan)


def test_one_that_fails_is_a_marked_row(data):
    table = race(data, ["TVO(1)", Fails(5), "ELBO"], epochs=2)
    assert table[table.objective == "TVO"].failed.tolist() == [
        "TVO compares particles and expects at least 2, got particles=1"
    ]
    (reason,) = table[(table.objective == "Fails(after=5)") & table.failed.ne("")].failed
    assert "NaN or infinite in epoch" in reason
    assert table[table.objective == "ELBO"].log_evidence.notna().all()


def test_one_that_fails_late_keeps_its_evaluations(data):
    table = race(data, {"a": Fails(12)}, epochs=4, points=4)  # in its third epoch
    assert table.epoch.dropna().tolist() == [0, 1, 2]
    assert table.failed.ne("").tolist() == [False, False, False, True]


def test_a_stopped_race_keeps_what_is_done(data, tmp_path):
    table = race(
        data, {"a": objectives.ELBO(), "b": Fails(14, stop=True), "c": objectives.ELBO()}, epochs=4, folder=tmp_path
    )
    assert table.attrs["interrupted"]
    assert table[table.objective == "a"].epoch.tolist() == [0, 2, 4]
    assert table[table.objective == "b"].epoch.max() < 4
    assert "c" not in set(table.objective)
    kept = pd.read_csv(tmp_path / "race.csv")
    assert kept.log_evidence.tolist() == pytest.approx(table.log_evidence.tolist())
    assert (tmp_path / "race.png").stat().st_size > 1000


def test_the_picture_says_what_the_table_says(data):
    table = race(data, ["ELBO", "IWAE(4)", "TVO(1)"], epochs=4, seeds=(0, 1))
    figure = pv.plots.race(table)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "epochs",
        "seconds of training",
        "decoder passes for each datum",
    ]
    for ax, cost in zip(figure.axes, ["epoch", "seconds", "decoder_passes"], strict=True):
        lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
        assert set(lines) == {"ELBO, K = 1", "IWAE, K = 4"}
        for name, line in lines.items():
            own = table[table.objective == name.split(",")[0]]
            means = own.assign(at=own.epoch).groupby("at")[[cost, "log_evidence"]].mean()
            assert line.get_ydata().tolist() == pytest.approx(means.log_evidence.tolist())
            assert line.get_xdata().tolist() == pytest.approx(means[cost].tolist())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cost": "money"}, "unknown cost 'money' of race"),
        ({"epochs": 0}, "epochs of at least 1"),
        ({"points": 0}, "points of at least 1"),
        ({"x": torch.zeros(0, 6)}, "at least one value"),
        ({"seed": 3}, "race sets seed of each training itself"),
        ({"run_dir": "r"}, "race sets run_dir of each training itself"),
        ({"batchsize": 3}, "race has no option 'batchsize', and neither has fit; did you mean 'batch_size'"),
        ({"seeds": 3}, r"race expects seeds as a list, got 3; give \[3\], or range"),
    ],
)
def test_what_makes_no_sense_is_refused(data, options, said):
    with pytest.raises(ValueError, match=said):
        race(data, ["ELBO"], **options)


def test_held_out_data_are_needed():
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    data = pv.data.from_arrays(x, validation_size=0)
    with pytest.raises(ValueError, match="expects held-out data"):
        race(data, ["ELBO"])
    assert len(race(data, ["ELBO"], x=x[:4], epochs=1, points=1)) == 2


def test_a_picture_of_nothing_is_refused(data):
    with pytest.raises(ValueError, match="expects the table"):
        pv.plots.race(pd.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match="at least one row"):
        pv.plots.race(race(data, ["TVO(1)"], epochs=1))


def test_fit_measures_what_it_is_asked_to(data):
    torch.manual_seed(0)
    plain = pv.fit(build(data), data, epochs=3, progress=False)
    torch.manual_seed(0)
    seen = []

    def measure(vae, epoch):
        seen.append((vae.training, torch.is_grad_enabled(), epoch))
        return {"noise": float(torch.rand(()))}

    measured = pv.fit(build(data), data, epochs=3, progress=False, measure=measure)
    assert seen == [(False, False, 1), (False, False, 2), (False, False, 3)]
    assert len(set(measured.history.noise)) == 1  # a stream of its own
    assert measured.history.bound.tolist() == plain.history.bound.tolist()
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), measured.model.parameters(), strict=True))
