"""MRC files: what is read, what is refused, what is written and what is left behind when writing fails."""

import errno
import os
import stat
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoden_core import mrc
from cryoden_core.jobs import JobError
from cryoden_core.mrc_header import HEADER_BYTES


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(1).normal(3.0, 2.0, (5, 6, 7)).astype(np.float32)


def write_with_mrcfile(path: Path, data: np.ndarray, **header: object) -> str:
    with mrcfile.new(str(path), data, overwrite=True) as file:
        for name, value in header.items():
            file.header[name] = value
    return str(path)


def swap_to_big_endian(path: str, itemsize: int) -> None:
    raw = Path(path).read_bytes()
    header = np.frombuffer(raw[:HEADER_BYTES], dtype=mrcfile.dtypes.HEADER_DTYPE.newbyteorder("<"))
    swapped = bytearray(header.astype(mrcfile.dtypes.HEADER_DTYPE.newbyteorder(">")).tobytes())
    swapped[212:216] = bytes([0x11, 0x11, 0, 0])
    data = np.frombuffer(raw[HEADER_BYTES:], dtype="V%d" % itemsize)
    values = np.frombuffer(data.tobytes(), dtype="<u%d" % itemsize).astype(">u%d" % itemsize)
    Path(path).write_bytes(bytes(swapped) + values.tobytes())


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_real_mode_reads_as_its_values_in_either_byte_order(
    tmp_path: Path, volume: np.ndarray, dtype: str, big_endian: bool
) -> None:
    stored = np.abs(volume * 5).astype(dtype)
    path = write_with_mrcfile(tmp_path / "a.mrc", stored)
    if big_endian:
        swap_to_big_endian(path, stored.dtype.itemsize)
    found = mrc.read_volume(path)
    assert found.dtype == np.float32 and found.dtype.isnative
    np.testing.assert_array_equal(found, stored.astype(np.float32))


def test_big_endian_bytes_of_256_voxels_are_not_taken_for_65536(tmp_path: Path) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", np.ones((2, 256, 256), np.int8))
    swap_to_big_endian(path, 1)
    assert mrc.read_header(path).shape == (2, 256, 256)


def test_a_wrong_machine_stamp_and_a_missing_map_word_do_not_hinder_reading(tmp_path: Path, volume: np.ndarray) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume, machst=(0x11, 0x11, 0, 0), map=b"\0\0\0\0")
    np.testing.assert_array_equal(mrc.read_volume(path), volume)


@pytest.mark.parametrize(("flags", "value"), [(0, 200), (2, 200), (1, -56), (3, -56)])
def test_bytes_are_signed_where_imod_says_so_and_only_there(tmp_path: Path, flags: int, value: int) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", np.full((2, 3, 4), -56, np.int8))
    raw = bytearray(Path(path).read_bytes())
    raw[152:160] = np.array([1146047817, flags], "<i4").tobytes()
    Path(path).write_bytes(raw)
    assert mrc.read_volume(path).max() == value


@pytest.mark.parametrize(("mode", "lowest", "highest"), [("int16", -(2**15), 2**15 - 1), ("uint16", 0, 2**16 - 1)])
def test_labels_are_stored_as_they_are_and_what_does_not_fit_is_refused(
    tmp_path: Path, mode: str, lowest: int, highest: int
) -> None:
    path, labels = str(tmp_path / "a.mrc"), np.full((2, 3, 4), 7.0, np.float32)
    labels[0, 0, :2] = lowest, highest
    mrc.write_volume(path, labels, 10.0, mode=mode)
    with mrcfile.open(path) as file:
        assert file.data.dtype == np.dtype(mode)
        np.testing.assert_array_equal(file.data, labels)
        assert tuple(file.header.origin.tolist()) == (0, 0, 0)
    for wrong, sentence in ((highest + 1, "do not fit"), (lowest - 1, "do not fit"), (6.5, "no whole numbers")):
        labels[1, 1, 1] = wrong
        with pytest.raises(JobError, match=sentence):
            mrc.write_volume(path, labels, mode=mode)
    assert mrc.read_volume(path).max() == highest
    assert [file.name for file in tmp_path.iterdir()] == ["a.mrc"]


def test_an_extended_header_is_skipped_and_never_written(tmp_path: Path, volume: np.ndarray) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume)
    with mrcfile.open(path, "r+") as file:
        file.set_extended_header(np.zeros(768, "V1"))
    assert mrc.read_header(path).data_offset == HEADER_BYTES + 768
    copy = str(tmp_path / "b.mrc")
    mrc.write_volume(copy, mrc.open_volume(path))
    assert os.path.getsize(copy) == HEADER_BYTES + volume.nbytes
    assert mrc.read_header(copy).data_offset == HEADER_BYTES
    np.testing.assert_array_equal(mrc.read_volume(copy), volume)


def test_a_tomogram_marked_as_image_stack_is_a_volume(tmp_path: Path, volume: np.ndarray) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume, ispg=0)
    assert mrc.open_volume(path).shape == volume.shape


def test_header_gives_voxel_size_origin_and_start(tmp_path: Path, volume: np.ndarray) -> None:
    path = write_with_mrcfile(
        tmp_path / "a.mrc", volume, cella=(7 * 10.52, 6 * 10.52, 5 * 10.52), origin=(1, 2, 3), nxstart=4
    )
    header = mrc.read_header(path)
    assert (header.voxel_size, header.origin, header.nstart) == (10.52, (1.0, 2.0, 3.0), (4, 0, 0))


@pytest.mark.parametrize("cell", [0.0, -1.0, np.nan])
def test_a_senseless_cell_is_no_voxel_size(tmp_path: Path, volume: np.ndarray, cell: float) -> None:
    assert mrc.read_header(write_with_mrcfile(tmp_path / "a.mrc", volume, cella=(cell, cell, cell))).voxel_size == 0.0


def test_a_read_only_file_opens_and_its_map_cannot_be_written(tmp_path: Path, volume: np.ndarray) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume)
    os.chmod(path, stat.S_IRUSR)
    opened = mrc.open_volume(path)
    with pytest.raises(ValueError):
        opened[0] = 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no such file"),
        (b"", "not an MRC file"),
        (b"loop_\n_rlnTomoName\n" * 200, "not an MRC file"),
        (b"\x1f\x8b" + bytes(2000), "compressed"),
    ],
)
def test_what_is_no_mrc_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.mrc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=sentence) as caught:
        mrc.open_volume(str(path))
    assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path: Path, volume: np.ndarray) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume)
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(JobError, match="truncated"):
        mrc.open_volume(path)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"mode": 4}, "complex"),
        ({"mode": 3}, "complex"),
        ({"mode": 16}, "RGB"),
        ({"ispg": 401}, "stack of volumes"),
        ({"nz": 1}, "single image of 7 x 6 pixels"),
        ({"mode": 77}, "not an MRC file"),
    ],
)
def test_what_is_no_real_volume_is_refused(tmp_path: Path, volume: np.ndarray, header: dict, sentence: str) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume)
    with mrcfile.open(path, "r+") as file:
        for name, value in header.items():
            file.header[name] = value
    with pytest.raises(JobError, match=sentence):
        mrc.open_volume(path)


@pytest.mark.parametrize("mode", ["float32", "float16", "int8"])
def test_written_and_created_files_are_the_same_valid_mrc2014(tmp_path: Path, volume: np.ndarray, mode: str) -> None:
    written, created = str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc")
    mrc.write_volume(written, volume, 13.5, (1, 2, 3), mode)
    with mrc.create_volume(created, volume.shape, 13.5, (1, 2, 3), mode) as output:
        for section in (4, 0, 2, 1, 3):
            output[section] = volume[section]
    assert Path(written).read_bytes() == Path(created).read_bytes()
    assert mrcfile.validate(written)
    header = mrc.read_header(written)
    assert (header.voxel_size, header.origin, header.ispg) == (13.5, (1.0, 2.0, 3.0), 1)
    assert header.mode == {"float32": 2, "float16": 12, "int8": 0}[mode]
    assert sorted(os.listdir(tmp_path)) == ["a.mrc", "b.mrc"]


def test_a_stack_of_images_says_that_it_is_one(tmp_path: Path, volume: np.ndarray) -> None:
    for stack in (True, False):
        path = str(tmp_path / "a.mrc")
        mrc.write_volume(path, volume, 13.5, stack=stack)
        assert mrcfile.validate(path)
        with mrcfile.open(path) as file:
            assert file.is_image_stack() == stack and float(file.voxel_size.z) == 13.5
        assert mrc.read_header(path).stack == stack
        np.testing.assert_array_equal(mrc.read_volume(path), volume)


def test_the_label_of_an_int8_file_gives_the_densities_back(tmp_path: Path) -> None:
    volume = np.random.default_rng(2).normal(100.0, 7.0, (8, 16, 16)).astype(np.float32)
    path = str(tmp_path / "a.mrc")
    mrc.write_volume(path, volume, mode="int8")
    with mrcfile.open(path) as file:
        label = file.header.label[1].decode()
    offset, scale = (float(text) for text in label.split("= ")[1].replace(" * value", "").split(" + "))
    restored = offset + scale * mrc.read_volume(path)
    assert np.abs(restored - volume).max() <= 0.501 * scale
    assert scale == pytest.approx(6 * volume.std() / 127, rel=1e-5)


def test_int8_clips_beyond_six_deviations_and_never_wraps(tmp_path: Path) -> None:
    volume = np.random.default_rng(3).normal(size=(10, 20, 20)).astype(np.float32)
    volume[0, 0, :2] = 1000.0, -1000.0
    path = str(tmp_path / "a.mrc")
    mrc.write_volume(path, volume, mode="int8")
    found = mrc.read_volume(path)
    assert (found[0, 0, 0], found[0, 0, 1]) == (127.0, -127.0)


@pytest.mark.parametrize("factor", [1e5, 1e-6])
def test_values_that_float16_would_spoil_are_refused(tmp_path: Path, volume: np.ndarray, factor: float) -> None:
    with pytest.raises(JobError, match="float16"):
        mrc.write_volume(str(tmp_path / "a.mrc"), volume * factor, mode="float16")
    assert os.listdir(tmp_path) == []


def test_nan_is_never_written(tmp_path: Path, volume: np.ndarray) -> None:
    with pytest.raises(JobError, match="NaN"), mrc.create_volume(str(tmp_path / "a.mrc"), volume.shape) as output:
        output[2, 2, 2] = np.nan
    assert os.listdir(tmp_path) == []


def test_a_created_volume_begins_as_zeros(tmp_path: Path) -> None:
    with mrc.create_volume(str(tmp_path / "a.mrc"), (2, 3, 4)) as output:
        assert output.shape == (2, 3, 4) and not output.any()
        output[1] = 1


def test_an_interrupted_block_leaves_the_old_file_and_no_temporaries(tmp_path: Path, volume: np.ndarray) -> None:
    path = str(tmp_path / "a.mrc")
    mrc.write_volume(path, volume)
    with pytest.raises(KeyboardInterrupt), mrc.create_volume(path, volume.shape) as output:
        output[:] = 9
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.mrc"]
    np.testing.assert_array_equal(mrc.read_volume(path), volume)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("mode", ["float32", "int8"])
@pytest.mark.parametrize("call", ["posix_fallocate", "fsync"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch, mode: str, call: str
) -> None:
    monkeypatch.setattr(mrc.os, call, full_disk)
    with (
        pytest.raises(JobError, match="no space left"),
        mrc.create_volume(str(tmp_path / "a.mrc"), volume.shape, mode=mode) as output,
    ):
        output[:] = volume
    assert os.listdir(tmp_path) == []


def test_a_full_disk_while_writing_leaves_nothing(
    tmp_path: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mrc.os, "fsync", full_disk)
    with pytest.raises(JobError, match="no space left"):
        mrc.write_volume(str(tmp_path / "a.mrc"), volume)
    assert os.listdir(tmp_path) == []


def test_a_file_system_that_cannot_reserve_gets_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(mrc.os, "posix_fallocate", unsupported)
    monkeypatch.setattr(mrc, "SLAB_BYTES", 1000)
    with mrc.create_volume(str(tmp_path / "a.mrc"), (3, 20, 30)) as output:
        assert os.stat(output.filename).st_blocks * 512 >= 1024 + output.nbytes
        output[1] = 1
    assert mrc.read_volume(str(tmp_path / "a.mrc")).sum() == 600


def test_an_error_of_the_caller_inside_the_block_is_not_taken_for_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), mrc.create_volume(str(tmp_path / "a.mrc"), (2, 3, 4)):
        (tmp_path / "absent").read_text()


def test_unwritable_places_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot write"):
        mrc.check_writable(str(tmp_path / "file" / "a.mrc"))
    with pytest.raises(JobError, match="is a folder"):
        mrc.check_writable(str(tmp_path))
    mrc.check_writable(str(tmp_path / "new" / "a.mrc"))
    assert os.listdir(tmp_path / "new") == []


def test_statistics_by_slabs_equal_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.random.default_rng(4).normal(1e4, 1.0, (13, 8, 8)).astype(np.float32)
    volume[7:] += 5
    monkeypatch.setattr(mrc.slabs, "__defaults__", (3 * 8 * 8 * 4,))
    assert len(list(mrc.slabs(volume))) == 5
    found = mrc.volume_statistics(volume)
    assert found.mean == pytest.approx(volume.mean(dtype=np.float64), rel=1e-12)
    assert found.sd == pytest.approx(volume.std(dtype=np.float64), rel=1e-9)
    assert (found.minimum, found.maximum) == (volume.min(), volume.max())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_is_found(tmp_path: Path, volume: np.ndarray, value: float) -> None:
    path = write_with_mrcfile(tmp_path / "a.mrc", volume)
    np.memmap(path, "<f4", "r+", HEADER_BYTES, volume.shape)[4, 5, 6] = value
    with pytest.raises(JobError, match="NaN or infinite") as caught:
        mrc.check_finite_and_varying(path)
    assert path in str(caught.value)


def test_a_constant_volume_is_refused_by_its_name() -> None:
    with pytest.raises(JobError, match="the even half is constant: every voxel is 3"):
        mrc.check_finite_and_varying(np.full((2, 3, 4), 3.0, np.float32), "the even half")


def test_a_real_subtomogram_reads_with_its_voxel_size(test_data: Path) -> None:
    path = str(test_data / "microtubule" / "13pf_MT.mrc")
    assert mrc.read_header(path).voxel_size == 10.52
    assert mrc.check_finite_and_varying(path).sd > 0
    assert mrc.read_volume(path).shape == (36, 206, 94)
