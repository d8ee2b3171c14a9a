"""Descriptions: the factorisation, the sites and the counts, as they are printed."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from graphs import GRAPHS, Tied

import pyrovae as pv
from pyrovae.program.structure import read_structure

TEXTS = {
    "a VAE": """
p(x, z) = p(z) p(x | z)     158 parameters
q(z | x) = q(z | x)         154 parameters

site   in p        in q     values   shape       plates   role
z      Normal      Normal   ℝ        [2]         data     latent
x      Bernoulli            {0, 1}   [1, 5, 4]   data     observed
""",
    "two latents": """
p(x, z1, z2) = p(z2) p(z1 | z2) p(x | z1)     4 parameters
q(z1, z2 | x) = q(z1 | x) q(z2 | z1)          4 parameters

site   in p     in q     values   shape   plates   role
z2     Normal   Normal   ℝ        [1]     data     latent
z1     Normal   Normal   ℝ        [1]     data     latent
x      Normal            ℝ        [1]     data     observed
""",
    "two latents, downwards": """
p(x, z1, z2) = p(z2) p(z1 | z2) p(x | z1)     4 parameters
q(z1, z2 | x) = q(z2 | x) q(z1 | z2, x)       4 parameters

site   in p     in q     values   shape   plates   role
z2     Normal   Normal   ℝ        [1]     data     latent
z1     Normal   Normal   ℝ        [1]     data     latent
x      Normal            ℝ        [1]     data     observed
""",
    "a global latent": """
p(x, theta, z) = p(theta) Π_n p(z_n | theta) p(x_n | z_n)     0 parameters
q(theta, z | x) = q(theta) Π_n q(z_n | x_n)                   2 parameters

site    in p     in q     values   shape   plates          role
theta   Normal   Normal   ℝ        []                      global latent
z       Normal   Normal   ℝ        []      n: data 1,000   latent
x       Normal            ℝ        []      n: data 1,000   observed
""",
    "clusters": """
p(x, z, w) = Σ_c p(c) p(z | c) Π_t p(w_t | z) p(x_t | w_t)      8 parameters
q(z, w | x) = q(z | x) Π_t q(w_t | z, x_t)                     10 parameters

site   in p          in q     values   shape   plates            role
c      Categorical            0..2     []      data              summed over
z      Normal        Normal   ℝ        []      data              latent
w      Normal        Normal   ℝ        []      data, t: time 4   latent
x      Normal                 ℝ        []      data, t: time 4   observed
""",
    "a chain": """
p(x_0, …, x_7, z_0, …, z_7) = p(z_0) p(x_0 | z_0) Π_{t=1..7} p(z_t | z_{t-1}) p(x_t | z_t)     1 parameter
q(z_0, …, z_7 | x_0, …, x_7) = q(z_0 | x_0) Π_{t=1..7} q(z_t | z_{t-1}, x_t)                   6 parameters

site        in p     in q     values   shape   plates   role
z_0 … z_7   Normal   Normal   ℝ        []      data     latent
x_0 … x_7   Normal            ℝ        []      data     observed
""",
    "a long chain": """
p(x_0, …, x_11, z_0, …, z_11) = p(z_0) p(x_0 | z_0) Π_{t=1..11} p(z_t | z_{t-1}) p(x_t | z_t)     1 parameter
q(z_0, …, z_11 | x_0, …, x_11) = q(z_0 | x_0) Π_{t=1..11} q(z_t | z_{t-1}, x_t)                   6 parameters

site         in p     in q     values   shape   plates   role
z_0 … z_11   Normal   Normal   ℝ        []      data     latent
x_0 … x_11   Normal            ℝ        []      data     observed
""",
    "labels": """
p(y, x, z | data) = p(y) p(z | data) p(x | z, y)     16 parameters
q(z | y, x) = q(z | y, x)                            12 parameters

site   in p     in q     values   shape   plates   role
y      Normal            ℝ        []      data     observed
z      Normal   Normal   ℝ        [2]     data     latent
x      Normal            ℝ        [4]     data     observed

data: the argument of the program, read beside what its observed sites say
""",
    "everything": """
p(y, x, mu, sigma, beta, theta, a) = p(mu) p(sigma) Π_t p(beta_t | mu) Π_n p(theta_n | mu)
            p(y_n | theta_n) Π_w [p(a_nw | sigma, theta_n) p(x_nw | beta, a_nw)] penalty(theta_n)
q(mu, sigma, beta, theta, a | y, x) = q(mu) q(sigma) Π_t q(beta_t) Π_n q(theta_n | y_n, x_n)
            Π_w q(a_nw | theta_n, x_nw)

site      in p          in q        values   shape   plates                      role
mu        Normal        Normal      ℝ        []                                  global latent
sigma     LogNormal     LogNormal   (0, ∞)   []                                  global latent
beta      Normal        Normal      ℝ        []      t: topics 5                 global latent
theta     Normal        Normal      ℝ        []      n: data 1,000               latent
y         Normal                    ℝ        []      n: data 1,000               observed
a         Normal        Normal      ℝ        []      n: data 1,000, w: words 3   latent
x         Normal                    ℝ        []      n: data 1,000, w: words 3   observed
penalty   pyro.factor                                n: data 1,000               factor
""",
    "tied": """
p(x, z) = p(z) p(x | z, x_<)     20 parameters
q(z | x) = q(z | x)              20 parameters

site   in p     in q     values   shape   plates   role
z      Normal   Normal   ℝ        [4]     data     latent
x      Normal            ℝ        [4]     data     observed

20 parameters are shared by p and q
6 parameters are of neither
4 parameters are frozen, 22 trained
x_<: the distribution of x is computed from x itself, as in an autoregressive model
""",
    "crossed": """
p(x, log_scale, topic_weights) = Π_r p(log_scale[r]) Π_c p(topic_weights[c])
            Π_r Π_c p(x_rc | log_scale[r], topic_weights[c])

site            in p     values   shape   plates                    role
log_scale       Normal   ℝ        []      r: rows 3                 latent
topic_weights   Normal   ℝ        []      c: columns 4              latent
x               Normal   ℝ        []      r: rows 3, c: columns 4   observed
""",
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_printed(name):
    assert str(pv.describe(*GRAPHS[name]())) == TEXTS[name].strip()


LATEX = {
    "two latents": [
        r"p_\theta(x, z_1, z_2) &= p(z_2)\, p_\theta(z_1 \mid z_2)\, p_\theta(x \mid z_1)",
        r"q_\phi(z_1, z_2 \mid x) &= q_\phi(z_1 \mid x)\, q_\phi(z_2 \mid z_1)",
    ],
    "a global latent": [  # a site has the name of the parameters
        r"p(x, \theta, z) &= p(\theta)\, \prod_{n} p(z_n \mid \theta)\, p(x_n \mid z_n)",
        r"q(\theta, z \mid x) &= q(\theta)\, \prod_{n} q(z_n \mid x_n)",
    ],
    "crossed": [
        r"p(x, \mathrm{log}_{\mathrm{scale}}, \mathrm{topic}_{\mathrm{weights}}) &= "
        r"\prod_{r} p(\mathrm{log}_{\mathrm{scale},r})\, \prod_{c} p(\mathrm{topic}_{\mathrm{weights},c})\, "
        r"\prod_{r} \prod_{c} p(x_{rc} \mid \mathrm{log}_{\mathrm{scale},r}, \mathrm{topic}_{\mathrm{weights},c})",
    ],
    "clusters": [
        r"p_\theta(x, z, w) &= \sum_{c} p_\theta(c)\, p_\theta(z \mid c)\, \prod_{t} p(w_t \mid z)\, "
        r"p_\theta(x_t \mid w_t)",
        r"q_\phi(z, w \mid x) &= q_\phi(z \mid x)\, \prod_{t} q(w_t \mid z, x_t)",
    ],
}


@pytest.mark.parametrize("name", LATEX)
def test_latex(name):
    d = pv.describe(*GRAPHS[name]())
    inside = " \\\\\n".join(LATEX[name])
    assert d.latex == f"\\begin{{aligned}}\n{inside}\n\\end{{aligned}}"
    assert d._repr_latex_() == f"$$\n{d.latex}\n$$"
    assert repr(d) == str(d) == d.text


@pytest.mark.parametrize("name", GRAPHS)
def test_matplotlib_can_set_every_line_of_the_latex(name):
    from matplotlib.mathtext import MathTextParser

    lines = pv.describe(*GRAPHS[name]()).latex.split("\n")[1:-1]
    for line in lines:
        text = line.removesuffix(" \\\\").replace("&= ", "= ").replace(r"&\quad ", "")
        MathTextParser("path").parse(f"${text}$")


def test_frozen_parameters_are_counted_and_stay_frozen():
    vae, x = Tied(), torch.randn(5, 4)
    structure = read_structure(vae, x, "test")
    sizes = [p.numel() for p in structure.parameters]
    assert [sum(sizes[i] for i in f.parameters) for f in structure.p] == [0, 20]
    assert [p.requires_grad for p in vae.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in vae.parameters())


def test_random_numbers_mode_and_param_store_are_left_alone():
    vae, x = GRAPHS["a VAE"]()
    vae.train()
    before = torch.get_rng_state()
    pv.describe(vae, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert vae.training
    assert not len(pyro.get_param_store())


def test_plain_functions_whose_parameters_come_into_being():
    net = nn.Linear(1, 1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1.0))

    text = str(pv.describe(pv.Program(model, guide), torch.randn(9)))
    assert text.splitlines()[:2] == [
        "p(x, z) = p(z) p(x | z)     1 parameter",
        "q(z | x) = q(z | x)         2 parameters",
    ]


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (dist.Poisson(1.0), "0, 1, 2, …"),
        (dist.Binomial(16, torch.tensor(0.5)), "0..16"),
        (dist.Binomial(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(0.5)), "0..n"),
        (dist.Beta(1.0, 1.0), "[0, 1]"),
        (dist.Uniform(-1.0, 2.0), "[-1, 2]"),
        (dist.Pareto(2.0, 1.0), "(2, ∞)"),
        (dist.Dirichlet(torch.ones(3)), "simplex"),
        (dist.OneHotCategorical(torch.ones(3)), "one-hot"),
        (dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), "ℝ"),
        (dist.LKJCholesky(2, 1.0), "corr cholesky"),
    ],
)
def test_values(distribution, values):
    class One:
        def model(self, x):
            with pyro.plate("data", 3):
                pyro.sample("x", distribution, obs=distribution.expand([3]).sample())

    row = str(pv.describe(One(), torch.zeros(3))).splitlines()[-1]
    assert values in row


def test_several_sites_that_are_summed_over():
    class Two:
        def model(self, x):
            with pyro.plate("data", len(x)):
                marked = {"enumerate": "parallel"}
                a = pyro.sample("a", dist.Bernoulli(0.5), infer=marked)
                b = pyro.sample("b", dist.Bernoulli(0.5), infer=marked)
                pyro.sample("x", dist.Normal(a + math.pi * b, 1.0), obs=x)

    assert str(pv.describe(Two(), torch.zeros(4))).splitlines()[0] == "p(x) = Σ_{a, b} p(a) p(b) p(x | a, b)"


def test_wrong_input_is_named():
    vae, x = GRAPHS["a VAE"]()
    with pytest.raises(ValueError, match=r"describe expects something with \.model\(x\).*got Linear; wrap"):
        pv.describe(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match=r"describe expects data as a tensor.*got ndarray; give"):
        pv.describe(vae, x.numpy())
    with pytest.raises(ValueError, match=r"got shape \[0, 1, 5, 4\]; give"):
        pv.describe(vae, x[:0])
