"""Jobs: what is refused and with which sentence, and that the JSON form loses nothing."""

import json

import pytest

from cryoden_core.jobs import (
    SYSTEMS,
    DualWedgeJob,
    EvaluateJob,
    JobError,
    MlpJob,
    NmsgJob,
    NmsgTrainJob,
    RunFolder,
    TrainingSetJob,
    WbpJob,
    default_of,
    job_from_dict,
    parameters_of,
    read_job,
    write_job,
    write_json,
)

GOOD = {"input": "a.mrc", "output": "b.mrc"}


def one_sentence(error: pytest.ExceptionInfo) -> bool:
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and len(text) < 500


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "unknown parameter 'colour' for 'nmsg'"),
        ({"strength": 1.5}, "'strength' must be at most 1, not 1.5"),
        ({"strength": -0.5}, "'strength' must be at least 0, not -0.5"),
        ({"strength": float("nan")}, "'strength' must be a finite number"),
        ({"seed": 2**31}, "'seed' must be at most 2147483647, not 2147483648"),
        ({"steps": 1.5}, "'steps' must be of type int"),
        ({"steps": True}, "'steps' must be of type int"),
        ({"resume": 1}, "'resume' must be of type bool"),
        ({"strength": "much"}, "'strength' must be of type float"),
        ({"preset": "quick"}, "'preset' must be one of fast, default, best, paper"),
        ({"input": ""}, "'input' is missing: tomogram to denoise"),
        ({"input": None}, "'input' must be of type str"),
        ({"device": "gpu"}, "'device' must be auto, cpu, cuda or cuda:N"),
        ({"even": "e.mrc"}, "both halves or none"),
        ({"output_even": "e.mrc"}, "when 'even' and 'odd' are given"),
        ({"output": "./a.mrc"}, "is also an input"),
        ({"even": "e.mrc", "odd": "o.mrc", "output_even": "b.mrc"}, "two outputs have the same name"),
        ({"save_model": "b.mrc"}, "'save_model' must be a name that ends in .safetensors, not 'b.mrc'"),
        ({"output": "b.tif"}, "'output' must be a name that ends in .mrc or .rec or .map, not 'b.tif'"),
        ({"model": "b.mrc"}, "is also an input"),
    ],
)
def test_a_wrong_parameter_is_named_in_one_sentence(change, words):
    with pytest.raises(JobError) as error:
        NmsgJob.from_parameters({**GOOD, **change})
    assert words in str(error.value)
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"schema": 2, "system": "nmsg", "parameters": GOOD}, "has schema 2, this version reads 1"),
        ({"schema": 1, "system": "topaz", "parameters": GOOD}, "unknown system 'topaz'"),
        ({"schema": 1, "system": ["nmsg"], "parameters": GOOD}, "unknown system ['nmsg']"),
        ({"schema": 1, "system": "nmsg", "parameters": []}, "must be a JSON object"),
        ({"schema": 1, "system": "nmsg"}, "three entries"),
        ([1, 2], "three entries"),
    ],
)
def test_a_wrong_form_is_named_in_one_sentence(content, words):
    with pytest.raises(JobError) as error:
        job_from_dict(content, "the job file x.json")
    assert words in str(error.value)
    assert "x.json" in str(error.value)
    assert one_sentence(error)


def test_every_job_round_trips_through_its_file(tmp_path):
    job = NmsgJob.from_parameters({**GOOD, "strength": 1, "seed": 7, "preset": "fast", "device": "cuda:2"})
    path = str(tmp_path / "job.json")
    write_job(job, path)
    again = read_job(path)
    assert again == job and type(again) is NmsgJob
    assert isinstance(job.strength, float), "a whole number in the JSON must not make a float parameter an int"
    assert json.loads((tmp_path / "job.json").read_text())["system"] == "nmsg"


def test_a_missing_or_spoiled_job_file_is_one_sentence(tmp_path):
    with pytest.raises(JobError) as error:
        read_job(str(tmp_path / "none.json"))
    assert one_sentence(error) and "none.json" in str(error.value)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(JobError) as error:
        read_job(str(tmp_path / "bad.json"))
    assert one_sentence(error) and "not valid JSON" in str(error.value)


def test_list_defaults_are_not_shared():
    first = NmsgTrainJob(inputs=["a.mrc"], output="m.safetensors")
    first.evens.append("e.mrc")
    assert NmsgTrainJob(inputs=["a.mrc"], output="m.safetensors").evens == []
    default_of(NmsgTrainJob, "evens").append("x")
    assert default_of(NmsgTrainJob, "evens") == []


def test_a_list_must_hold_texts():
    with pytest.raises(JobError, match="list of texts"):
        NmsgTrainJob.from_parameters({"inputs": "a.mrc", "output": "m.safetensors"})
    with pytest.raises(JobError, match="list of texts"):
        NmsgTrainJob.from_parameters({"inputs": [1], "output": "m.safetensors"})
    with pytest.raises(JobError, match="one even and one odd half for each"):
        NmsgTrainJob.from_parameters({"inputs": ["a", "b"], "output": "m.safetensors", "evens": ["e"], "odds": ["o"]})


@pytest.mark.parametrize("job", SYSTEMS.values(), ids=SYSTEMS)
def test_every_parameter_has_help_and_a_default_within_its_range(job):
    for name, about in parameters_of(job).items():
        assert about.help and about.help[-1] != "."
        default = default_of(job, name)
        if about.choices:
            assert default in about.choices
        if about.minimum is not None:
            assert about.minimum <= default <= about.maximum
        assert about.help in about.describe()


@pytest.mark.parametrize("system", ["dual denoise", "dual convert", "dual encode-noise", "phantom", "pick"])
def test_a_job_that_keeps_nothing_when_it_is_interrupted_does_not_offer_to_resume(system):
    assert "resume" not in parameters_of(SYSTEMS[system])
    with pytest.raises(JobError, match="unknown parameter 'resume'"):
        SYSTEMS[system].from_parameters({"resume": True})


@pytest.mark.parametrize("system", ["dual denoise", "dual encode-noise", "wbp", "sirt"])
def test_a_job_that_draws_nothing_has_no_seed(system):
    assert "seed" not in parameters_of(SYSTEMS[system])


def test_descriptions_give_unit_range_and_choices():
    about = parameters_of(NmsgJob)
    assert about["voxel_size"].describe().endswith("[angstrom] (0 to 1000)")
    assert "one of fast, default, best, paper" in about["preset"].describe()
    assert "2147483647" in about["seed"].describe()


def test_the_default_of_an_unknown_parameter_is_a_key_error():
    with pytest.raises(KeyError):
        default_of(NmsgJob, "colour")


@pytest.mark.parametrize(
    ("job", "given"),
    [
        (NmsgTrainJob, {"inputs": ["a.safetensors"], "output": "./a.safetensors"}),
        (WbpJob, {"input": "a.mrc", "tilt_angles": "b.mrc", "output": "b.mrc"}),
        (WbpJob, {"input": "a.mrc", "tilt_angles": "a.tlt", "output": "b.mrc", "transforms": "b.mrc"}),
        (MlpJob, {"input": "b_std.mrc", "tilt_angles": "a.tlt", "output": "b.mrc", "ensemble": 2}),
        (DualWedgeJob, {"input": "a.mrc", "tilt_angles": "b.mrc", "output": "b.mrc"}),
    ],
)
def test_no_job_overwrites_its_input(job, given):
    with pytest.raises(JobError, match="is also an input"):
        job.from_parameters(given)


def test_an_output_that_is_an_input_by_another_name_is_found_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mrc").write_text("")
    (tmp_path / "link.mrc").symlink_to("a.mrc")
    with pytest.raises(JobError, match="is also an input"):
        NmsgJob.from_parameters({"input": "link.mrc", "output": "a.mrc"})


@pytest.mark.parametrize("name", ["tomogram", "labels", "particles"])
def test_a_training_set_is_not_written_over_what_it_is_made_of(name):
    given = {"tomogram": "a/t.mrc", "labels": "b/l.mrc", "particles": "c/p.star", "output": "new"}
    assert TrainingSetJob.from_parameters(given).output == "new"
    with pytest.raises(JobError, match="lies in the output folder"):
        TrainingSetJob.from_parameters({**given, name: "new/class_mask.mrc"})


def test_evaluation_does_not_overwrite_its_input():
    with pytest.raises(JobError, match="also an input"):
        EvaluateJob.from_parameters({"test": "a.mrc", "reference": "b.mrc", "output": "b.mrc"})


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json({"a": 1}, str(path))
    with pytest.raises(TypeError):
        write_json({"a": object()}, str(path))
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_lists_of_numbers_are_one_line_each_and_nothing_is_lost(tmp_path):
    content = {
        "curve": [0.5, -1e-09, 3, None, True], "rows": [[1, 2], [3, 4]], "empty": [], "one": [7],
        "text": "[\n 1,\n 2\n]", "[\n  1\n]": ["[\n", "1\n]", 2], "objects": [{"size": [10, 20]}, {}],
    }  # fmt: skip
    write_json(content, str(tmp_path / "x.json"))
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == content
    assert '"curve": [0.5, -1e-09, 3, null, true],\n' in text and '"one": [7],\n' in text
    assert "[1, 2],\n" in text and '"size": [10, 20]\n' in text


def test_the_run_folder_lies_beside_the_output_unless_given():
    assert RunFolder.beside("/data/t.den.mrc").path == "/data/t.den_cryoden"
    assert RunFolder.beside("/data/t.mrc", "/run").result == "/run/result.json"
