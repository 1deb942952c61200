"""Encode rows of numbers as vLLM does: as base64 of their bytes, or as one block of bytes. Pure."""

import sys
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tureen.errors import Unprocessable

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class Encoding:
    """The type of the numbers, and the order of their bytes: ``native``, ``big`` or ``little``."""

    dtype: str
    endianness: str

    def block(self, row: Sequence[float]) -> bytes:
        """Encode a row.

        Raises:
            Unprocessable: a number is too large for the type.
        """
        dtype = DTYPES[self.dtype]
        if any(abs(number) > torch.finfo(dtype).max for number in row):
            message = f"a reward is too large for {self.dtype}; send `embed_dtype: float32`"
            raise Unprocessable(message, param="embed_dtype", code="out_of_range")
        octets = torch.tensor(row, dtype=torch.float32).to(dtype).view(torch.uint8).reshape(len(row), -1)
        if self.endianness not in ("native", sys.byteorder):
            octets = octets.flip(1)
        return bytes(octets.flatten().tolist())

    def text(self, row: Sequence[float]) -> str:
        """Encode a row in base64."""
        return b64encode(self.block(row)).decode()

    def blocks(self, rows: Sequence[Sequence[float]]) -> tuple[bytes, list[dict[str, Any]]]:
        """Encode all rows as one block. Returns it, and for each row its type, shape and place in the block."""
        places: list[dict[str, Any]] = []
        end = 0
        blocks = [self.block(row) for row in rows]
        kind = {"embed_dtype": self.dtype, "endianness": self.endianness}
        for index, (row, block) in enumerate(zip(rows, blocks, strict=True)):
            start, end = end, end + len(block)
            places.append({"index": index, **kind, "start": start, "end": end, "shape": [len(row)]})
        return b"".join(blocks), places
