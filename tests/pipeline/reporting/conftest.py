"""The folder of studies that the tests of pages share with those of the studies."""

from tests.pipeline.studies.conftest import workflow

__all__ = ["workflow"]
