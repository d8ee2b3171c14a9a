"""The plate diagram: every site has its circle, every dependence its arrow, every plate its sites and no others."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from graphs import GRAPHS

import pyrovae as pv
from pyrovae.plots.graph_arrows import FACTOR_RADIUS, RADIUS
from pyrovae.plots.graph_layout import arrange
from pyrovae.program.structure import read_structure


def cases(name):
    vae, x = GRAPHS[name]()
    return vae, x, read_structure(vae, x, "test")


def read_whole(structure, factor, given):
    """Whether an observed site is read by a factor of q as one of many that are all read."""
    return len(structure.observed) > 4 and given in structure.observed and set(structure.observed) <= set(factor.given)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_site_plate_and_dependence_is_drawn_once(name):
    vae, x, structure = cases(name)
    ids = [p.get_gid() for p in pv.plots.graph(vae, x).axes[0].patches]
    arrows = [f"p: {g} -> {f.name}" for f in structure.p for g in f.given]
    arrows += [f"q: {g} -> {f.name}" for f in structure.q or () for g in f.given if not read_whole(structure, f, g)]
    plates = {f"plate {p.name}" for f in structure.p for p in f.node.plates}
    assert sorted(ids) == sorted([*arrows, *plates, *(f"site {f.name}" for f in structure.p)])


@pytest.mark.parametrize("name", GRAPHS)
def test_plates_enclose_exactly_their_sites(name):
    _, _, structure = cases(name)
    plan = arrange(structure)
    for f in structure.p:
        x, y = plan.centres[f.name]
        around = {p for p, (left, low, right, top) in plan.plates.items() if left < x < right and low < y < top}
        assert around == {p.name for p in f.node.plates}, f.name


@pytest.mark.parametrize("name", GRAPHS)
def test_no_circles_touch_and_no_arrow_goes_through_one(name):
    _, _, structure = cases(name)
    plan = arrange(structure)
    for a, b in itertools.combinations(plan.centres.values(), 2):
        assert np.linalg.norm(a - b) > 2 * RADIUS
    for arrow in plan.arrows:
        curve = arrow.at(np.linspace(0, 1, 101))
        for other, centre in plan.centres.items():
            away = np.linalg.norm(curve - centre, axis=1).min()
            assert away > (FACTOR_RADIUS if other in (arrow.source, arrow.target) else RADIUS), (arrow, other)


def test_shapes_and_colours():
    vae, x = GRAPHS["everything"]()
    patches = {p.get_gid(): p for p in pv.plots.graph(vae, x).axes[0].patches}
    assert type(patches["site penalty"]).__name__ == "Rectangle"
    assert patches["site x"].get_facecolor() != patches["site theta"].get_facecolor()
    assert patches["p: mu -> theta"].get_linestyle() == "-"
    assert patches["q: y -> theta"].get_linestyle() != "-"
    vae, x = GRAPHS["clusters"]()
    patches = {p.get_gid(): p for p in pv.plots.graph(vae, x).axes[0].patches}
    assert type(patches["site c"]).__name__ == "Polygon"
    assert type(patches["site z"]).__name__ == "Circle"


def test_plates_are_named_with_their_sizes_and_the_guide_only_where_there_is_one():
    def texts(name):
        return {t.get_text() for t in pv.plots.graph(*GRAPHS[name]()).axes[0].texts}

    assert {"data 1,000", "words 3", "topics 5", r"$\theta$", "penalty", "guide q"} <= texts("everything")
    assert {"rows 3", "columns 4", "log\nscale", "model p"} <= texts("crossed")
    assert "guide q" not in texts("crossed")
    assert "data" in texts("a VAE")


def test_a_guide_that_reads_all_of_many_says_so_in_words():
    figure = pv.plots.graph(*GRAPHS["a derived chain"]())
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert "the guide of $z_7$, …, $z_0$ reads all that is observed" in texts
    assert sum(str(p.get_gid()).startswith("q: ") for p in figure.axes[0].patches) == 7  # z_{t+1} -> z_t


def test_time_goes_from_left_to_right():
    plan = arrange(cases("a chain")[2])
    for t in range(8):
        assert plan.centres[f"z_{t}"][0] == plan.centres[f"x_{t}"][0]
        assert plan.centres[f"z_{t}"][1] > plan.centres[f"x_{t}"][1]
        assert t == 0 or plan.centres[f"z_{t}"][0] > plan.centres[f"z_{t - 1}"][0]


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"graph expects something with \.model"):
        pv.plots.graph(torch.nn.Linear(2, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="graph expects data as a tensor"):
        pv.plots.graph(GRAPHS["a VAE"]()[0], [1.0])


def test_pyplot_is_left_alone():
    code = (
        "import sys, torch, pyrovae as pv; x = torch.rand(9, 4).round(); "
        "pv.plots.graph(pv.models.VAE.build(x, latent=2, hidden=[3]), x); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
