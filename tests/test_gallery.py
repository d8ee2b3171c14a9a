"""Every model of the gallery: small ones through every room, and the commands of its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import F64, check_device, check_trace, gradients
from torch import Tensor

import pyrovae as pv
from benchmarks.gallery import __main__ as gallery
from benchmarks.gallery.entries import ENTRIES
from pyrovae.cli import main
from pyrovae.config import construct, describe
from pyrovae.objectives import ELBO, Objective
from pyrovae.program.run import Layout, _layout

Small = tuple[Callable[[], nn.Module], Callable[[], Tensor], Callable[[], Objective]]


def counts(n: int = 5, *event: int) -> Tensor:
    """Digits of so small a size."""
    return torch.randint(0, 17, (n, *(event or (1, 2, 3)))).double()


def binary(n: int = 5, *event: int) -> Tensor:
    """Images of zeros and ones."""
    return torch.bernoulli(torch.full((n, *(event or (1, 2, 3))), 0.5, dtype=F64))


def data_of(x: Tensor, **options: Any) -> pv.data.Dataset:
    """A data set of these alone."""
    return pv.data.from_arrays(x, validation_size=0, **options)


def labelled(told: bool | int) -> pv.data.Dataset:
    """Small images of three classes; of some the label is told."""
    return data_of(binary(6), labels=torch.arange(6) % 3, labelled=told)


def layers(posterior: str) -> nn.Module:
    """Three layers of latents."""
    build = pv.models.HierarchicalVAE.build
    return build(data_of(binary()), latents=[3, 2, 2], hidden=[6], between=[5], posterior=posterior)


def clusters(equal: bool) -> nn.Module:
    """Three clusters."""
    build = pv.models.GaussianMixtureVAE.build
    return build(data_of(binary()), clusters=3, latent=2, equal=equal, hidden=[6])


def choices(categories: int = 2, temperature: float | None = None) -> nn.Module:
    """Latents of a few values."""
    build = pv.models.DiscreteVAE.build
    return build(data_of(binary()), latent=3, categories=categories, hidden=[6], temperature=temperature)


def ragged() -> Tensor:
    """Series of 1 to 4 steps."""
    lasts = torch.arange(4) <= torch.arange(5)[:, None]
    return torch.randn(5, 4, 2).where(lasts[..., None], torch.nan)


# A line here buys every test of this file that takes a name: how a small model is built, data for it, an objective.
MODELS: dict[str, Small] = {
    "BayesianDecoderVAE": (
        lambda: pv.models.BayesianDecoderVAE.build(data_of(binary()), latent=2, hidden=[6]),
        binary,
        ELBO,
    ),
    "ConditionalVAE": (
        lambda: pv.models.ConditionalVAE.build(labelled(True), latent=2, hidden=[6]),
        lambda: labelled(True).train.double(),
        ELBO,
    ),
    **{
        f"MultimodalVAE {experts}": (
            lambda experts=experts: pv.models.MultimodalVAE.build(data_of(counts(5, 1, 4, 2)), 2, [6], experts=experts),
            lambda: torch.cat([counts(3, 1, 4, 2), F.pad(counts(2, 1, 2, 2), (0, 0, 0, 2), value=torch.nan)]),
            ELBO,
        )
        for experts in ("product", "mixture", "mixture_of_products")
    },
    "SemiSupervisedVAE": (
        lambda: pv.models.SemiSupervisedVAE.build(labelled(3), latent=2, hidden=[6]),
        lambda: labelled(3).train.double(),
        ELBO,
    ),
    "SequentialVAE": (
        lambda: pv.models.SequentialVAE.build(data_of(ragged(), missing=True), latent=2, hidden=6),
        lambda: ragged().double(),
        ELBO,
    ),
    "TopicModel": (lambda: pv.models.TopicModel.build(data_of(counts()), 3, [6]), counts, ELBO),
    "TopicModel mixture": (lambda: pv.models.TopicModel.build(data_of(counts()), 3, [6], mixture=True), counts, ELBO),
    "CountVAE": (lambda: pv.models.CountVAE.build(data_of(counts()), 2, [7, 6]), counts, ELBO),
    "VAE": (lambda: pv.models.VAE.build(data_of(binary()), latent=2, hidden=[6]), binary, ELBO),
    "Autoencoder": (lambda: pv.models.Autoencoder.build(data_of(counts()), 2, [6]), counts, ELBO),
    "DenoisingAutoencoder": (lambda: pv.models.DenoisingAutoencoder.build(data_of(counts()), 2, [6]), counts, ELBO),
    "DenoisingAutoencoder masking": (
        lambda: pv.models.DenoisingAutoencoder.build(data_of(counts()), 2, [6], corruption="masking"),
        counts,
        ELBO,
    ),
    "ContractiveAutoencoder": (lambda: pv.models.ContractiveAutoencoder.build(data_of(counts()), 2, [6]), counts, ELBO),
    "ContractiveAutoencoder probes": (
        lambda: pv.models.ContractiveAutoencoder.build(data_of(counts()), 2, [6], probes=2),
        counts,
        ELBO,
    ),
    "HierarchicalVAE": (lambda: layers("ladder"), binary, ELBO),
    "HierarchicalVAE bottom-up": (lambda: layers("bottom_up"), binary, ELBO),
    "GaussianMixtureVAE": (lambda: clusters(equal=True), binary, ELBO),
    "GaussianMixtureVAE all learned": (lambda: clusters(equal=False), binary, ELBO),
    "DiscreteVAE": (lambda: choices(temperature=0.5), binary, ELBO),
    "DiscreteVAE of three values": (lambda: choices(3, temperature=0.5), binary, ELBO),
}


def small(name: str) -> tuple[nn.Module, Tensor, Objective]:
    torch.manual_seed(0)
    build, data, objective = MODELS[name]
    return build().double(), data(), objective()


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def test_every_model_is_here():
    here = {name.partition(" ")[0] for name in MODELS}
    assert here == set(pv.models.__all__) - {"EnumerableVAE", "LinearGaussian"}  # tests/test_models.py has those


def test_particles_are_those_of_one_particle_each(name):
    vae, x, _ = small(name)
    vae.eval()  # the noise of a training is another one in each run
    d, alone = pv.densities(vae, x, 3), pv.densities(vae, x)
    layout = _layout(vae, x)
    assert layout == Layout(layout.nesting)  # nothing is folded: all of it keeps leading dimensions
    for k in range(3):
        given = {n: s.value[k].reshape(alone.posterior[n].value.shape) for n, s in d.posterior.items()}
        one = pv.densities(vae, x, given=given)
        torch.testing.assert_close(one.log_weight[0], d.log_weight[k])


def test_every_parameter_is_trained(name):
    vae, x, objective = small(name)
    found = {n: torch.zeros_like(p) for n, p in vae.named_parameters()}
    for _ in range(5):  # a relu may be off in one draw
        for n, g in gradients(vae, -objective(vae, x).surrogate.mean()).items():
            assert torch.isfinite(g).all(), n
            found[n] += g.abs()
    assert not [n for n, g in found.items() if g.max() == 0]


def test_a_step_is_captured(name):
    vae, x, objective = small(name)
    check_trace(vae, objective, x)


def test_it_stays_where_it_is(name):
    vae, x, _ = small(name)
    spec = describe(vae)  # built from its own config there, as a build from data reads values

    def there() -> nn.Module:
        model = construct(spec)
        # autograd asks the driver for a stream, and this one takes derivatives in its forward pass
        forward = "Contractive" not in name or torch.cuda.is_available()
        return model.train(forward)

    check_device(there, MODELS[name][2], lambda dtype: torch.zeros(x.shape, dtype=dtype))


def test_it_is_saved_and_loaded(name, tmp_path):
    vae, x, _ = small(name)
    pv.save(vae.float(), tmp_path)
    again = pv.load(tmp_path)
    assert type(again) is type(vae)
    for model in (vae, again):
        model.eval()
    torch.manual_seed(1)
    a = pv.densities(vae, x.float()).log_weight
    torch.manual_seed(1)
    assert torch.equal(pv.densities(again, x.float()).log_weight, a)


def test_nothing_is_found_in_it(name):
    vae, x, _ = small(name)
    assert pv.check(vae, x) == []


def test_it_can_be_described(name):
    vae, x, _ = small(name)
    assert "p(" in str(pv.describe(vae, x))


# The commands of the gallery


def test_every_model_has_its_command():
    assert {e.model for e in ENTRIES.values()} == set(pv.models.__all__) - {"EnumerableVAE"}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_command_of_the_gallery_beats_its_baseline(entry, tmp_path, capsys):
    told = ENTRIES[entry]
    run = str(tmp_path / "run")
    words = [*told.train(told.short), "--test_particles", "100", "--run_dir", run]
    assert main(words) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    reached, baseline = metrics["test"][told.figure], told.baseline(told.data())
    assert reached < baseline if told.figure == "squared_error" else reached > baseline


def test_the_page_has_what_was_measured():
    figures = json.loads(gallery.FIGURES.read_text())
    assert set(figures) == set(ENTRIES)
    page = (gallery.DOCS / "models.md").read_text(encoding="utf-8")
    assert gallery.written(page, figures) == page
    for name, entry in ENTRIES.items():
        better = 1 if entry.figure == "log_evidence" else -1
        assert better * figures[name]["reached"] > better * figures[name]["baseline"], name
        assert gallery.picture_of(name).is_file()


def test_an_unknown_entry_of_the_gallery(capsys):
    assert gallery.run(["VAEE"]) == 2
    assert "no entry 'VAEE'; known: VAE, " in capsys.readouterr().err
