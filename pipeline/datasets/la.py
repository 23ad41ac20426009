"""LA: late gadolinium-enhanced cardiac MR, left atrium (2018 Atrial Segmentation Challenge).

Two forms are read: `mri_norm2.h5`, cropped and normalised, which UA-MT and most of the
semi-supervised literature use, and the challenge's own NRRD files. HDF5 axes are (x, y, z),
growing to the patient's left, back and head (LPS); the spacing is 0.625 mm along each.
"""

from pathlib import Path

from pipeline.core import files
from pipeline.core.params.blocks import Dataset, Percentile
from pipeline.datasets.base import (
    MR_PERCENTILES,
    CanonicalSplit,
    CaseList,
    DataSet,
    LabelMap,
    RawCase,
)

HDF5, IMAGE, LABEL = "mri_norm2.h5", "lgemri.nrrd", "laendo.nrrd"

# UA-MT's data/train.list and data/test.list, in their order.
TRAIN_LIST = """
    06SR5RBREL16DQ6M8LWS 0RZDK210BSMWAA6467LU 1D7CUD1955YZPGK8XHJX 1GU15S0GJ6PFNARO469W
    1MHBF3G6DCPWHSKG7XCP 23X6SY44VT9KFHR7S7OC 2XL5HSFSE93RMOJDRGR4 38CWS74285MFGZZXR09Z
    3C2QTUNI0852XV7ZH4Q1 3DA0T2V6JJ2NLUAV6FWM 4498CA6DZWELOXCBRYRF 45C45I6IXAFGNRO067W9
    4CHFJGF6ZUM7CMZTNFQF 4EPVTT1HPA8U60CDUKXE 57SGAJMLCTCH92QUA0EE 5BHTH9RHH3PQT913I59W
    5FKQL4K14KCB72Y8YMC2 5HH0WPWIY06DLAFOBQ4M 5QFK2PMHNX7UALK52NNA 5UB5KFD2PK38Z4LS6W80
    6799D6LEBH3NSRV1KH27 78NJ5YFQF72BGC8RO51C 7FUCNXB39F78WTOP5K71 8GYK8A9MBRC9TV0FVSRA
    8M99G0JLAXG9GLPV0O8G 8RE90C8H5DKF4V6HO8UU 8ZG2TRZ81MAWHZPN9KKG 9DCM2IB45SK6YKQNYUQY
    9DHWWP5Y66VDMPXISZ13 9DQYTIU00I4JC0OEOKQQ A11O45O3NAXWM7T2H8CH A4R1S23KR0KU2WSYHK2X
    A5RNNK0A891WUSC2V624 AT5CRO5JUDBWD4RUPXSQ BNK95S2SJXEGSW7VAKYU BXJWOUYP2J3EN4U92517
    BYSRSI3H4YTWKMM3MADP BZUFJX66T0W6ZPVTL9DU CB5P5W7X310NIIVU7UZV CBIJFVZ5L9BS0LKWE8YL
    CCGAKN4EDT72KC8TTJ76 CLXFYOBQDCVXQ9P7YC07 CMPXO4J23G58J53Q98SZ CZPMV6KWZ4I7IJJP9FOK
    DLKXBV73A55ZTSZ0QQI2 DQ5UYBGR5QP6L692QSG6 DYXSCIWHLSUOZIDDSZ40 E2ZMO66WGS74UKXTZPPQ
    EJ5V7SPR4961JWD6SS8V FGM5NIWN3URY4HF4WNUW GSC9KNY0VEZXFSGWNF25 HVE7DR3CUA2IM3RC6OMA
    HZZ4O0BRKF8S0YX3NNF7 I2VZ7N8H9QYNYT7ZZF1Y IDWWHGWJ5STOQXSDT6GU IIY6TYJMTJIZRIZLB9YW
    IJJY51YW3W4YJJ7DTVTK IQYKPTWXVV9H0IHB8YXC JEC6HJ7SQJXBKVREX03F JGFOLWJF7YCYD8DPHQNH
    K32FD6LRSUSSXGS1YUOX KM5RYAMP4P4ZP6XWP3Q2 KSNYHUBHHUJTYJ14UQZR LH4FVU3TQDEC87YGN6FL
    LJSDNMND9SHKM7Q4IRHJ MFTDVMBWFNQ3F5KHBRDR MJHV7F65TB2A76CQLOC3 MVKIPGBKTNSENNP1S4HB
    O5TSIKRD4AIB8K84WIR9 OIRDLE32TXZX942FVZMM P1OTI3IWJUIB5NRLULLH PVNXUK681N9BY14K4Z86
    Q0MEX9ZIKAGJORSPLQ3Y Q7J0WYM695R9MA285ZW0 QZC1W0FNR19KJFLOCFLH R8ER97O9UUN77C02VE2J
    RSZY41MT2FGDKHWWL5L2 SN4LF8SGBSRQUPTDSX78 TDDI6L3Y0L9VVFP9MNFS UZUZZT2W9IUSHL6ASOX3
"""
TEST_LIST = """
    UPT6DX9IQY9JAZ7HJKA7 UTBUJIWZMKP64E3N73YC ULHWPWKKLTE921LQLH1P V0MZOWJ6MU3RMRCV9EXR
    VDOF02M8ZHEAADFMS6NP VG4C826RAAKVMV9BQLVD VIXBEFTNVHZWKAKURJBN VQ2L3WM8KEVF6L44E6G9
    WBG9WYZ1B25WDT5WAT8T WMDG2EFA6L2SNDZXIRU0 WNPKE0W404QE9AELX1LR WSJB9P4JCXUVHBOYFVWL
    WW8F5CO4S4K5IM5Z7EXX X18LU5AOBNNDMLTA0JZL XYDLYJ5CS19FDBVLJIPI Y7ZU0B2APPF54WG6PDMF
    YDKD1HVHSME6NVMA8I39 Z9GMG63CJLL0VW893BB1 ZIJLJAVQV3FJ6JSQOH1E ZQPMJ4XEC5A4BISD45P1
"""


TRAIN, TEST = tuple(TRAIN_LIST.split()), tuple(TEST_LIST.split())


class LeftAtrium(DataSet):
    """The left atrium data; case ids are the names of the folders."""

    name = "la"
    called = "LA"
    published_axes = "SLP"  # HDF5 arrays (x, y, z) -> (z, x, y)
    layout = f"<case>/{HDF5}, or <case>/{IMAGE} and <case>/{LABEL}"
    source = (
        "github.com/yulequan/UA-MT, folder data (HDF5), or the 2018 Atrial Segmentation Challenge "
        "(NRRD)"
    )
    remark = (
        f"The left atrium data as distributed for semi-supervised learning ({HDF5}) are cropped "
        "around the true atrium: the model is told roughly where it lies, so scores on them say "
        f"less than scores on whole scans (the challenge's {IMAGE})."
    )

    def _find_cases(self, dataset: Dataset) -> CaseList:
        found = CaseList()
        for folder in files.entries(Path(dataset.root)):
            hdf5, image, label = (folder / name for name in (HDF5, IMAGE, LABEL))
            if hdf5.is_file():
                found.add(RawCase(folder.name, hdf5, hdf5, "image", "label"))
            elif image.is_file() or label.is_file():
                found.add(RawCase(folder.name, image, label if label.is_file() else None))
        return found

    def _labels(self, dataset: Dataset) -> LabelMap:
        # 1 in the HDF5 files, 255 in the challenge's NRRD files
        return LabelMap({"left atrium": (1, 255)})

    def intensity(self, dataset: Dataset) -> Percentile:
        """The percentiles for MR."""
        return MR_PERCENTILES

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """UA-MT's 80 training and 20 test volumes."""
        return CanonicalSplit(TRAIN, TEST)
