"""Plots: every picture is a picture, pyplot is left alone, and wrong input is named in one sentence."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from PIL import Image

import pyrovae as pv
from pyrovae import plots

DATA = {
    "digits": lambda: pv.data.load("digits").test[:30],
    "binary": lambda: torch.rand(30, 1, 9, 7).round(),
    "colour": lambda: torch.rand(30, 3, 6, 6),
    "vectors": lambda: torch.randn(30, 12),
    "points": lambda: torch.randn(30, 2),
    "sequences": lambda: torch.randn(30, 5, 4),
}


def case(name, latent=4):
    """Data and an untrained VAE for them."""
    torch.manual_seed(0)
    x = DATA[name]()
    data = pv.data.load("digits") if name == "digits" else pv.data.from_arrays(x, validation_size=0)
    return pv.models.VAE.build(data, latent=latent, hidden=[8]), x


def pixels(figure):
    """A figure as its PNG shows it: [H, W, 3] in 0..255."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def is_a_picture(figure):
    shown = pixels(figure)
    height, width, _ = shown.shape
    assert 50 < height < 1500
    assert 50 < width < 1500
    assert shown.std() > 5  # not blank
    assert (shown[0] == 255).all()  # nothing is cut off at the margins
    assert (shown[-1] == 255).all()
    assert (shown[:, -1] == 255).all()


PICTURES = {
    "images": lambda vae, x: plots.images(x, title="Data"),
    "images with titles": lambda vae, x: plots.images(x, titles=range(30), columns=7),
    "reconstructions": lambda vae, x: plots.reconstructions(vae, x[:13]),
    "samples": lambda vae, x: plots.samples(vae, 20),
    "draws": lambda vae, x: plots.samples(vae, 20, mean=False),
    "one interpolation": lambda vae, x: plots.interpolation(vae, x[:1], x[1:2]),
    "interpolations": lambda vae, x: plots.interpolation(vae, x[:3], x[3:6], steps=5),
    "traversal": lambda vae, x: plots.traversal(vae, x, steps=6),
    "latent map": lambda vae, x: plots.latent_map(vae, x),
    "latent map of classes": lambda vae, x: plots.latent_map(vae, x, torch.arange(30) % 10),
    "latent map of numbers": lambda vae, x: plots.latent_map(vae, x, torch.rand(30)),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("picture", PICTURES)
def test_every_picture_of_every_kind_of_data(picture, data):
    is_a_picture(PICTURES[picture](*case(data)))


def rows(epochs=40, **more):
    return [
        {"epoch": e, "bound": -400 / e, "validation": -410 / e, "learning_rate": 1e-3, "seconds": 1.0} | more
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 40])
@pytest.mark.parametrize("more", [{}, {"validation": None}, {"learning_rate": 0.0}])
def test_history_is_a_picture(epochs, more):
    is_a_picture(plots.history(rows(epochs, **more)))


def test_history_takes_what_fit_leaves():
    data = pv.data.load("digits")
    run = pv.fit(pv.models.VAE.build(data, latent=2, hidden=[8]), data, epochs=2, progress=False)
    figure = plots.history(run.history)
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    assert np.array_equal(drawn[0], run.history["bound"])
    assert np.array_equal(drawn[1], run.history["validation"])
    assert pixels(plots.history(run.rows)).shape == pixels(figure).shape


def test_the_first_epochs_do_not_squash_the_rest_and_are_named():
    ax = plots.history(rows(40)).axes[0]
    low, high = ax.get_ylim()
    assert low > -150
    assert high > -10
    assert "epochs up to 4, from −410.0" in ax.get_title(loc="right")


def test_a_late_fall_is_never_hidden():
    fallen = rows(40)
    fallen[30]["bound"] = -1e4
    assert plots.history(fallen).axes[0].get_ylim()[0] < -1e4


def test_history_passes_over_epochs_without_a_number():
    broken = pd.DataFrame(rows(40))
    broken.loc[5, "bound"] = np.inf
    broken.loc[6, "validation"] = np.nan
    is_a_picture(plots.history(broken))


# What the pictures show


def canvas(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_every_pixel_of_an_image_is_a_square_of_its_value():
    x = torch.arange(6.0).view(2, 1, 3, 1) / 5
    shown = canvas(plots.images(x))
    k = shown.shape[0] // 3
    for n, left in ((0, 0), (1, shown.shape[1] - k)):
        for row in range(3):
            block = shown[row * k : (row + 1) * k, left : left + k]
            assert block == pytest.approx(float(x[n, 0, row, 0]))


def test_the_canvas_is_drawn_pixel_by_pixel():
    x = (torch.arange(64).view(1, 1, 8, 8) + torch.arange(8).view(8, 1)).fmod(2).expand(5, 1, 8, 8)
    figure = plots.images(x)
    want = (canvas(figure) * 255).round().astype(np.uint8)
    height, width, _ = want.shape
    shown = pixels(figure)
    top, left = np.argwhere((shown < 255).any(-1)).min(0)
    top, left = top - np.argwhere(want[:, :, 0] < 255).min(0)[0], left - np.argwhere(want[..., 0] < 255)[:, 1].min()
    assert np.array_equal(shown[top : top + height, left : left + width], want)


@pytest.mark.parametrize(
    ("x", "given", "black_and_white"),
    [
        (torch.tensor([0.2, 0.7]), None, (0.2, 0.7)),  # within [0, 1]: as it is
        (torch.tensor([4.0, 16.0]), None, (0.25, 1.0)),  # counts: from 0
        (torch.tensor([-1.0, 1.0]), None, (0.0, 1.0)),  # real: from the least
        (torch.tensor([4.0, 8.0]), (0, 16), (0.25, 0.5)),
        (torch.tensor([-5.0, 50.0]), (0, 16), (0.0, 1.0)),
    ],
)
def test_grey_levels(x, given, black_and_white):
    shown = canvas(plots.images(x.view(1, 1, 1, 2), value_range=given))
    assert shown[0, [0, -1], 0] == pytest.approx(black_and_white)


def test_colours_stay_colours():
    x = torch.zeros(1, 3, 2, 2)
    x[:, 0] = 1
    assert (canvas(plots.images(x)) == [1, 0, 0]).all()


def test_below_each_datum_stands_its_own_reconstruction():
    vae, x = case("digits")
    shown = canvas(plots.reconstructions(vae, x[:3], value_range=(0, 16)))
    made = pv.reconstruct(vae, x[:3]) / 16
    k = shown.shape[1] // 3 // 8
    side = 8 * k
    for n, left in ((0, 0), (2, shown.shape[1] - side)):
        assert shown[:side:k, left : left + side : k, 0] == pytest.approx(x[n, 0].numpy() / 16)
        assert shown[-side::k, left : left + side : k, 0] == pytest.approx(made[n, 0].numpy(), abs=1e-6)


def test_samples_say_that_they_are_means():
    vae, _ = case("digits")
    assert plots.samples(vae, 4).texts[0].get_text() == "From the prior: E[x | z] for z ~ p(z)"
    assert plots.samples(vae, 4, mean=False).texts[0].get_text() == "From the prior: x ~ p(x | z) for z ~ p(z)"


def test_samples_follow_their_seed_and_leave_the_callers_numbers():
    vae, _ = case("digits")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = (canvas(plots.samples(vae, 4, seed=s)) for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("data", sorted(set(DATA) - {"points"}))
def test_two_data_or_a_row_of_pairs_are_interpolated_alike(data):
    vae, x = case(data)
    one = plots.interpolation(vae, x[0], x[1])
    assert np.array_equal(canvas(one), canvas(plots.interpolation(vae, x[:1], x[1:2])))


class OneActive(nn.Module):
    """Of three latent dimensions only the last depends on x."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 2:].expand(*z.shape[:-1], 5), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            loc = torch.cat([torch.zeros(len(x), 2), x.mean(1, keepdim=True)], 1)
            pyro.sample("z", dist.Normal(loc, 0.1).to_event(1))


def test_traversal_begins_with_the_most_active_dimension():
    figure = plots.traversal(OneActive(), torch.randn(20, 5))
    assert figure.axes[0].get_title(loc="left").startswith("z[2] from −3 to +3")


def test_principal_axes_say_how_much_they_explain():
    figure = plots.latent_map(OneActive(), torch.randn(20, 5))
    assert figure.axes[0].get_xlabel() == "principal axis 1: 100% of the variance"
    assert figure.axes[0].get_title(loc="left") == "Mean of q(z | x), 3 dimensions"


def test_two_latent_dimensions_are_drawn_as_they_are_with_the_priors_circles():
    vae, x = case("digits", latent=2)
    ax = plots.latent_map(vae, x).axes[0]
    assert np.allclose(ax.collections[0].get_offsets(), pv.encode(vae, x))
    assert sorted(p.get_radius() for p in ax.patches) == [1, 2]


@pytest.mark.parametrize("labels", [None, torch.arange(30) % 3, torch.rand(30)])
def test_one_latent_dimension(labels):
    vae, x = case("digits", latent=1)
    is_a_picture(plots.latent_map(vae, x, labels))


def test_each_class_has_its_name_in_the_legend_and_on_the_map():
    vae, x = case("digits", latent=2)
    ax = plots.latent_map(vae, x, [f"class {n % 10}" for n in range(30)]).axes[0]
    names = {f"class {n}" for n in range(10)}
    assert {t.get_text() for t in ax.get_legend().get_texts()} == names
    assert names <= {t.get_text() for t in ax.texts}


class Clusters(nn.Module):
    """A cluster y, and a place z in it; two sites are observed."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(y[..., :2], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
            pyro.sample("copy", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.OneHotCategorical(torch.ones(3)))
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


def test_of_several_latent_sites_the_first_continuous_one_is_mapped_and_named():
    ax = plots.latent_map(Clusters(), torch.randn(20, 2)).axes[0]
    assert "Site 'z'" in ax.get_title(loc="left")
    assert len(ax.patches) == 0  # no circles: its prior is no standard normal


# What a program around them sees


def test_pyplot_and_the_settings_are_left_alone():
    code = (
        "import sys, torch; from pyrovae import plots; "
        "assert 'matplotlib' not in sys.modules, 'import'; "
        "plots.images(torch.rand(3, 1, 4, 4)); "
        "import matplotlib; before = matplotlib.rcParams.copy(); "
        "plots.history([{'epoch': 1, 'bound': 2.0}]); plots.images(torch.rand(3, 4)); "
        "assert matplotlib.rcParams.copy() == before; "
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_figure_is_kept_by_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for picture in PICTURES.values():
        picture(*case("digits"))
    plots.history(rows())
    assert plt.get_fignums() == before


def test_a_notebook_gets_a_png():
    assert plots.images(torch.rand(3, 1, 4, 4))._repr_png_().startswith(b"\x89PNG")


def test_a_model_keeps_its_mode():
    vae, x = case("digits")
    vae.train()
    for picture in PICTURES.values():
        picture(vae, x)
    assert all(m.training for m in vae.modules())


WRONG = {
    "no data": (lambda vae, x: plots.images(x[:0]), r"images expects data \[N, \*event\].*got shape \[0, 1, 8, 8\]"),
    "too many": (lambda vae, x: plots.images(torch.zeros(1001, 1, 2, 2)), r"at most 1,000 data.*got 1,001.*x\[:100\]"),
    "not finite": (lambda vae, x: plots.images(x / 0), "finite values, got .* NaN or infinite"),
    "titles": (lambda vae, x: plots.images(x, titles=["a"]), "a title for each of 30 images, got 1"),
    "columns": (lambda vae, x: plots.images(x, columns=0), "columns of at least 1, got 0"),
    "range": (lambda vae, x: plots.images(x, value_range=(1, 0)), r"value_range .* got \(1, 0\)"),
    "samples": (lambda vae, x: plots.samples(vae, 0), "n of at least 1, got n=0"),
    "ends": (lambda vae, x: plots.interpolation(vae, x[:2], x[:3]), "two data of one shape.*; make pairs"),
    "steps": (lambda vae, x: plots.interpolation(vae, x[0], x[1], steps=1), "at least 2 steps"),
    "one datum": (lambda vae, x: plots.traversal(vae, x[:1]), "several data to find the active dimensions, got 1"),
    "dims": (lambda vae, x: plots.traversal(vae, x, dims=[4]), r"dims from 0 to 3, got \[4\]"),
    "labels": (lambda vae, x: plots.latent_map(vae, x, [1, 2]), r"one label for each of 30 data, got shape \[2\]"),
    "classes": (lambda vae, x: plots.latent_map(vae, x, list(map(str, range(30)))), "at most 10 classes.*got 30"),
    "site": (lambda vae, x: plots.latent_map(vae, x, site="w"), r"site as one of \['z'\], got 'w'"),
    "traversed site": (lambda vae, x: plots.traversal(vae, x, site="w"), r"site as one of \['z'\], got 'w'"),
    "history": (lambda vae, x: plots.history([{"loss": 1.0}]), r"'epoch' and 'bound', got 1 rows with \['loss'\]"),
    "no history": (lambda vae, x: plots.history([]), "'epoch' and 'bound', got list; give fit.history"),
    "a fit": (lambda vae, x: plots.history(vae), "got VAE; give fit.history"),
    "no numbers": (lambda vae, x: plots.history([{"epoch": 1, "bound": None}]), "got none that is finite"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_clear_sentence(wrong):
    call, message = WRONG[wrong]
    vae, x = case("digits")
    with pytest.raises(ValueError, match=message) as raised:
        call(vae, x)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "picture",
    [
        lambda x: plots.samples(Clusters(), 4, like=x),
        lambda x: plots.reconstructions(Clusters(), x),
    ],
)
def test_a_model_of_several_observed_sites_is_refused_with_a_way_out(picture):
    with pytest.raises(ValueError, match=r"or images, got \[.x., .copy.\]; name one of them: observed=.x."):
        picture(torch.randn(6, 2))


def test_a_site_is_shown_where_it_is_named():
    x = torch.randn(6, 2)
    assert plots.reconstructions(Clusters(), x, observed="copy").axes
    with pytest.raises(ValueError, match="samples has no observed site 'y'"):
        plots.samples(Clusters(), 4, like=x, observed="y")
