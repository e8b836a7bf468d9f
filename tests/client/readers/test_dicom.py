import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import gdcm
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.fileset import FileSet
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from client.readers import BadFileError, read_image
from client.readers.dicom_planes import Plane, stack
from tests.dicoms import (
    AXIAL,
    ORIGIN_MM,
    SPACING_MM,
    header,
    stored_volume,
    with_pixels,
    write_enhanced,
    write_series,
    write_undecodable,
)

# Column index grows to the patient's left, row index to the back, so both axes are turned round.
RAS_VOLUME = (2.0 * stored_volume() - 10).transpose(2, 1, 0)[::-1, ::-1]


def test_a_series_is_a_ras_volume_whatever_its_files_are_called(tmp_path: Path) -> None:
    write_series(tmp_path / "s")
    picture = read_image(tmp_path / "s", 1)
    np.testing.assert_array_equal(picture.array_CS[0], RAS_VOLUME)
    assert picture.array_CS.dtype == np.float32
    assert picture.spacing_mm == SPACING_MM
    # The last column and the last row of the first slice, in RAS.
    corner = [-(ORIGIN_MM[0] + 5 * 2.0), -(ORIGIN_MM[1] + 4 * 3.0), ORIGIN_MM[2]]
    np.testing.assert_allclose(picture.affine, nib.affines.from_matvec(np.diag(SPACING_MM), corner))


def test_every_voxel_lies_where_dicom_says(tmp_path: Path) -> None:
    """The naive way, voxel by voxel, for slices in an oblique direction."""
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    frame[2] = np.cross(frame[0], frame[1])

    def turn(index: int, one: Dataset) -> None:
        place = np.asarray(ORIGIN_MM) + index * SPACING_MM[2] * frame[2]
        one.ImagePositionPatient = [round(float(mm), 6) for mm in place]
        one.ImageOrientationPatient = [round(float(c), 8) for c in frame[:2].ravel()]

    files = write_series(tmp_path / "s", change=turn)
    picture = read_image(tmp_path / "s", 1)
    assert picture.affine is not None
    assert nib.aff2axcodes(picture.affine) == ("R", "A", "S")
    for file in files:
        one = dcmread(file)
        for row, column in ((0, 0), (4, 0), (2, 5)):
            lps = np.asarray(one.ImagePositionPatient) + (
                column * SPACING_MM[0] * frame[0] + row * SPACING_MM[1] * frame[1]
            )
            ras = [-lps[0], -lps[1], lps[2], 1]
            x, y, z = np.rint((np.linalg.inv(picture.affine) @ ras)[:3]).astype(int)
            assert picture.array_CS[0, x, y, z] == 2 * int(one.pixel_array[row, column]) - 10


def _twice(index: int, one: Dataset) -> None:
    if index == 3:
        one.ImagePositionPatient = [*ORIGIN_MM[:2], ORIGIN_MM[2]]


def _uneven(index: int, one: Dataset) -> None:
    one.ImagePositionPatient[2] += (index == 3) * 1.5


def _two_directions(index: int, one: Dataset) -> None:
    if index == 0:
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]


def _tilted(index: int, one: Dataset) -> None:
    one.ImagePositionPatient[1] += index


def _sizes(index: int, one: Dataset) -> None:
    if index == 1:
        with_pixels(one, stored_volume()[0, :4, :4])


def _pixel_sizes(index: int, one: Dataset) -> None:
    if index == 1:
        one.PixelSpacing = [1, 1]


def _nowhere(index: int, one: Dataset) -> None:
    del one.ImagePositionPatient


def _nan(index: int, one: Dataset) -> None:
    one.PixelSpacing = [0, 1]


def _beside(index: int, one: Dataset) -> None:
    one.ImagePositionPatient[0] += 50 * (index == 1)


def _other_frame(index: int, one: Dataset) -> None:
    one.FrameOfReferenceUID = f"1.2.{index // 2}"


def _leaning(index: int, one: Dataset) -> None:
    one.ImageOrientationPatient = [1, 0, 0, 0.7, 0.7, 0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_twice, "1 slices at a place where another one is"),
        (_uneven, "uneven distances"),
        (_two_directions, "slices in 2 directions"),
        (_tilted, "11.3 degrees off their normal"),
        (_sizes, "several sizes"),
        (_pixel_sizes, "several pixel sizes"),
        (_beside, "a slice that lies 50 mm beside the others"),
        (_other_frame, "slices in 2 frames of reference"),
        (_nowhere, "does not say where it lies"),
        (_nan, "no length"),
        (_leaning, "not at right angles"),
    ],
)
def test_slices_that_are_no_volume_are_refused(
    tmp_path: Path, change: Callable[[int, Dataset], None], word: str
) -> None:
    write_series(tmp_path / "s", change=change)
    with pytest.raises(BadFileError) as caught:
        read_image(tmp_path / "s", 1)
    assert word in caught.value.reason


def test_a_missing_slice_is_told_with_its_place(tmp_path: Path) -> None:
    files = write_series(tmp_path / "s", stored_volume(6))
    files[2].unlink()
    with pytest.raises(BadFileError, match=r"lacks slices in 1 places .*5 mm apart, there 10 mm"):
        read_image(tmp_path / "s", 1)


def test_two_series_in_one_folder_are_told(tmp_path: Path) -> None:
    write_series(tmp_path / "s" / "a")
    write_series(tmp_path / "s" / "b")
    with pytest.raises(BadFileError, match="holds 2 series"):
        read_image(tmp_path / "s", 1)


def test_files_of_other_kinds_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path / "s" / "deep" / "er")
    (tmp_path / "s" / "LICENSE").write_text("free")
    (tmp_path / "s" / ".hidden.dcm").write_text("no")
    np.testing.assert_array_equal(read_image(tmp_path / "s", 1).array_CS[0], RAS_VOLUME)


def test_an_empty_folder_is_no_series(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="holds no DICOM file"):
        read_image(tmp_path, 1)


def test_a_dicomdir_is_followed_and_an_absent_file_is_told(tmp_path: Path) -> None:
    index = FileSet()
    for file in write_series(tmp_path / "s"):
        index.add(file)
    index.write(tmp_path / "disc")
    for path in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        np.testing.assert_array_equal(read_image(path, 1).array_CS[0], RAS_VOLUME)
    shutil.rmtree(next(entry for entry in (tmp_path / "disc").iterdir() if entry.is_dir()))
    with pytest.raises(BadFileError):
        read_image(tmp_path / "disc", 1)


def test_frames_of_an_enhanced_image_are_a_volume(tmp_path: Path) -> None:
    pixels = stored_volume(3)
    path = write_enhanced(tmp_path / "e.dcm", pixels, slopes=(1, 2, 3))
    picture = read_image(path, 1)
    scaled = pixels * np.array([1, 2, 3])[:, None, None] + 1
    # From head to feet in the file, so the slices are turned round too.
    np.testing.assert_array_equal(picture.array_CS[0], scaled.transpose(2, 1, 0)[::-1, ::-1, ::-1])
    assert picture.spacing_mm == SPACING_MM
    assert picture.affine is not None
    assert picture.affine[2, 3] == ORIGIN_MM[2] - 2 * SPACING_MM[2]


def test_distances_that_grow_a_little_from_one_end_to_the_other_are_refused() -> None:
    """Each is within the tolerance, and the middle is 2 mm from where an even stack has it."""
    planes = [
        Plane(
            position_mm=(0.0, 0.0, 5 * index + 0.24 * max(0, index - 32)),
            along_row=AXIAL[:3],
            along_column=AXIAL[3:],
            spacing_mm=(1.0, 1.0),
            thickness_mm=5.0,
        )
        for index in range(64)
    ]
    assert len(stack(Path(), planes[:33]).order) == 33
    with pytest.raises(BadFileError, match="distances change from one end to the other"):
        stack(Path(), planes)


def test_enhanced_files_of_one_frame_have_the_values_of_each_alone(tmp_path: Path) -> None:
    uid = generate_uid()
    (tmp_path / "s").mkdir()
    for index in range(3):
        path = tmp_path / "s" / f"{index}.dcm"
        found = dcmread(write_enhanced(path, stored_volume(1), slopes=(10,)))
        (group,) = found.PerFrameFunctionalGroupsSequence
        group.PlanePositionSequence[0].ImagePositionPatient = [*ORIGIN_MM[:2], 5.0 * index]
        found.SeriesInstanceUID, found.FrameOfReferenceUID = uid, uid
        found.save_as(path)
    alone = read_image(tmp_path / "s" / "0.dcm", 1).array_CS
    assert alone.max() == 10 * 29 + 1
    together = read_image(tmp_path / "s", 1).array_CS
    np.testing.assert_array_equal(together, np.repeat(alone, 3, axis=-1))


def test_a_radiograph_is_a_flat_picture_with_its_own_spacing(tmp_path: Path) -> None:
    found = with_pixels(
        header(DigitalXRayImageStorageForPresentation, "DX", ImagerPixelSpacing=[0.3, 0.2]),
        stored_volume()[1].astype(np.uint8),
    )
    found.save_as(tmp_path / "IM0001", enforce_file_format=True)
    picture = read_image(tmp_path / "IM0001", 1)
    np.testing.assert_array_equal(picture.array_CS[0], stored_volume()[1].T)
    assert picture.spacing_mm == (0.2, 0.3)
    assert picture.affine is None


def test_a_radiograph_whose_pixels_have_no_size_is_refused(tmp_path: Path) -> None:
    kind = DigitalXRayImageStorageForPresentation
    found = with_pixels(header(kind, "DX", PixelSpacing=[0, 0]), stored_volume()[1])
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(BadFileError, match="a pixel size that is no length"):
        read_image(tmp_path / "a.dcm", 1)


def test_where_high_is_dark_it_is_turned_round(tmp_path: Path) -> None:
    pixels = stored_volume()[0]
    found = header(DigitalXRayImageStorageForPresentation, "DX")
    with_pixels(found, pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm", 1).array_CS[0], 4095 - pixels.T)


def test_a_quantity_is_never_turned_round(tmp_path: Path) -> None:
    """MONOCHROME1 says how a CT is shown; its numbers are Hounsfield units all the same."""

    def shown_inverted(_: int, one: Dataset) -> None:
        one.PhotometricInterpretation, one.BitsStored, one.HighBit = "MONOCHROME1", 12, 11

    write_series(tmp_path / "s", change=shown_inverted)
    np.testing.assert_array_equal(read_image(tmp_path / "s", 1).array_CS[0], RAS_VOLUME)


def compress(file: Path, syntax: str) -> None:
    if syntax != JPEGLosslessSV1:
        one = dcmread(file)
        one.compress(syntax, generate_instance_uid=False)
        one.save_as(file)
        return
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    changed = gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(file))
    assert reader.Read()
    changed.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    changed.SetInput(reader.GetImage())
    assert changed.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(changed.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_a_compressed_series_has_the_values_of_the_plain_one(tmp_path: Path, syntax: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (3, 64, 64)).astype(np.uint16)
    for file in write_series(tmp_path / "s", pixels):
        compress(file, syntax)
        assert dcmread(file).file_meta.TransferSyntaxUID == syntax
    expected = (2.0 * pixels - 10).transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(read_image(tmp_path / "s", 1).array_CS[0], expected)


def test_a_codec_that_lacks_is_named(tmp_path: Path) -> None:
    path = write_undecodable(tmp_path / "a.dcm", MPEG2MPML)
    with pytest.raises(BadFileError) as caught:
        read_image(path, 1)
    assert MPEG2MPML.name in caught.value.reason
    assert "no codec" in caught.value.reason


def test_a_header_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    found = with_pixels(header(DigitalXRayImageStorageForPresentation, "DX"), stored_volume()[0])
    found.Rows, found.Columns, found.NumberOfFrames = 65535, 65535, 1
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(BadFileError, match="says that it has 4294836225 pixels"):
        read_image(tmp_path / "a.dcm", 1)


def test_channels_and_slices_count_as_pixels_too(tmp_path: Path) -> None:
    def large(_: int, one: Dataset) -> None:
        one.Rows = one.Columns = 2**14

    write_series(tmp_path / "s", change=large)
    with pytest.raises(BadFileError, match=f"says that it has {2**30} pixels"):
        read_image(tmp_path / "s", 1)

    def coloured(_: int, one: Dataset) -> None:
        one.Rows, one.Columns, one.SamplesPerPixel = 2**14, 2**14, 3

    (path,) = write_series(tmp_path / "c", stored_volume(1), change=coloured)
    with pytest.raises(BadFileError, match=f"says that it has {3 * 2**28} pixels"):
        read_image(path, 1)


def test_a_deflated_file_is_inflated_no_further_than_an_image_may_be(tmp_path: Path) -> None:
    path = write_series(tmp_path / "s", np.arange(2**16, dtype=np.uint16).reshape(1, 256, 256))[0]
    found = dcmread(path)
    found.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    found.save_as(path)
    assert read_image(path, 1).array_CS.max() == 2 * (2**16 - 1) - 10
    start = 144 + int(dcmread(path).file_meta.FileMetaInformationGroupLength)
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    pieces = [deflater.compress(bytes(2**24)) for _ in range(17)]
    path.write_bytes(b"".join([path.read_bytes()[:start], *pieces, deflater.flush()]))
    with pytest.raises(BadFileError, match="is deflated and holds more than 268435456 bytes"):
        read_image(path, 1)


def test_no_error_quotes_a_header(tmp_path: Path) -> None:
    """A scanner that writes a name into the wrong attribute: the error must not tell it on."""
    for name in ("PixelSpacing", "RescaleSlope", "NumberOfFrames"):

        def named(_: int, one: Dataset, name: str = name) -> None:
            one.pop(name, None)
            one.add_new(name, "LO", "DOE^JANE")

        write_series(tmp_path / name, change=named)
        with pytest.raises(BadFileError) as caught:
            read_image(tmp_path / name, 1)
        assert "DOE" not in caught.value.reason


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_series(tmp_path_factory.mktemp("whole") / "s")[0].read_bytes()


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(keep=st.floats(0, 1), at=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_whatever_happens_to_the_bytes_only_bad_file_error_is_raised(
    tmp_path: Path, whole: bytes, keep: float, at: float, byte: int
) -> None:
    content = bytearray(whole)
    content[int(at * len(content))] = byte
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(content[: int(keep * len(content)) + 1]))
    try:
        read_image(path, 1)
    except BadFileError as error:
        assert error.path == path  # noqa: PT017 - both outcomes are right


def test_all_real_files_are_read_or_refused_with_a_reason(shared_data: Path) -> None:
    root = shared_data / "dicom"
    read, refused = {}, {}
    whole_series = ("ct_siemens_series", "mr_ge_deidentified", "mr_ge_nih", "mr_siemens_nih")
    for path in [root / name for name in whole_series] + sorted(root.glob("*/*.dcm")):
        try:
            read[path.relative_to(root).as_posix()] = read_image(path, 1)
        except BadFileError as error:
            refused[path.relative_to(root).as_posix()] = error.reason
    shapes = {name: picture.array_CS.shape[1:] for name, picture in read.items()}
    assert shapes["ct_siemens_series"] == (512, 512, 20)
    assert shapes["mr_ge_deidentified"] == (10, 256, 256)
    assert shapes["mr_siemens_nih/epi_pe_ap-00001.dcm"] == (72, 72, 5)
    assert shapes["highdicom/dx_image.dcm"] == (211, 169)
    assert shapes["phi_headers/RGB_IMAGE.dcm"] == (1024, 768)
    assert "15 slices at a place" in refused["mr_ge_nih"]
    assert "holds 4 series" in refused["mr_siemens_nih"]
    assert all(name.startswith(("highdicom/s", "mr_")) for name in refused)
    assert all(len(reason) > 20 for reason in refused.values())


def test_a_site_without_the_libraries_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "s")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(BadFileError, match=r"pip install 'wardround\[clinical\]'"):
        read_image(tmp_path / "s", 1)


def test_a_series_of_its_own_uid_is_one_series(tmp_path: Path) -> None:
    """Two exports of one series into one folder: the same slices twice, which is told."""
    uid = generate_uid()
    write_series(tmp_path / "s" / "a", SeriesInstanceUID=uid)
    write_series(tmp_path / "s" / "b", SeriesInstanceUID=uid)
    with pytest.raises(BadFileError, match="4 slices at a place where another one is"):
        read_image(tmp_path / "s", 1)
