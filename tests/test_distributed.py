"""Several processes: equal to one where they can be, never waiting for each other for ever, one voice for all."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import ranks
import torch
import yaml
from ranks import Fixed, scenarios, train

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.data.dataset import share_of
from pyrovae.training import RunFolder
from pyrovae.training.distributed import Crew, mixed
from pyrovae.training.launch import find_crew

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SMALL = ["--latent", "2", "--hidden", "[16]", "--test_particles", "5", "--device", "cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes, started by torchrun, have left what each has found."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ranks")
    train(objective=Fixed(), epochs=2, run_dir=folder / "alone", schedule="constant")
    done = subprocess.run(
        [*TORCHRUN, ranks.__file__, str(folder)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def two(folder):
    """What rank 0 and rank 1 have found."""
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one process finds."""
    return scenarios(tmp_path_factory.mktemp("one"))


def close(a, b):
    for key in a["weights"]:
        torch.testing.assert_close(a["weights"][key], b["weights"][key], rtol=1e-9, atol=1e-9, msg=key)
    assert [r["epoch"] for r in a["rows"]] == [r["epoch"] for r in b["rows"]]
    for x, y in zip(a["rows"], b["rows"], strict=True):
        assert x == pytest.approx(y, rel=1e-6)  # bounds are summed in single precision


def bit_equal(a, b):
    assert all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
    assert a["rows"] == b["rows"]


@pytest.mark.parametrize("name", ["equal", "uneven", "clipped", "stopped", "fixed whole", "fixed resumed"])
def test_two_processes_are_equal_to_one_where_the_noise_is(one, two, name):
    """Ragged batches, one row for two ranks, a running mean, a schedule, clipping and early stopping included."""
    close(two[0][name], one[name])
    if name == "stopped":
        assert 1 < one[name]["best"] == two[0][name]["best"] < 40


def test_all_ranks_have_the_same_history_and_weights(two):
    names = [k for k, v in two[0].items() if isinstance(v, dict)]
    assert len(names) > 10
    for name in names:
        bit_equal(two[0][name], two[1][name])
        assert two[0][name]["seconds"] == two[1][name]["seconds"]


def test_ranks_draw_different_noise(one, two):
    seen = [*two[0]["noise"]["seen"], *two[1]["noise"]["seen"]]
    assert len(seen) == 2 * 12 == len(set(seen))  # 3 epochs of 4 steps
    assert abs(two[0]["noise"]["rows"][-1]["bound"] - one["noise"]["rows"][-1]["bound"]) < 20  # nats of some 200


def test_seeds_of_ranks_do_not_meet_those_of_other_runs():
    seeds = {mixed(seed, rank) for seed in range(-20, 20) for rank in range(20)}
    assert len(seeds) == 800


def test_all_ranks_start_from_the_weights_of_rank_0(two):
    bit_equal(two[0]["unseeded"], two[0]["equal"])


@pytest.mark.parametrize("name", ["fixed", "drawn"])
def test_a_resumed_run_of_ranks_is_bit_equal_to_a_whole_one(two, name):
    bit_equal(two[0][f"{name} resumed"], two[0][f"{name} whole"])


def test_another_number_of_processes_goes_on_with_the_order_of_the_data(one, two, folder):
    close(two[0]["after one process"], one["fixed whole"])
    run = train(objective=Fixed(), epochs=4, run_dir=folder / "short", resume=True, schedule="constant")
    close(ranks.tell(run), one["fixed whole"])


def test_a_ctrl_c_on_one_rank_stops_all_after_the_same_epoch(two, folder):
    assert two[0]["interrupted"]["interrupted"]
    assert two[1]["interrupted"]["interrupted"]
    assert 1 <= len(two[0]["interrupted"]["rows"]) < 30
    weights = pv.load(folder / "cut").state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in two[0]["interrupted"]["weights"].items())


@pytest.mark.parametrize("strategy", ["", "fsdp "])
def test_a_nan_on_one_rank_is_named_on_all(two, strategy):
    for found in two:
        assert "model site 'x' became NaN or infinite in epoch 2" in found[f"{strategy}nan"]
        assert all(found[f"{strategy}nan weights"])


def test_an_error_of_one_rank_is_raised_on_all(two):
    for found in two:
        assert found["other model"].startswith("ValueError: rank 1 has built another model than rank 0")
        assert found["refused"] == "ValueError: rank 1 does not like it"
        assert found["drift"].startswith("RuntimeError: the ranks have drifted apart")


def test_pieces_are_equal_to_replicas(two):
    for name, like in {
        "": "equal",
        " uneven": "uneven",
        " stopped": "stopped",
        " dreg": "dreg",
        " resumed": "fixed whole",
    }.items():
        close(two[0][f"fsdp{name}"], two[0][like])
    assert two[0]["fsdp kinds"] == ["Parameter"]  # an ordinary module again


def test_captured_steps_are_averaged_as_well(two):
    assert [found["score captured"]["levels"] for found in two] == [["captured"]] * 2
    close(two[0]["score captured"], two[0]["score"])


def test_only_rank_0_has_written(folder):
    for name in ("fixed", "fsdp"):
        state = RunFolder(folder / name).read_state()
        assert len(state["ranks"]) == 2
        assert all(isinstance(v, torch.Tensor) for v in state["model"].values())
        files = {p.name for p in (folder / name).iterdir()}
        assert files == {"config.yaml", "weights.safetensors", "state.pt", "history.csv"}


# The command line


def test_the_command_starts_processes_stops_and_goes_on_in_one(tmp_path, monkeypatch, capsys):
    words = [sys.executable, "-m", "pyrovae", "train", *SMALL, "--run_dir", "r", "--epochs", "3000", "--devices", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": ENVIRONMENT}
    run = subprocess.Popen(words, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    while not (tmp_path / "r" / "history.csv").exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)  # rank 0 alone: the other follows
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert "Traceback" not in err
    assert out.count("2 processes -> r") == out.count("pyrovae train --resume --run_dir r") == 1
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["devices"] == 2
    done = (tmp_path / "r" / "history.csv").read_text().count("\n") - 1
    assert len(RunFolder(tmp_path / "r").read_state()["ranks"]) == 2
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "--run_dir", "r", "--epochs", str(done + 1), "--devices", "1"]) == 0
    assert (tmp_path / "r" / "history.csv").read_text().count("\n") == done + 2
    assert "ranks" not in RunFolder(tmp_path / "r").read_state()


@pytest.fixture
def no_fabric(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)


@pytest.fixture
def torchrun(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "dpp"], "unknown strategy 'dpp'; did you mean 'ddp'?"),
        (["--strategy", "ddp_spawn"], "unknown strategy 'ddp_spawn'; did you mean 'ddp'?"),
        (["--devices", "0"], "devices as a whole number above 0, got 0"),
        (["--nodes", "-1"], "nodes as a whole number above 0, got -1"),
        (["--devices", "100000", "--device", "cpu"], "devices=100000 were asked for, and here are"),
        (["--devices", "2", "--device", "cpu"], "only the command `pyrovae` itself can start them"),
    ],
    ids=lambda w: " ".join(w) if isinstance(w, list) else "",
)
def test_what_is_not_there_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_fabric_that_is_not_installed(no_fabric, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--devices", "2", "--device", "cpu"]) == 2
    assert capsys.readouterr().err == "pyrovae: scale-out needs lightning-fabric: pip install 'pyrovae[fabric]'\n"


def test_one_process_needs_no_fabric(no_fabric):
    assert type(find_crew("cpu", devices=1, strategy="fsdp")) is Crew


def test_torchrun_and_options_that_contradict_each_other(torchrun, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["--devices", "3"], ["--devices", "1"], ["--nodes", "2"]):
        assert main(["train", *words]) == 2
        assert "torchrun has started 2 processes on each of 1 nodes, and " in capsys.readouterr().err


def test_another_rank_leaves_the_sentence_to_rank_0(torchrun, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "--devices", "3"]) == 2
    assert capsys.readouterr().err == ""


def test_a_device_with_a_number_is_one_device():
    with pytest.raises(
        ValueError, match=re.escape("device 'cpu:0' is a single one; with devices=2 give its kind, 'cpu'")
    ):
        find_crew("cpu:0", devices=2)


def test_a_script_that_is_no_file_cannot_be_run_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(ValueError, match="only a script that is a file can start them"):
        find_crew("cpu", devices=2)


def test_several_nodes_must_know_each_other(monkeypatch):
    monkeypatch.setattr(sys, "argv", [__file__])
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="nodes=2 needs MASTER_ADDR, MASTER_PORT and NODE_RANK on each node"):
        find_crew("cpu", nodes=2)


def test_a_script_keeps_to_one_number(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="this is one of 2 processes already, and 3 were asked for"):
        find_crew("cpu", nodes=3)


def test_compare_has_no_processes(capsys):
    assert main(["compare", "VAE", "--devices", "2"]) == 2
    assert "unknown option '--devices'" in capsys.readouterr().err


# Shares


@pytest.mark.parametrize("size", [2, 3, 8])
def test_shares_are_a_partition_of_every_batch(size):
    for rows in range(1, 40):
        shares = [range(rows)[share_of(rows, rank, size)] for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batches_of_shares_are_the_batches():
    data = pv.data.from_arrays(torch.arange(23.0)[:, None], validation_size=0)
    orders = [torch.Generator().manual_seed(3) for _ in range(3)]
    parts = [list(data.batches("train", 7, shuffle=True, share=(rank, 2), generator=orders[rank])) for rank in range(2)]
    whole = list(data.batches("train", 7, shuffle=True, generator=orders[2]))
    assert all(torch.equal(torch.cat(pair), x) for *pair, x in zip(*parts, whole, strict=True))
