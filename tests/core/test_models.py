"""Model files: data with what they are, never code."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from cryoden_core import __version__
from cryoden_core.jobs import JobError
from cryoden_core.models import load_model, save_model


def test_weights_and_metadata_come_back(tmp_path):
    path = str(tmp_path / "new" / "m.safetensors")
    weights = {"a": torch.randn(2, 3).t(), "b": torch.tensor(1.0)}
    save_model(path, weights, {"system": "nmsg", "voxel_size": 10.5})
    loaded, about = load_model(path, "nmsg")
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert about == {"system": "nmsg", "voxel_size": 10.5, "core_version": __version__}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m.safetensors"]


def test_metadata_that_is_no_json_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        save_model(str(tmp_path / "m.safetensors"), {"a": torch.zeros(1)}, {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_finished_leaves_the_old_one_and_says_so(tmp_path, nearly_full_disk):
    path = tmp_path / "m.safetensors"
    save_model(str(path), {"a": torch.zeros(1)}, {"system": "nmsg"})
    before = path.read_bytes()
    with nearly_full_disk(1000), pytest.raises(JobError, match=r"cannot write the model .*m\.safetensors"):
        save_model(str(path), {"a": torch.zeros(1000)}, {"system": "nmsg"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def refused(path, system: str = "nmsg") -> str:
    with pytest.raises(JobError) as error:
        load_model(str(path), system)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and text.endswith(".")
    return text


def test_a_model_of_another_system_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(str(path), {"a": torch.zeros(1)}, {"system": "dual"})
    assert "'dual', not of 'nmsg'" in refused(path)


def test_a_missing_model_is_said_to_be_missing(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize("about", [None, {"cryoden": "no json"}, {"cryoden": "[]"}, {"cryoden": "{}"}, {"x": "y"}])
def test_safetensors_of_others_are_refused(tmp_path, about):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1)}, str(path), about)
    assert "not a model that CryoDen wrote" in refused(path)


def test_a_truncated_model_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(str(path), {"a": torch.zeros(1000)}, {"system": "nmsg"})
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read" in refused(path)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_is_never_unpickled(tmp_path):
    path, sprung = tmp_path / "m.safetensors", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"weights": Trap(str(sprung))}))
    refused(path)
    torch.save({"weights": Trap(str(sprung))}, path)
    refused(path)
    assert not sprung.exists()
