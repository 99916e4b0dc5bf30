"""Files that are whole or not there, and samples as JSON lines."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from researcher.errors import UserError
from researcher.train.sample import Sample


def write_bytes(path: Path, data: bytes) -> None:
    """The file holds these bytes, also after a crash, or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_folder(path: Path, source: Path) -> Path:
    """A copy of a folder's files, whole or not there."""
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(part, path)
    return path


def write_text(path: Path, text: str) -> None:
    """The same for text, as UTF-8."""
    write_bytes(path, text.encode())


def checksum(path: Path) -> str:
    """The sha256 of the file, in hex; of a folder's files, by their names."""
    if path.is_dir():
        listed = "".join(f"{checksum(file)} {file.name}\n" for file in sorted(path.iterdir()) if file.is_file())
        return hashlib.sha256(listed.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """One sample a line."""
    write_bytes(path, b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file. Raises UserError with the line that is broken."""
    decode = msgspec.json.Decoder(Sample).decode
    samples = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            samples.append(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{number}: not a sample ({error}).") from None
    return samples
