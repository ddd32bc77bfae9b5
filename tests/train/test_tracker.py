"""Trackers get each step once, also when a run crashed, and nothing leaves this machine."""

import json
import socket
import sqlite3

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deliberate.core.errors import DeliberateError
from deliberate.train import run, tracker, train
from deliberate.train.tracker import TRACKERS, check_trackers, how_to_show


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def crash_and_resume(recipe, folder, **settings):
    """A run that breaks down at step 5 and goes on from the checkpoint of step 3."""

    def crash(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, on_progress=crash, **settings)
    train(recipe, folder, resume=True, **settings)


def expected(folder):
    """Each number's values by step, as the metrics have them."""
    curves = {}
    for line in metrics(folder):
        changes = line.pop("change_percent", {})
        line |= {f"change_percent/{token}": value for token, value in changes.items()}
        for name in line.keys() - {"step", "seconds"}:
            curves.setdefault(name, {})[line["step"]] = line[name]
    assert curves.keys() >= {"loss", "rate", "norm", "loss_change", "change_percent/4"}
    return curves


def check_curves(found, folder):
    assert list(found.pop("tokens_per_second")) == list(range(1, 9))
    wanted = expected(folder)
    assert found.keys() == wanted.keys()
    for name, curve in wanted.items():
        assert found[name] == pytest.approx(curve, rel=1e-6), name


def test_tensorboard_has_each_point_once(recipe, tmp_path):
    folder = tmp_path / "run"
    crash_and_resume(recipe(), folder, trackers=["tensorboard"])
    assert len(list((folder / "tensorboard").iterdir())) == 2
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = {}
    for name in events.Tags()["scalars"]:
        points = events.Scalars(name)
        assert len({point.step for point in points}) == len(points)
        found[name] = {point.step: point.value for point in points}
    check_curves(found, folder)


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Trackio's database in a place of its own, with all that could tempt it to the network."""
    storage = pytest.importorskip("trackio.sqlite_storage")
    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/?write_token=x")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    # Reading a file, datasets would tell a server of its own.
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)
    asked = []  # noted, because trackio goes on where there is no network

    def refuse(*arguments, **settings):
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tmp_path / "trackio/deliberate.db"
    assert not asked


def rows(database):
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT run_name, run_id, step, metrics FROM metrics").fetchall()
    finally:
        connection.close()


def test_trackio_has_each_point_once_and_stays_here(recipe, tmp_path, database, capsys):
    folder = tmp_path / "run"
    crash_and_resume(recipe(), folder, trackers=["trackio"])
    found = {}
    for name, _, step, numbers in rows(database):
        assert name == str(folder)
        for key, value in json.loads(numbers).items():
            assert step not in found.setdefault(key, {})
            found[key][step] = value
    check_curves(found, folder)
    assert len({row[1] for row in rows(database)}) == 1
    assert not capsys.readouterr().out


def test_trackio_is_written_to_every_second_and_not_at_every_step(tmp_path, database, monkeypatch):
    from deliberate.train import track_trackio

    clock = [0.0]
    monkeypatch.setattr(track_trackio.time, "monotonic", lambda: clock[0])
    trackio = track_trackio.Trackio(tmp_path, project="deliberate")
    for step, now in ((1, 0.5), (2, 0.9)):
        clock[0] = now
        trackio.log(step, {"loss": 1.0})
    assert not database.exists()
    clock[0] = 1.0
    trackio.log(3, {"loss": 1.0})
    assert [row[2] for row in rows(database)] == [1, 2, 3]
    clock[0] = 1.9
    trackio.log(4, {"loss": 1.0})
    assert len(rows(database)) == 3
    trackio.close()
    assert [row[2] for row in rows(database)] == [1, 2, 3, 4]


def test_another_run_in_the_same_place_is_another_one_of_trackio_s(recipe, tmp_path, database):
    folder = tmp_path / "run"
    for _ in range(2):
        train(recipe("train.steps=1"), folder, trackers=["trackio"])
        folder.rename(tmp_path / f"moved-{_}")
    assert len({row[1] for row in rows(database)}) == 2


def test_a_moved_run_goes_on_under_its_name(recipe, tmp_path, database):
    train(recipe("train.steps=1"), tmp_path / "run", trackers=["trackio"])
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "moved/checkpoints/step-000001").rename(tmp_path / "gone")  # so that it steps again
    train(recipe("train.steps=1"), tmp_path / "moved", resume=True, trackers=["trackio"])
    assert [row[0] for row in rows(database)] == [str(tmp_path / "run")]


def test_what_trackio_cannot_write_is_one_sentence(recipe, tmp_path, database):
    database.parent.mkdir()
    database.write_text("no database, and long enough to be read as one" * 99)
    with pytest.raises(OSError, match=r"deliberate\.db.*resume without --tracker trackio"):
        train(recipe(), tmp_path / "run", trackers=["trackio"])


def test_a_folder_that_does_not_name_its_trackio_run_is_refused(recipe, tmp_path, database):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/trackio.json").write_text("{}")
    with pytest.raises(OSError, match=r"trackio\.json.*remove it"):
        train(recipe(), tmp_path / "run", trackers=["trackio"])


def test_a_run_is_resumed_with_another_tracker_or_none(recipe, tmp_path):
    train(recipe(), tmp_path / "run", trackers=["tensorboard", "tensorboard"])
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1
    train(recipe(), tmp_path / "run", resume=True)
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1
    assert "tensorboard" not in (tmp_path / "run/recipe.yaml").read_text()


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(
    recipe, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(tracker, "find_spec", lambda package: None)
    with pytest.raises(DeliberateError, match=f"pip install '{name}>="):
        train(recipe("base.id=nowhere"), tmp_path / "run", trackers=[name])
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="tensorboard, trackio, got 'abacus'"):
        train(recipe(), tmp_path / "run", trackers=["abacus"])


def test_trackers_are_named_as_their_packages_are():
    check_trackers(list(TRACKERS))


def test_a_folder_with_a_space_is_quoted(tmp_path):
    assert how_to_show("tensorboard", tmp_path / "my run").endswith("my run/tensorboard'")


def test_the_metrics_tell_the_rate_and_the_norm_before_it_is_clipped(recipe, tmp_path, monkeypatch):
    plain, norms = run.clip, []

    def clip(parameters, most):
        parameters = list(parameters)
        squares = [p.grad.double().square().sum() for p in parameters if p.grad is not None]
        norms.append(sum(squares).sqrt().item())
        return plain(parameters, most)

    monkeypatch.setattr(run, "clip", clip)
    train(recipe("train.clip=0.001"), tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert [line["norm"] for line in lines] == pytest.approx(norms, rel=1e-5)
    assert min(norms) > 0.001
    assert [line["rate"] for line in lines[:3]] == pytest.approx([0.0015, 0.003, 0.003])
    assert lines[-1]["rate"] < lines[3]["rate"] < 0.003
