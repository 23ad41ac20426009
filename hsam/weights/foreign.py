"""What a file that should hold weights is instead; told without PyTorch."""

from pathlib import Path


def text_instead(path: str | Path) -> str | None:
    """What a file without weights is instead, with advice; None where it may hold weights."""
    with open(path, "rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "an empty file: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS instead of the file: run `git lfs pull` where it came from"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, such as an error of the server: download the file again"
    return None
