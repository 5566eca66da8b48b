"""A program that does with each file what `entice publish` does before the daemon sees it: `... DIRECTORY FILE ...`.

Prints, in JSON, for each file whether it was refused, and else whether what it decodes to holds the bytes of SECRET.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from enticed.image.containers import decode, inspect_container
from enticed.image.formats import ImageFormat, detect
from enticed.image.source import inspect, open_source
from protocol.errors import EnticedError

SECRET = b"this is for nobody but its owner"


def main(directory: Path, files: list[Path]) -> None:
    print(json.dumps({str(file): outcome(file, directory) for file in files}))


def outcome(file: Path, directory: Path) -> str:
    fd = open_source(file)
    try:
        source = inspect(fd)
        form = detect(source)
        if form is ImageFormat.RAW:
            return "raw"
        raw = asyncio.run(_decode(source, directory))
    except EnticedError as error:
        return f"refused: {error}"
    finally:
        os.close(fd)
    try:
        return "leaked" if SECRET in os.pread(raw, 1 << 20, 0) else "decoded"
    finally:
        os.close(raw)


async def _decode(source, directory: Path) -> int:  # type: ignore[no-untyped-def]
    return await decode(await inspect_container(source, detect(source)), directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
