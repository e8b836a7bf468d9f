import os
from pathlib import Path

import pytest

from client.manifest import Row, read_folder, read_manifest, stated_sides


def manifest(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_csv_and_tsv_say_the_same(tmp_path: Path) -> None:
    text = (
        "image,mask,patient,split,age\nim/a.png,m/a.png,p1,train,64\n/far/b.png,m/b.png,p2,test,\n"
    )
    rows = read_manifest(manifest(tmp_path, text))
    assert rows == [
        Row(
            image=tmp_path / "im/a.png",
            mask=tmp_path / "m/a.png",
            patient="p1",
            split="train",
            covariates={"age": "64"},
        ),
        Row(image=Path("/far/b.png"), mask=tmp_path / "m/b.png", patient="p2", split="test"),
    ]
    assert read_manifest(manifest(tmp_path, text.replace(",", "\t"), "manifest.tsv")) == rows


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffimage,label,patient\na.png,sick,p\n",
        "image,label,patient\r\na.png,sick,p\r\n",
        "patient,label,image\n\np , sick,a.png\n\n",
        'image,label,patient\n"a.png","sick",p',
    ],
)
def test_what_spreadsheets_write_reads_the_same(tmp_path: Path, text: str) -> None:
    row = Row(image=tmp_path / "a.png", label="sick", patient="p")
    assert read_manifest(manifest(tmp_path, text)) == [row]


def test_a_cell_may_hold_commas_and_line_breaks_in_quotes(tmp_path: Path) -> None:
    text = 'image,label,patient,note\na.png,sick,p,"one, two\nthree"\n'
    (row,) = read_manifest(manifest(tmp_path, text))
    assert row.covariates == {"note": "one, two\nthree"}


def test_an_image_that_nobody_has_labelled_is_a_row(tmp_path: Path) -> None:
    head = "image,mask,label,patient\n"
    rows = read_manifest(manifest(tmp_path, head + "a.png,m.png,,p\nb.png,n/a,sick,q\nc.png,,,r\n"))
    assert [(row.mask, row.label) for row in rows] == [
        (tmp_path / "m.png", None),
        (None, "sick"),
        (None, None),
    ]


def test_images_of_a_site_without_labels_are_listed_by_image_and_patient(tmp_path: Path) -> None:
    (row,) = read_manifest(manifest(tmp_path, "image,patient\na.png,p\n"))
    assert (row.mask, row.label, row.patient) == (None, None, "p")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no column 'image'; its columns are: none"),
        ("img,mask,patient\n", "no column 'image'; its columns are: 'img', 'mask', 'patient'"),
        ("image,mask\n", "no column 'patient'"),
        ("image;mask;patient\na;b;c\n", "its columns are: 'image;mask;patient'"),
        ("image,mask,mask,patient\n", "more than one column 'mask'"),
        ("image,mask,patient\n", "no rows"),
        ("image,mask,patient\na,b,p\n,b,q\n", "line 3 of .* column 'image'"),
        ("image,mask,patient\na,b,\n", "line 2 of .* column 'patient'"),
        ("image,mask,patient,split\na,b,p,\n", "line 2 of .* column 'split'"),
        ("image,mask,patient,split\na,b,p,val\n", "split 'val'; write one of: train, test"),
        ("image,mask,patient\na,b\n", "line 2 .* has 2 cells, the header has 3"),
        ("image,mask,patient\na,b,c,d\n", "line 2 .* has 4 cells"),
        (
            "image,mask,patient,split\na,b,p7,train\nc,d,p7,test\n",
            "patient 'p7' is in both train and test; put all",
        ),
        ('image,mask,patient\na,b,"' + "c" * 200_000, "quote that is not closed"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_manifest(manifest(tmp_path, text))


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.xlsx'; save it as \.csv or \.tsv"):
        read_manifest(tmp_path / "manifest.xlsx")
    with pytest.raises(ValueError, match="does not exist"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_bytes("image,mask,patient\nä,b,c\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_images_and_masks_meet_by_name(tmp_path: Path, masks: str) -> None:
    touch(tmp_path / "images" / "b.nii.gz", tmp_path / "images" / "a.nii.gz")
    touch(tmp_path / masks / "a.nii.gz", tmp_path / masks / "b.nii", tmp_path / "images/.hidden")
    assert read_folder(tmp_path) == [
        Row(
            image=tmp_path / "images" / "a.nii.gz", mask=tmp_path / masks / "a.nii.gz", patient="a"
        ),
        Row(image=tmp_path / "images" / "b.nii.gz", mask=tmp_path / masks / "b.nii", patient="b"),
    ]


def test_an_image_without_a_mask_stays_a_row(tmp_path: Path) -> None:
    touch(tmp_path / "images/a.png")
    assert read_folder(tmp_path) == [Row(image=tmp_path / "images/a.png", patient="a")]


def test_a_sub_folder_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path / "sick/b.jpeg", tmp_path / "well/a.jpeg", tmp_path / "README.txt")
    assert read_folder(tmp_path) == [
        Row(image=tmp_path / "sick/b.jpeg", label="sick", patient="b"),
        Row(image=tmp_path / "well/a.jpeg", label="well", patient="a"),
    ]


def test_what_is_wrong_with_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        read_folder(tmp_path / "gone")
    with pytest.raises(ValueError, match="holds no images"):
        read_folder(tmp_path)
    touch(tmp_path / "images/a.png", tmp_path / "masks/a.png", tmp_path / "masks/b.png")
    with pytest.raises(ValueError, match=r"masks/b\.png has no image .*1 of 2 masks"):
        read_folder(tmp_path)
    os.rename(tmp_path / "masks/b.png", tmp_path / "masks/a.nii")
    with pytest.raises(ValueError, match="are masks of one image"):
        read_folder(tmp_path)


def test_rows_state_all_sides_or_none() -> None:
    train = Row(image=Path("a"), patient="p", split="train")
    test = Row(image=Path("b"), patient="q", split="test")
    assert stated_sides([train, test]) == {"p": "train", "q": "test"}
    assert stated_sides([Row(image=Path("c"), patient="r")]) == {}
    with pytest.raises(ValueError, match="1 of 2 rows have no split"):
        stated_sides([train, Row(image=Path("c"), patient="r")])


def test_columns_of_sequences_are_files_beside_the_covariates(tmp_path: Path) -> None:
    text = "image,patient,label,image_t1,image_t2,age\na.png,p,sick,b.png,,51\n"
    (row,) = read_manifest(manifest(tmp_path, text))
    assert row.sequences == {"t1": tmp_path / "b.png"}
    # The cell may be a word too, as image_quality: what it is is for a study to say.
    assert row.covariates == {"age": "51", "image_t1": "b.png"}
    (told,) = read_manifest(manifest(tmp_path, f"image,patient,image_note\na.png,p,{'x' * 300}\n"))
    assert (told.sequences, told.covariates) == ({}, {"image_note": "x" * 300})
    assert row.files == [tmp_path / "a.png", tmp_path / "b.png"]
