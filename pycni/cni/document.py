# SPDX-License-Identifier: Apache-2.0
"""JSON from others, read as Go's encoding/json would read it: most of them are Go programs.

Keys match without regard to case, null counts as absent, bytes that are not UTF-8 are replaced.
What Go refuses is refused: NaN, a byte order mark, anything after the value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pycni.cni.plugin import STDIN_LIMIT
from pycni.errors import DecodingError

HINT = "whoever writes it must write one JSON document, as the CNI specification has it"


def decode(text: bytes, *, what: str) -> Any:
    """The value in `text`; raises DecodingError (code 6), whose message begins with `what`."""
    if len(text) > STDIN_LIMIT:
        raise DecodingError(f"{what} is over the limit of {STDIN_LIMIT} bytes", hint=HINT)
    try:
        return json.loads(text.decode(errors="replace"), parse_constant=_refuse)
    except RecursionError:
        raise DecodingError(f"{what} is nested too deeply to be decoded", hint=HINT) from None
    except ValueError as error:
        raise DecodingError(f"{what} is no JSON document", details=str(error), hint=HINT) from error


def pick(document: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The values that `document` has for `keys`, under the spelling of `keys`.

    Absent and null values are left out. A key in the exact spelling wins over one in another case.
    """
    folded = {key.lower(): value for key, value in document.items()}
    found = {key: document.get(key, folded.get(key.lower())) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed")
