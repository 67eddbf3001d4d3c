"""The numbers and texts that a manifest is made of, with their bounds: it may come from anywhere."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: Forward slashes, and names that are the same on every file system; no absolute path, no "..", nothing hidden.
RelativePath = Annotated[
    str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z", max_length=512)
]
#: Names a folder, and has no dot: the store puts one between the name and a number.
FolderName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_-]*\Z", max_length=128)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Count = Annotated[int, msgspec.Meta(ge=0)]
#: A share of something, with room for rounding, and what such a share has changed by.
Rate = Annotated[float, msgspec.Meta(ge=-1e-6, le=1 + 1e-6)]
Change = Annotated[float, msgspec.Meta(ge=-1 - 1e-6, le=1 + 1e-6)]
#: Times, speeds and sizes.
Quantity = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
#: What may be below zero: temperatures, and energy of which more was subtracted than there was.
Signed = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
#: What a system or an engine calls something, and a line that says why.
Name = Annotated[str, msgspec.Meta(max_length=128)]
Reason = Annotated[str, msgspec.Meta(max_length=1024)]
