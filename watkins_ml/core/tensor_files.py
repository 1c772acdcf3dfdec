"""Reading untrusted files of tensors: tensors only, of a limited size."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import torch

from watkins_ml.core.errors import first_line

KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *(f"torch {kind}Storage" for kind in KINDS)}
"""What the pickle in a file of tensors names; torch allows more, some of which takes any amount of memory."""
OPCODES = frozenset(
    "PROTO STOP GLOBAL REDUCE BINPERSID MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM "
    "SETITEMS APPEND APPENDS BINPUT LONG_BINPUT BINGET LONG_BINGET BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "NEWTRUE NEWFALSE NONE".split()
)
MOST_ENTRIES, MOST_DESCRIPTION = 10_000, 4 << 20
NO_TENSORS = "it holds something else than tensors; a file's own code is never run"


def read_tensors(path: Path, most: int) -> dict[str, torch.Tensor]:
    """The tensors by name that `write_tensors` put into a file, on the CPU; `most` is how many bytes they may take.

    Raises:
        ValueError: it is another file, damaged, or larger; the message is the reason.
        OSError: it cannot be read.
    """
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{size:,} bytes, where at most {most:,} are needed")
    content = path.read_bytes()
    try:
        _check(zipfile.ZipFile(io.BytesIO(content)), most)
    except zipfile.BadZipFile:
        raise ValueError("it is no file of tensors, or torn") from None
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(why(error)) from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError(NO_TENSORS)
    if (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > most
    ):  # a small storage can be expanded to a large tensor
        raise ValueError(f"its tensors would take more than the {most:,} bytes that are needed")
    return tensors


def why(error: Exception) -> str:
    """Why torch could not load a file, without its advice to allow the running of code."""
    return NO_TENSORS if isinstance(error, pickle.UnpicklingError) else first_line(error)


def _check(archive: zipfile.ZipFile, most: int) -> None:
    """Raises a ValueError unless all that torch would make of an archive is tensors of the announced size."""
    entries = archive.infolist()
    if any(each.compress_type != zipfile.ZIP_STORED for each in entries):
        raise ValueError("it is compressed, as files of tensors are not")
    if len(entries) > MOST_ENTRIES or sum(each.file_size for each in entries) > most:
        raise ValueError(f"it unpacks to more than the {most:,} bytes that are needed")
    if damaged := archive.testzip():  # torch itself does not look at the checksums
        raise ValueError(f"wrong checksum of {damaged}")
    pickles = [each for each in entries if each.filename.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1 or pickles[0].file_size > MOST_DESCRIPTION:
        raise ValueError("it is no file of tensors")
    for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
        if opcode.name not in OPCODES or (opcode.name == "GLOBAL" and argument not in GLOBALS):
            raise ValueError(NO_TENSORS)
