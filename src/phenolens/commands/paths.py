"""The paths that commands take: a study or its folder, or any path, as text or Path."""

import os
from pathlib import Path
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from phenolens.study import Study

_PATH = PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=lambda words: Path(words[0]),
    is_instance=lambda value: isinstance(value, str | os.PathLike),
    str_from_instance=lambda value: [str(value)],
)
AnyPath = Annotated[Study | Path | str, _PATH]
