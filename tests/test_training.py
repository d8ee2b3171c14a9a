"""The training loop: what it promises about seeds, interruptions, failures and the folder it leaves."""

import copy
import os
import re
import signal
import subprocess
import sys
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn as nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae.objectives import ELBO, IWAE, BetaELBO
from pyrovae.training import RunFolder
from pyrovae.training.adam import FusedAdam
from pyrovae.training.fit import NonFiniteBound
from pyrovae.training.schedules import SCHEDULES
from pyrovae.training.settings import find_device, machine


def build(data, seed=0, **options):
    torch.manual_seed(seed)
    return pv.models.VAE.build(data, **({"latent": 3, "hidden": [16]} | options))


@pytest.fixture(scope="module")
def data():
    return pv.data.load("digits")


def train(data, vae=None, **options):
    vae = build(data) if vae is None else vae
    return pv.fit(vae, data, **({"epochs": 3, "batch_size": 300, "progress": False} | options))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Interrupting(ELBO):
    """Ctrl-C in the middle of a chosen call."""

    def __init__(self, call):
        super().__init__(kl="analytic")
        self.calls, self.last = 0, call

    def forward(self, vae, x):
        if torch.is_grad_enabled() and vae.training:
            self.calls += 1
            if self.calls == self.last:
                raise KeyboardInterrupt
        return super().forward(vae, x)


def test_one_seed_gives_one_run_and_leaves_the_callers_stream_alone(data):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    vae = build(data)
    torch.set_rng_state(before)
    a = train(data, vae)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(a.model, train(data).model)
    assert not same(a.model, train(data, seed=1).model)


def test_training_raises_the_bound_and_keeps_one_row_an_epoch(data):
    run = train(data, epochs=5)
    assert list(run.history.columns) == ["epoch", "bound", "validation", "learning_rate", "seconds"]
    assert list(run.history["epoch"]) == [1, 2, 3, 4, 5]
    assert run.history["bound"].iloc[-1] > run.history["bound"].iloc[0] + 50
    assert not run.model.training
    assert not run.interrupted


@pytest.mark.parametrize("objective", [ELBO(), BetaELBO(0.5, warmup=2), IWAE(2)], ids=lambda o: type(o).__name__)
def test_a_run_interrupted_and_resumed_is_bit_equal_to_one_that_was_not(data, tmp_path, objective, monkeypatch):
    whole = train(data, objective=objective.__class__(**_options(objective)), run_dir=tmp_path / "whole", epochs=4)
    calls = iter(range(10**6))
    step = FusedAdam.step

    def stop(self, *args, **kwargs):
        if next(calls) == 13:  # five steps an epoch: in the third epoch
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(FusedAdam, "step", stop)
        cut = train(data, objective=objective.__class__(**_options(objective)), run_dir=tmp_path / "cut", epochs=4)
    assert cut.interrupted
    assert [r["epoch"] for r in cut.rows] == [1, 2]
    other = build(data, seed=5)  # the weights come from the folder, not from what is given
    again = objective.__class__(**_options(objective))
    resumed = train(data, other, objective=again, run_dir=tmp_path / "cut", epochs=4, resume=True)
    assert same(whole.model, resumed.model)
    assert [r["bound"] for r in whole.rows] == [r["bound"] for r in resumed.rows]
    assert [r.get("validation") for r in whole.rows] == [r.get("validation") for r in resumed.rows]


def _options(objective):
    return {k: getattr(objective, k) for k in ("beta", "warmup", "particles") if hasattr(objective, k)}


def test_ctrl_c_leaves_the_last_finished_epoch_in_a_usable_folder(data, tmp_path):
    two = train(data, epochs=4, objective=ELBO(kl="analytic"), run_dir=tmp_path / "a")
    assert len(two.rows) == 4
    cut = train(data, epochs=4, objective=Interrupting(8), run_dir=tmp_path / "b")
    assert cut.interrupted
    assert len(cut.rows) == 1
    assert cut.rows[0]["bound"] == two.rows[0]["bound"]
    assert same(pv.load(tmp_path / "b"), cut.model)
    assert (tmp_path / "b" / "history.csv").read_text().count("\n") == 2


KILLED = """
import sys, torch, pyrovae as pv
torch.set_num_threads(1)
data = pv.data.load("digits")
torch.manual_seed(0)
vae = pv.models.VAE.build(data, latent=3, hidden=[16])
print("ready", flush=True)
pv.fit(vae, data, epochs=40, batch_size=300, progress=False, run_dir=sys.argv[1], resume=len(sys.argv) > 2)
"""


def test_a_run_killed_at_any_moment_resumes_bit_equal(data, tmp_path):
    whole = train(data, epochs=40)
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "r"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    while not (tmp_path / "r" / "state.pt").exists():
        time.sleep(0.005)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for file in (tmp_path / "r").iterdir():
        if file.name.startswith("."):
            continue  # what was being written beside the file it was to replace
        assert file.stat().st_size > 0
    assert type(pv.load(tmp_path / "r")).__name__ == "VAE"
    done = RunFolder(tmp_path / "r").read_state()["progress"]["rows"]
    resumed = train(data, build(data, seed=9), epochs=40, run_dir=tmp_path / "r", resume=True)
    assert 1 <= len(done) <= 40
    assert same(whole.model, resumed.model)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_config({"a": 1})
    with pytest.raises(yaml_error()):
        folder.write_config({"a": object()})
    assert folder.read_config() == {"a": 1}
    assert os.listdir(tmp_path) == ["config.yaml"]


def yaml_error():
    import yaml

    return yaml.YAMLError


def test_early_stopping_restores_the_best_weights(data):
    run = train(data, epochs=60, learning_rate=0.05, schedule="constant", patience=3)
    values = run.history["validation"]
    assert len(values) < 60
    assert run.best_epoch == values.idxmax() + 1 == len(values) - 3
    again = train(data, epochs=run.best_epoch, learning_rate=0.05, schedule="constant")
    assert same(run.model, again.model)


class Fragile(nn.Module):
    """log σ of the likelihood is a parameter that the test pushes over the edge."""

    def __init__(self, site):
        super().__init__()
        self.encoder = nn.Linear(64, 4)
        self.decoder = nn.Linear(2, 64)
        self.edge = nn.Parameter(torch.zeros(()))
        self.site, self.calls = site, 0

    def model(self, x):
        self.calls += self.training
        poison = torch.log(self.edge - 1) * 0 if self.calls > 10 and self.training else 0.0  # NaN, and so its gradient
        with pyro.plate("data", len(x)):
            loc = torch.zeros(2) + (poison if self.site == "z" else 0.0)
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            y = self.decoder(z) + (poison if self.site == "x" else 0.0)
            pyro.sample("x", dist.Normal(y, 1.0).to_event(1), obs=x.flatten(1))

    def guide(self, x):
        loc, log_scale = self.encoder(x.flatten(1)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


@pytest.mark.parametrize("site", ["z", "x"])
def test_a_nan_stops_training_names_epoch_and_site_and_keeps_the_last_good_weights(data, site, tmp_path):
    vae = Fragile(site)
    with pytest.raises(NonFiniteBound, match=rf"model site '{site}' became NaN or infinite in epoch 3"):
        train(data, vae, epochs=9, run_dir=tmp_path)
    assert all(torch.isfinite(p).all() for p in vae.parameters())
    with pytest.raises(ValueError, match="does not say how to rebuild"):  # the folder is whole; the class is ours
        pv.load(tmp_path)
    pv.load(tmp_path, into=Fragile(site))
    state = RunFolder(tmp_path).read_state()
    assert len(state["progress"]["rows"]) == 2
    assert all(torch.equal(v, vae.state_dict()[k]) for k, v in state["model"].items())


def test_an_exploding_run_is_noticed(data):
    with pytest.raises(NonFiniteBound, match=r"in epoch \d+, step \d+.*[Ll]ower the learning rate"):
        train(data, learning_rate=1e4, schedule="constant", epochs=20)


class ReadBacks(TorchDispatchMode):
    """Counts values read back from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_reads_a_value_back(data, monkeypatch):
    monkeypatch.setattr(sys.modules["pyrovae.training.fit"], "check_data", lambda *_: 0)  # before any step
    counts = []
    for batch_size in (650, 65):  # 2 and 20 steps an epoch
        with ReadBacks() as mode:
            train(data, epochs=2, batch_size=batch_size, schedule="constant")
        counts.append(mode.count)
    assert counts[0] == counts[1]


def test_validation_leaves_batch_norm_and_the_training_stream_alone(data):
    torch.manual_seed(0)
    encoder, decoder = (
        pv.networks.Conv([1, 8, 8], [6], [4], batch_norm=True),
        pv.networks.TransposedConv([3], [1, 8, 8], [4], batch_norm=True),
    )

    def make():
        likelihood = pv.likelihoods.Binomial(decoder, 16)
        return pv.models.VAE(pv.priors.StandardNormal(3), likelihood, pv.posteriors.DiagonalNormal(encoder))

    weights = {k: v.clone() for k, v in make().state_dict().items()}
    a = train(data, make(), epochs=2).model.state_dict()
    a = {k: v.clone() for k, v in a.items()}
    vae = make()
    vae.load_state_dict(weights)
    without = pv.data.from_arrays(data.stored["train"], validation_size=0, values="counts", levels=16)
    b = train(without, vae, epochs=2).model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert int(a["posterior.network.body.1.num_batches_tracked"]) == 10  # training steps, and nothing else


@pytest.mark.parametrize(
    "elbo", [pyro.infer.Trace_ELBO(), pyro.infer.TraceMeanField_ELBO()], ids=lambda e: type(e).__name__
)
def test_pyros_elbos_train(data, elbo):
    run = train(data, objective=elbo, epochs=4)
    assert run.rows[-1]["bound"] > run.rows[0]["bound"] + 50


def test_plain_functions_train_with_their_own_parameters(data):
    net = nn.Linear(64, 4)

    def model(x):
        w = pyro.param("w", torch.full((2, 64), 0.01))
        scale = pyro.param("scale", torch.tensor(5.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w, scale).to_event(1), obs=x.flatten(1))

    def guide(x):
        pyro.module("net", net)
        loc, log_scale = net(x.flatten(1)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, (0.1 * log_scale).exp()).to_event(1))

    program = pv.Program(model, guide)
    before = net.weight.detach().clone()
    run = train(data, program, epochs=5, learning_rate=0.01)
    assert run.rows[-1]["bound"] > run.rows[0]["bound"]
    assert not torch.equal(net.weight, before)
    assert len(pyro.get_param_store()) == 0


def test_gradient_clipping_bounds_the_step(data):
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, lr=1.0), "schedule": "constant", "epochs": 1, "batch_size": 2000}
    vae = build(data)
    before = nn.utils.parameters_to_vector(vae.parameters()).detach().clone()
    after = nn.utils.parameters_to_vector(train(data, vae, clip=0.5, **sgd).model.parameters())
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.5), rtol=1e-3, atol=0)


def test_bfloat16_touches_the_networks_only(data):
    run = train(data, precision="bfloat16", epochs=2)
    assert run.rows[-1]["bound"] > run.rows[0]["bound"]
    assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert pv.densities(run.model, data.test[:5]).log_likelihood.dtype == torch.float32


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_start_at_one_and_never_rise(name):
    values = [SCHEDULES[name](i / 100) for i in range(101)]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(1 if name == "constant" else 0, abs=1e-12)


def test_adam_is_torchs_to_the_bit_with_its_state():
    def start(make):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(n)) for n in (5, 3000, 16)]
        return parameters, make(parameters)

    ours, theirs = start(lambda p: FusedAdam(p, 0.1)), start(lambda p: torch.optim.Adam(p, 0.1, fused=True))
    for i in range(8):
        if i == 4:  # into an optimiser that has a state of its own
            ours[1].load_state_dict(copy.deepcopy(theirs[1].state_dict()))
        for parameters, optimiser in (ours, theirs):
            torch.manual_seed(i)
            for p in parameters:
                p.grad = torch.randn_like(p)
            if i in (0, 5):
                parameters[0].grad = None
            optimiser.param_groups[0]["lr"] = 0.1 / (i + 1)
            optimiser.step()
        for p, q in zip(ours[0], theirs[0], strict=True):
            assert torch.equal(p, q)
    a, b = ours[1].state_dict(), theirs[1].state_dict()
    assert a["param_groups"][0].pop("taken") == 4  # since the state came from another
    assert a["param_groups"] == b["param_groups"]
    for k, values in b["state"].items():
        assert all(torch.equal(v, a["state"][k][n]) for n, v in values.items())


def test_adam_can_be_copied_and_have_another_group():
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimiser = FusedAdam([first], 0.1)
    for i in range(4):
        first.grad = second.grad = torch.ones(3)
        optimiser.step()
        if i == 1:
            optimiser.add_param_group({"params": [second]})
    assert (second < 1).all()
    copied = copy.deepcopy(optimiser)
    for group in copied.param_groups:
        group["params"][0].grad = torch.ones(3)
    copied.step()
    assert torch.equal(copied.state_dict()["state"][0]["step"], torch.tensor(5.0))


def test_moments_of_a_dead_unit_do_not_become_denormal():
    def after(make, steps=1_500):
        parameters = [nn.Parameter(torch.ones(64))]
        optimiser = make(parameters)
        for i in range(steps):
            gradient = torch.full((64,), 1.0 if i < 3 else 0.0)
            gradient[0] = 1.0  # one that lives on
            parameters[0].grad = gradient
            optimiser.step()
        return parameters[0], optimiser.state[parameters[0]]["exp_avg"]

    ours, theirs = after(lambda p: FusedAdam(p, 0.01)), after(lambda p: torch.optim.Adam(p, 0.01, fused=True))
    tiny = torch.finfo(torch.float32).tiny
    assert ((theirs[1] != 0) & (theirs[1].abs() < tiny)).sum() == 63
    assert not ((ours[1] != 0) & (ours[1].abs() < tiny)).any()
    assert torch.equal(ours[0], theirs[0])


def test_matrix_products_are_left_to_the_machine_on_cuda_alone():
    for device, precision, inside in (
        ("cuda", "auto", "high"),
        ("cuda", "float32", "highest"),
        ("cpu", "auto", "highest"),
    ):
        with machine(10**12, torch.device(device), precision):
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == "highest"


def test_double_precision_trains_and_loads_in_double_precision(data, tmp_path):
    run = train(data, build(data).double(), epochs=1, run_dir=tmp_path)
    assert {p.dtype for p in pv.load(tmp_path).parameters()} == {torch.float64}
    assert same(pv.load(tmp_path), run.model)


def test_a_tensor_is_data_enough():
    x = torch.bernoulli(torch.full((50, 6), 0.3))
    vae = pv.models.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(nn.Linear(2, 6)),
        pv.posteriors.DiagonalNormal(nn.Linear(6, 4)),
    )
    assert "validation" not in pv.fit(vae, x, epochs=2, progress=False).history


def test_the_device_is_found():
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match=r"unknown device 'cud'; did you mean 'cuda'"):
        find_device("cud")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device 'cuda' was asked for and there is none here; use device='auto'"):
            find_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_training_on_cuda(data):
    run = train(data, device="cuda", precision="bfloat16", epochs=4)
    assert run.rows[-1]["bound"] > run.rows[0]["bound"] + 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "fit expects epochs as a whole number above 0, got 0"),
        ({"epochs": 1.5}, "fit expects epochs as a whole number above 0, got 1.5"),
        ({"batch_size": -1}, "fit expects batch_size as a whole number above 0, got -1"),
        ({"patience": 0}, "fit expects patience as a whole number above 0, got 0"),
        ({"clip": -1.0}, "fit expects clip above 0, got -1.0"),
        ({"vae": object()}, "fit expects a torch module with .model(x) and .guide(x), got object"),
        ({"learning_rate": 0.0}, "fit expects learning_rate above 0"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"precision": "float16"}, "unknown precision 'float16'; did you mean"),
        ({"resume": True}, "resume needs the run_dir"),
        ({"objective": "IWAE"}, "expected an objective such as objectives.IWAE"),
        (
            {"objective": pyro.infer.RenyiELBO()},
            "RenyiELBO weighs whole batches under the scales of plates; use pyrovae.objectives.IWAE",
        ),
    ],
)
def test_settings_that_make_no_sense(data, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(data, **options)


def test_a_folder_in_use_is_not_overwritten(data, tmp_path):
    train(data, epochs=1, run_dir=tmp_path)
    with pytest.raises(ValueError, match="already holds a run; resume it, or choose another run_dir"):
        train(data, epochs=1, run_dir=tmp_path)


def test_early_stopping_needs_validation_data():
    x = torch.rand(20, 4)
    data = pv.data.from_arrays(x, validation_size=0)
    with pytest.raises(ValueError, match="needs validation data"):
        train(data, patience=2)


def test_grey_pixels_under_bernoulli_are_refused_before_the_first_step():
    data = pv.data.from_arrays(torch.rand(40, 1, 4, 4))
    vae = build(data, likelihood="Bernoulli")
    with pytest.raises(
        ValueError, match=r"likelihood Bernoulli expects values in \{0, 1\}, got values from .*Binarise"
    ):
        train(data, vae)


def test_resuming_with_another_architecture_is_refused(data, tmp_path):
    train(data, epochs=1, run_dir=tmp_path)
    with pytest.raises(ValueError, match=r"of another architecture: .* is .* in the model and .* in the file"):
        train(data, build(data, latent=4), epochs=2, run_dir=tmp_path, resume=True)


def test_the_vae_beats_a_linear_factor_model_of_equal_latent_size(data):
    """Binomial factor analysis: a linear decoder. Eight standard errors of the paired difference: no luck in it."""
    torch.manual_seed(0)
    linear = pv.models.VAE(
        pv.priors.StandardNormal(10),
        pv.likelihoods.Binomial(pv.networks.MLP([10], [1, 8, 8], hidden=[]), 16),
        build(data, latent=10, hidden=[200]).posterior,
    )
    options = {"epochs": 30, "batch_size": 64, "learning_rate": 2e-3}
    models = train(data, build(data, latent=10, hidden=[200]), **options).model, train(data, linear, **options).model
    vae, factor = (pv.evaluate(m, data.test, particles=100).log_evidence for m in models)
    gain = vae - factor
    assert gain.mean() > 8 * gain.std() / len(gain) ** 0.5
    assert gain.mean() > 5


def test_an_objective_belongs_to_one_run(data):
    objective = BetaELBO(2.0, warmup=2)
    a, b = (train(data, objective=objective).rows for _ in range(2))
    assert [r["bound"] for r in a] == [r["bound"] for r in b]
    assert float(objective.epoch) == 0


def test_pyros_elbo_follows_pyros_rules_for_a_program(data):
    """A plate of another name, a scale and an enumerated latent are nothing to our densities, and Pyro's own matter."""

    class Pyros(nn.Module):
        def __init__(self):
            super().__init__()
            self.rates = nn.Parameter(torch.rand(2, 64))

        @pyro.infer.config_enumerate
        def model(self, x):
            with pyro.plate("images", len(x)), pyro.poutine.scale(scale=0.5):
                c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.5)))
                pyro.sample("x", dist.Normal(self.rates[c.long()], 3.0).to_event(1), obs=x.flatten(1))

        def guide(self, x):
            pass

    run = train(data, Pyros(), objective=pyro.infer.TraceEnum_ELBO(max_plate_nesting=1), learning_rate=0.1)
    assert run.rows[-1]["bound"] > run.rows[0]["bound"]


def test_a_small_step_takes_one_thread_and_gives_the_others_back(data):
    seen = []

    class Watching(ELBO):
        def forward(self, vae, x):
            seen.append(torch.get_num_threads())
            return super().forward(vae, x)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(data, objective=Watching(), epochs=1)
        assert set(seen[3:]) == {1}  # after the checks
        assert torch.get_num_threads() == 2
        seen.clear()
        train(data, build(data, hidden=[1000, 1000]), objective=Watching(), epochs=1)
        assert set(seen) == {2}
    finally:
        torch.set_num_threads(before)
