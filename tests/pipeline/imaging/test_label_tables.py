from pipeline.imaging import label_tables
from pipeline.imaging.colours import organ_colours, rgb

NAMES = ["left atrium", "liver"]
ATRIUM = [str(value) for value in rgb(organ_colours(NAMES)[0])]


def test_itk_snap_reads_index_colour_and_name():
    lines = label_tables.itk_snap(NAMES).splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    assert rows[0].split()[:4] == ["0", "0", "0", "0"]
    assert rows[1].split(maxsplit=7) == ["1", *ATRIUM, "1", "1", "1", '"left atrium"']
    assert rows[2].endswith('"liver"')


def test_slicer_reads_five_numbers_and_a_name_without_spaces():
    rows = [row for row in label_tables.slicer(NAMES).splitlines() if not row.startswith("#")]
    assert [len(row.split()) for row in rows] == [6] * 3
    assert rows[1].split() == ["1", "left_atrium", *ATRIUM, "255"]


def test_both_files_lie_in_the_folder(tmp_path):
    label_tables.write_label_files(tmp_path, NAMES)
    assert (tmp_path / label_tables.SLICER).read_text() == label_tables.slicer(NAMES)
    assert '"liver"' in (tmp_path / label_tables.ITK_SNAP).read_text()
