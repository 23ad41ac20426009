import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_leaves_no_foreign_packages_behind():
    unwanted = ("segment_anything", "torchvision", "timm", "monai")
    found = f"[name for name in {unwanted} if name in sys.modules]"
    code = f"import sys, hsam; hsam.build_hsam; print({found})"
    assert run(code) == "[]"


def test_modules_are_those_of_the_installed_package():
    code = "import inspect, hsam.sam; print(inspect.getfile(hsam.sam.PromptEncoder))"
    assert "segment_anything/modeling/prompt_encoder.py" in run(code).replace("\\", "/")


def test_missing_package_is_named():
    code = """
import importlib.util
importlib.util.find_spec = lambda name: None
try:
    import hsam
    hsam.build_hsam
except ImportError as error:
    print(error)
"""
    assert "segment-anything" in run(code)
