import numpy as np

from pipeline.shards.case import ShardReader
from pipeline.training.prepared import Volumes
from tests.pipeline.conftest import save_shard


def test_volumes_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    for number, case in enumerate("ab"):
        labels = np.full((2, 4, 4), number, np.uint8)
        save_shard(tmp_path / f"{case}.parquet", labels / 2, labels)
    read, opened = ShardReader.read_volume, []
    monkeypatch.setattr(
        ShardReader, "read_volume", lambda self: opened.append(self.path.stem) or read(self)
    )
    volumes = Volumes(tmp_path, ("a", "b"))
    assert len(volumes) == 2
    for _ in range(2):
        for case in "ab":
            images, labels = volumes.read(case)
            assert opened.pop() == case and not opened
            assert (images == labels / 2).all()
