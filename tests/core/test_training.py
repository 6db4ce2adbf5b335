"""The training loop: interruption, resumption, what is not finite, averages, several processes."""

import itertools
import math
import os
import signal
import socket
import threading

import pytest
import torch
from torch import multiprocessing, nn

from cryoden_core.jobs import JobError, RunFolder
from cryoden_core.progress import Progress, read_metrics, read_progress
from cryoden_core.training import PATIENCE, Interrupted, Trainer, TrainingDiverged, TrainingSettings

CPU = torch.device("cpu")


class LineTask:
    """Fits a line to noisy points; ``disturb(step)`` may act on the loss or the process."""

    name = "fitting a line"

    def __init__(self, disturb=lambda step, loss: loss) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.networks = {"line": self.network}
        self.optimizers = {"line": torch.optim.Adam(self.network.parameters(), 0.01)}
        self.disturb = disturb
        self.seen: list[float] = []

    def step(self, step, trainer):
        data = torch.randn(16, 3, generator=trainer.generator)
        self.seen.append(float(data.sum()))
        loss = (self.network(data)[:, 0] - data.sum(1)).square().mean()
        loss = self.disturb(step, loss)
        trainer.update("line", loss)
        return {"loss": loss.item()}


def make(task, tmp_path, steps=20, fingerprint="a", **settings) -> Trainer:
    folder = RunFolder(str(tmp_path))
    progress = Progress(folder, quiet=True, interval=0)
    asked = TrainingSettings(steps, log_every=1, **settings)
    return Trainer(task, asked, CPU, 1, progress, folder.checkpoint, fingerprint)


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def terminate_at(number: int):
    def disturb(step, loss):
        if step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    return disturb


@pytest.mark.parametrize("stop", [0, 7, 19])
def test_training_interrupted_by_sigterm_and_resumed_equals_uninterrupted(tmp_path, stop):
    whole = LineTask()
    trainer = make(whole, tmp_path / "whole")
    trainer.fit()
    with pytest.raises(Interrupted, match=f"stopped at step {stop + 1} of 20"):
        make(LineTask(terminate_at(stop)), tmp_path / "parts").fit()
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["checkpoint.pt", "metrics.csv", "progress.json"]
    resumed = LineTask()
    second = make(resumed, tmp_path / "parts")
    second.fit(resume=True)
    assert len(resumed.seen) == 19 - stop
    assert equal(whole.network, resumed.network)
    assert all(torch.equal(value, second.averages["line"][name]) for name, value in trainer.averages["line"].items())
    first, again = (read_metrics(str(tmp_path / name / "metrics.csv")) for name in ("whole", "parts"))
    assert first == again


def test_the_handler_of_before_is_back_after_training(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    make(LineTask(), tmp_path, steps=2).fit()
    assert signal.getsignal(signal.SIGTERM) is before


def test_training_outside_the_main_thread_works(tmp_path):
    task, failures = LineTask(), []

    def work():
        try:
            make(task, tmp_path, steps=3).fit()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and len(task.seen) == 3


def test_resuming_without_a_checkpoint_starts_at_the_beginning(tmp_path):
    task = LineTask()
    make(task, tmp_path, steps=3).fit(resume=True)
    assert len(task.seen) == 3


def test_a_finished_training_is_not_repeated(tmp_path):
    first = LineTask()
    make(first, tmp_path, steps=5).fit()
    second = LineTask()
    make(second, tmp_path, steps=5).fit(resume=True)
    assert second.seen == [] and equal(first.network, second.network)


def refused(tmp_path, fingerprint="a") -> str:
    with pytest.raises(JobError) as error:
        make(LineTask(), tmp_path, steps=5, fingerprint=fingerprint).fit(resume=True)
    text = str(error.value)
    assert "checkpoint.pt" in text and "start without --resume" in text and "\n" not in text and text.endswith(".")
    return text


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path):
    make(LineTask(), tmp_path, steps=5).fit()
    assert "other input or parameters" in refused(tmp_path, "b")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    make(LineTask(), tmp_path, steps=5).fit()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:500])
    assert "cannot be read" in refused(tmp_path)


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickled_checkpoint_is_never_unpickled(tmp_path):
    torch.save({"fingerprint": "a", "trap": Trap(str(tmp_path / "sprung"))}, tmp_path / "checkpoint.pt")
    assert "cannot be read" in refused(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_torch_file_of_something_else_is_refused(tmp_path):
    torch.save([1, 2, 3], tmp_path / "checkpoint.pt")
    assert "cannot be read" in refused(tmp_path)


def test_a_checkpoint_that_cannot_be_finished_leaves_the_old_one(tmp_path, nearly_full_disk):
    trainer = make(LineTask(), tmp_path, steps=5)
    trainer.fit()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with nearly_full_disk(1000), pytest.raises(JobError, match=r"cannot write .*checkpoint\.pt: file too large\."):
        trainer.save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp*"))


def poison(bad_steps):
    return lambda step, loss: loss * math.nan if step in bad_steps else loss


def test_one_step_that_is_not_finite_is_skipped(tmp_path):
    weights = []

    def disturb(step, loss):
        weights.append(task.network[0].weight.detach().clone())
        return loss * math.inf if step == 3 else loss

    task = LineTask(disturb)
    trainer = make(task, tmp_path, steps=6)
    trainer.fit()
    assert torch.equal(weights[3], weights[4]) and not torch.equal(weights[4], weights[5])
    assert trainer.progress.warnings == []
    assert all(torch.isfinite(value).all() for value in trainer.averages["line"].values())


def test_steps_that_stay_not_finite_lead_to_float32_and_training_goes_on(tmp_path):
    trainer = make(LineTask(poison(range(2, 2 + PATIENCE))), tmp_path)
    trainer.fit()
    assert trainer.progress.warnings == ["the loss was not finite; training goes on in float32."]
    assert read_progress(trainer.progress._folder.progress)["step"] == 20


def test_a_loss_that_is_not_finite_in_float32_either_ends_the_training(tmp_path):
    trainer = make(LineTask(poison(range(2, 99))), tmp_path)
    with pytest.raises(TrainingDiverged, match="not a finite number at step 11"):
        trainer.fit()
    assert trainer.step == 2 + 2 * PATIENCE - 1
    with pytest.raises(TrainingDiverged, match="at step 4"):
        make(LineTask(poison(range(99))), tmp_path, precision=False).fit()


def test_a_healthy_network_does_not_hide_a_diverged_one(tmp_path):
    class Two(LineTask):
        def __init__(self):
            super().__init__()
            self.networks["other"] = nn.Linear(1, 1)
            self.optimizers["other"] = torch.optim.SGD(self.networks["other"].parameters(), 0.1)

        def step(self, step, trainer):
            trainer.update("other", self.networks["other"](torch.ones(1)).sum() * math.nan)
            return super().step(step, trainer)

    with pytest.raises(TrainingDiverged):
        make(Two(), tmp_path).fit()


def test_full_precision_is_remembered_by_the_checkpoint(tmp_path):
    make(LineTask(poison(range(PATIENCE))), tmp_path, steps=8).fit()
    again = make(LineTask(), tmp_path, steps=8)
    again.fit(resume=True)
    assert again._full_precision


def test_the_rate_rises_and_falls():
    settings = TrainingSettings(100, warm_up=0.1, final_rate=0.02)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert max(rates) == rates[9] or max(rates) == rates[10]
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)
    assert {TrainingSettings(10, warm_up=0, final_rate=1).rate(step) for step in range(10)} == {1.0}


def test_the_rate_reaches_the_optimiser(tmp_path):
    task = LineTask()
    make(task, tmp_path, steps=10).fit()
    column = read_metrics(str(tmp_path / "metrics.csv"))["rate_line"]
    expected = [0.01 * TrainingSettings(10).rate(step) for step in range(10)]
    assert column == pytest.approx(expected, rel=1e-5)


def test_gradients_are_clipped_to_the_asked_norm(tmp_path):
    task = LineTask(lambda step, loss: loss * 1e6)
    task.optimizers["line"] = torch.optim.SGD(task.network.parameters(), 1.0)
    start = torch.cat([p.detach().flatten().clone() for p in task.network.parameters()])
    make(task, tmp_path, steps=1, clip=0.5, warm_up=0).fit()
    moved = torch.cat([p.detach().flatten() for p in task.network.parameters()]) - start
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-3)


def test_the_average_follows_its_definition(tmp_path):
    history = []

    def disturb(step, loss):
        history.append(task.network[0].weight.detach().clone())
        return loss

    task = LineTask(disturb)
    trainer = make(task, tmp_path, steps=12, ema_decay=0.5)
    trainer.fit()
    history.append(task.network[0].weight.detach().clone())
    average = history[0]
    for step, value in enumerate(history[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    torch.testing.assert_close(trainer.averages["line"]["0.weight"], average)


def test_averaged_lends_the_averages_and_gives_the_weights_back(tmp_path):
    task = LineTask()
    trainer = make(task, tmp_path)
    trainer.fit()
    trained = task.network[0].weight.detach().clone()
    with pytest.raises(KeyError), trainer.averaged():
        assert torch.equal(task.network[0].weight, trainer.averages["line"]["0.weight"])
        assert not torch.equal(task.network[0].weight, trained)
        raise KeyError
    assert torch.equal(task.network[0].weight, trained)
    trainer.use_averages()
    assert torch.equal(task.network[0].weight, trainer.averages["line"]["0.weight"])


def test_another_seed_gives_another_training_and_the_same_seed_the_same(tmp_path):
    results = []
    for seed in (1, 1, 2):
        task = LineTask()
        Trainer(task, TrainingSettings(5), CPU, seed, Progress(None, quiet=True)).fit()
        results.append(task.network)
    assert equal(results[0], results[1]) and not equal(results[0], results[2])


def one_process(rank: int, port: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)

    def disturb(step, loss):
        # One process alone meets a loss that is not finite, once with finite gradients: both must skip the step.
        if rank == 1 and step in (2, 4):
            return loss + math.inf if step == 2 else loss * math.nan
        if rank == 1 and step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    task = LineTask(disturb)
    trainer = Trainer(
        task, TrainingSettings(10, log_every=1), CPU, 1, Progress(None, quiet=True), os.path.join(folder, "c.pt")
    )  # fmt: skip
    with pytest.raises(Interrupted, match="stopped at step 7 of 10"):
        trainer.fit()
    torch.save({"weights": task.network.state_dict(), "seen": task.seen}, os.path.join(folder, f"{rank}.pt"))


def test_two_processes_see_different_data_keep_equal_weights_and_stop_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(one_process, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["seen"] != second["seen"]
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == 7


def test_a_loss_that_stays_not_finite_goes_back_to_the_last_checkpoint_once_with_half_the_rate(tmp_path):
    made, rates = [], []

    def disturb(step, loss):
        made.append(step)
        rates.append(task.optimizers["line"].param_groups[0]["lr"])
        # Poison that is gone when the steps are made again.
        return loss * math.nan if step >= 8 and len(made) <= 8 + PATIENCE else loss

    task = LineTask(disturb)
    trainer = make(task, tmp_path, precision=False, checkpoint_seconds=0.0)
    trainer.fit()
    restart = made.index(8 + PATIENCE - 1) + 1
    assert made[restart] == 8 + PATIENCE - 1 and made[-1] == 19
    assert rates[restart] == pytest.approx(0.5 * rates[restart - 1])
    assert "half the rate" in trainer.progress.warnings[0]
    assert read_progress(str(tmp_path / "progress.json"))["step"] == 20
    poisoned = make(LineTask(poison(range(8, 99))), tmp_path / "again", precision=False, checkpoint_seconds=0.0)
    with pytest.raises(TrainingDiverged):
        poisoned.fit()


def test_several_losses_descend_like_their_sum(tmp_path):
    class Parts(LineTask):
        def step(self, step, trainer):
            data = torch.randn(16, 3, generator=trainer.generator)
            losses = ((self.network(part)[:, 0] - part.sum(1)).square().sum() / 16 for part in data.split(4))
            trainer.update("line", losses)
            return {"loss": 0.0}

    whole, parts = LineTask(), Parts()
    make(whole, tmp_path / "whole").fit()
    make(parts, tmp_path / "parts").fit()
    for name, value in whole.network.state_dict().items():
        assert torch.allclose(parts.network.state_dict()[name], value, atol=1e-5)


def test_a_task_may_end_its_training_and_a_resumed_one_stays_ended(tmp_path):
    class Impatient(LineTask):
        def step(self, step, trainer):
            if step == 4:
                trainer.finish()
            return super().step(step, trainer)

    make(Impatient(), tmp_path).fit()
    again = Impatient()
    trainer = make(again, tmp_path)
    trainer.fit(resume=True)
    assert trainer.step == 5 and again.seen == []
