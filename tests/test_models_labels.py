"""Labels that are given, told for some, or nobody's: conditional, semi-supervised, and under masks in general."""

from __future__ import annotations

import math
import types

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import F64, z_test
from pyro import poutine

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.models import ConditionalVAE, SemiSupervisedVAE
from pyrovae.objectives import ELBO, IWAE

MARK = {"enumerate": "parallel"}
SHARE, LOC = torch.tensor([0.2, 0.5, 0.3], dtype=F64), torch.tensor([-1.0, 0.0, 2.0], dtype=F64)


# Sites under a mask that are summed over


class Told:
    """y ~ Categorical, x ~ 𝒩(m_y, 1), y observed where x[:, 0] is no NaN; q(y | x) as the model has it."""

    def __init__(self, share=SHARE, guide=True, exact=True):
        self.share, self.marked, self.exact = share, guide, exact
        self.takes_missing = True

    def parts(self, x):
        return x[:, 0].nan_to_num(), ~x[:, 0].isnan(), x[:, 1]

    def log_joint(self, x):
        return self.share.log() + dist.Normal(LOC, 1.0).log_prob(x[:, 1:])  # [B, 3]

    def model(self, x):
        y, known, value = self.parts(x)
        with pyro.plate("data", len(x), dim=-1):
            if self.marked:
                y = pyro.sample("y", dist.Categorical(self.share), obs=y, obs_mask=known)
            else:  # the model alone has the site
                with poutine.mask(mask=known):
                    pyro.sample("told", dist.Categorical(self.share), obs=y)
                with poutine.mask(mask=~known):
                    drawn = pyro.sample("y", dist.Categorical(self.share), infer=MARK)
                y = torch.where(known, y, drawn.to(y.dtype))
            pyro.sample("x", dist.Normal(LOC[y.long()], 1.0), obs=value)

    def guide(self, x):
        if self.marked:
            logits = self.log_joint(x) if self.exact else torch.zeros(len(x), 3, dtype=F64)
            with pyro.plate("data", len(x), dim=-1), poutine.mask(mask=~self.parts(x)[1]):
                pyro.sample("y_unobserved", dist.Categorical(logits=logits), infer=MARK)

    def log_evidence(self, x):
        """log p(x, y) where y is told, else log p(x)."""
        y, known, _ = self.parts(x)
        joint = self.log_joint(x)
        return torch.where(known, joint.gather(1, y.long()[:, None])[:, 0], joint.logsumexp(1))


def told():
    x = torch.randn(6, 2, dtype=F64)
    x[:, 0] = torch.tensor([0, 1, 2, math.nan, math.nan, math.nan], dtype=F64)
    return x


@pytest.mark.parametrize("objective", [ELBO(), ELBO(3), IWAE(2)])
@pytest.mark.parametrize("guide", [True, False], ids=["of the guide", "of the model alone"])
def test_a_site_that_is_summed_over_counts_once_under_a_mask(objective, guide):
    vae, x = Told(guide=guide), told()
    if not guide:
        vae.guide = lambda x: None
    torch.testing.assert_close(objective(vae, x).bound, vae.log_evidence(x))


def test_a_bound_on_what_is_told_and_what_is_not():
    vae, x = Told(exact=False), told()
    log_w, fair = vae.log_joint(x), math.log(1 / 3)
    elbo = torch.where(x[:, 0].isnan(), (log_w - fair).mean(1), vae.log_evidence(x))
    torch.testing.assert_close(ELBO(2)(vae, x).bound, elbo)
    torch.testing.assert_close(IWAE(2)(vae, x).bound, vae.log_evidence(x))  # a sum over y is exact, whatever q


def test_draws_under_a_mask_count_once_as_well():
    vae, x = Told(exact=False), told()
    torch.manual_seed(0)
    weights = pv.densities(vae, x, 20_000).log_weight.exp()
    z_test(weights, vae.log_evidence(x).exp())


def test_a_mask_in_model_or_guide_alone_is_refused():
    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y_unobserved", dist.Categorical(SHARE), infer=MARK)

    vae = Told()
    with pytest.raises(ValueError, match=r"discrete site 'y_unobserved' is under a mask in the model that the other"):
        ELBO()(types.SimpleNamespace(model=vae.model, guide=guide, takes_missing=True), told())


# Conditional


def labelled(told=True, n=12, classes=3):
    x = torch.bernoulli(torch.full((n, 1, 2, 2), 0.5))
    return pv.data.from_arrays(x, labels=torch.arange(n) % classes, validation_size=0, labelled=told)


def parts_of(vae, x):
    return torch.nn.functional.one_hot(x[:, 0].long(), 3).to(x.dtype), x[:, 1:].unflatten(1, (1, 2, 2))


def test_conditional_densities_are_those_written_out():
    data = labelled()
    vae, x = ConditionalVAE.build(data, latent=2, hidden=[5]).double(), data.train.double()
    d = pv.densities(vae, x, 4)
    y, image = parts_of(vae, x)
    z = d.posterior["z"].value
    both = torch.cat([z, y.expand(4, -1, -1)], -1)
    q = vae.posterior(torch.cat([vae.features(image), y], -1))
    torch.testing.assert_close(d.log_likelihood, vae.likelihood(both).log_prob(image))
    torch.testing.assert_close(d.log_posterior, q.log_prob(z))
    torch.testing.assert_close(d.log_prior, vae.prior().log_prob(z))


def test_a_decoder_begins_at_the_mean_of_the_data():
    data = labelled(n=200)
    vae = ConditionalVAE.build(data, latent=2, hidden=[5])
    last = [m for m in vae.likelihood.modules() if isinstance(m, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    torch.testing.assert_close(vae.likelihood(torch.zeros(5)).mean.flatten(), data.train[:, 1:].float().mean(0))


def test_a_class_is_made_where_it_is_asked_for():
    torch.manual_seed(0)
    y = torch.arange(300) % 3
    images = torch.nn.functional.one_hot(y, 3).float().repeat_interleave(2, 1).view(-1, 1, 2, 3)
    data = pv.data.from_arrays(images, labels=y, validation_size=0, labelled=True)
    vae = pv.fit(ConditionalVAE.build(data, 2, [8]), data, epochs=30, learning_rate=0.03, progress=False).model
    like = torch.zeros(3, 7)
    like[:, 0] = torch.arange(3)
    made = pv.generate(vae, 3, mean=True, like=like)
    assert torch.equal(made.round(), images[:3])
    assert torch.equal(pv.decode(vae, torch.zeros(3, 2), like=like).round(), images[:3])  # one style, every class


def test_the_command_generates_of_all_classes(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = ["ConditionalVAE", "--data", "digits", "--labelled", "true", "--hidden", "[8]", "--epochs", "1"]
    assert main(["train", *words, "--test_particles", "2", "--run_dir", run]) == 0
    assert main(["generate", run, "--n", "12", "--seed", "3"]) == 0
    made = torch.from_numpy(np.load(tmp_path / "run" / "generated.npy"))
    x = pv.data.load("digits", labelled=True).train
    assert len(x[:12, 0].unique()) > 4
    assert torch.equal(made, pv.generate(pv.load(run), 12, seed=3, like=x))


def test_a_label_that_is_given_is_no_dimension():
    data = pv.data.load("digits", labelled=True)
    vae = ConditionalVAE.build(data, latent=2, likelihood="Categorical")
    assert pv.evaluate(vae, data.test[:9], particles=3).dimensions == 64


# Semi-supervised


def test_the_bound_is_that_of_the_paper():
    """L(x, y) where y is told; Σ_y q(y | x) (L(x, y) − log q(y | x)) where it is not, L with one draw of z for each."""
    data = labelled(6)
    vae, x = SemiSupervisedVAE.build(data, latent=2, hidden=[5]).double().eval(), data.train.double()
    with torch.no_grad():
        vae.share.normal_()
    d = pv.densities(vae, x, exact=True)  # rows: one for each y
    z, image = d.posterior["z"].value, x[:, 1:].unflatten(1, (1, 2, 2))
    known = ~x[:, 0].isnan()
    log_q = vae.classifier(image).log_softmax(-1)
    bound = 0
    for y in range(3):
        told = torch.where(known, x[:, 0].nan_to_num(), float(y)).long()
        one = torch.nn.functional.one_hot(told, 3).double()
        joint = vae.share.log_softmax(-1)[told] + vae.prior().log_prob(z[y])
        joint = joint + vae.likelihood(torch.cat([z[y], one], -1)).log_prob(image)
        part = joint - vae.posterior(torch.cat([vae.features(image), one], -1)).log_prob(z[y])
        bound = bound + torch.where(known, part / 3, log_q[:, y].exp() * (part - log_q[:, y]))
    torch.testing.assert_close(d.mean(d.log_weight), bound)


def test_the_classifier_has_its_term_while_training_alone():
    data = labelled(6)
    vae, x = SemiSupervisedVAE.build(data, latent=2, hidden=[5], alpha=3.0).double(), data.train.double()
    bounds = []
    for mode in (vae.train, vae.eval):
        mode()
        torch.manual_seed(0)
        bounds.append(ELBO()(vae, x).bound)
    told = x[~x[:, 0].isnan()]
    log_q = vae.classify(told).log().gather(1, told[:, :1].long()).sum()
    torch.testing.assert_close(bounds[0] - bounds[1], (3.0 * log_q).detach().expand(12))


def test_many_labelled_data_are_stood_for_by_some():
    data = labelled(900, n=900)
    vae = SemiSupervisedVAE.build(data, latent=2, hidden=[5]).double()
    assert vae.told.shape == (900, 5)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack([vae.log_classified() for _ in range(400)])[:, None]
        log_q = vae.classify(data.train.double()).log().gather(1, data.train[:, :1].long())
    z_test(draws, log_q.mean(0))


def test_the_evidence_of_what_is_told_is_below_that_of_what_is_not():
    """log p(x, y) = log p(x) + log p(y | x) < log p(x), by draws."""
    data = labelled(6)
    vae = SemiSupervisedVAE.build(data, latent=2, hidden=[5])
    x = labelled().train
    other = x.clone()
    other[:, 0] = torch.nan
    joint, alone = (pv.evaluate(vae, t, particles=5000) for t in (x, other))
    assert (joint.log_evidence < alone.log_evidence).all()
    classes = []
    for y in range(3):
        x[:, 0] = y
        classes.append(pv.evaluate(vae, x, particles=5000, seed=y))
    total = torch.stack([c.log_evidence for c in classes]).logsumexp(0)
    error = torch.stack([alone.standard_error, *(c.standard_error for c in classes)]).norm(dim=0)
    assert ((total - alone.log_evidence).abs() < 6 * error).all()  # 2e-8 for twelve normal errors


@pytest.mark.parametrize("model", [ConditionalVAE, SemiSupervisedVAE])
def test_labels_have_to_be_there(model):
    with pytest.raises(ValueError, match=r"expects data that begin with their label, got 'digits' without; load them"):
        model.build(pv.data.load("digits"))
    vae, x = model.build(labelled(), latent=2), labelled().train
    x[0, 0] = 7
    with pytest.raises(ValueError, match=r"expects x to begin with a label from 0 to 2, or NaN, got 0 to 7"):
        ELBO()(vae, x)


def test_a_model_without_labels_refuses_them():
    with pytest.raises(ValueError, match=r"VAE.build reads no labels, got 'arrays' with labelled=True"):
        pv.models.VAE.build(labelled())


def test_a_condition_has_to_be_told():
    with pytest.raises(ValueError, match="expects finite numbers"):
        ELBO()(ConditionalVAE.build(labelled(), latent=2), labelled(6).train)
