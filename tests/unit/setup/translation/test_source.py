# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/source.py: files that are no configuration of a plugin that is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pycni.cli.output import to_json
from pycni.errors import DecodingError, FileError, InvalidConfig, PycniError
from pycni.setup.translation import source
from pycni.setup.translation.proposal import translate
from unit.setup.translation.samples import BRIDGE, FILE, PORTMAP, PROTOTYPE


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", DecodingError, "is no JSON"),
        (b"{", DecodingError, "is no JSON"),
        (b"// a comment\n{}", DecodingError, "is no JSON"),
        (b'{"subnet": __NODE_SUBNET__}', DecodingError, "is no JSON"),
        (b'{"mtu": NaN}', DecodingError, "is no JSON"),
        (b'{"mtu": 1e999}', DecodingError, "is no JSON"),
        (b'{"mtu": ' + b"1" * 5000 + b"}", DecodingError, "is no JSON"),
        (b'{"type": "bridge", "type": "ptp"}', DecodingError, "is no JSON"),
        (b"\xef\xbb\xbf{}", DecodingError, "is no JSON"),
        (b"\xff\xfe", DecodingError, "is not UTF-8"),
        (b"[" * 100_000, DecodingError, "nested too deeply"),
        (b"[]", DecodingError, "it is a list, not an object"),
        (b"[{}]", DecodingError, "it is a list, not an object"),
        (b'"testcni"', DecodingError, "it is text, not an object"),
        (b"null", DecodingError, "it is null, not an object"),
        (b"7", DecodingError, "it is a number, not an object"),
        (b"{}", InvalidConfig, "it has no `type`"),
        (b'{"type": 3}', InvalidConfig, "it has no `type`"),
        (b'{"plugins": []}', InvalidConfig, "one plugin or more, not an empty list"),
        (b'{"plugins": {}}', InvalidConfig, "one plugin or more, not an object"),
        (b'{"plugins": ["bridge"]}', InvalidConfig, "plugins[0] has no `type`"),
        (b'{"plugins": [{"type": "ptp"}, {}]}', InvalidConfig, "plugins[1] has no `type`"),
        (b'{"type": "calico"}', InvalidConfig, "nothing is known here of the plugin 'calico'"),
        (b'{"type": "\\ud800\\n"}', InvalidConfig, "nothing is known here"),
        (b'{"type": "pycni"}', InvalidConfig, "is a list of pycni already"),
    ],
)
def test_a_file_that_is_no_configuration(
    content: bytes, error: type[PycniError], message: str
) -> None:
    with pytest.raises(error) as raised:
        translate(content, FILE)

    assert str(FILE) in raised.value.message
    assert message in raised.value.message
    assert raised.value.hint


def test_what_is_nested_is_told_or_can_be_printed() -> None:
    for depth in range(100, 1100, 50):
        content = b'{"type": "testcni", "x": ' + b"[" * depth + b"]" * depth + b"}"
        try:
            done = translate(content, FILE)
        except DecodingError:
            continue
        assert to_json([one.value for one in done.findings])


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ([BRIDGE, BRIDGE], "has the plugin bridge twice"),
        ([PROTOTYPE, PORTMAP, PORTMAP], "has the plugin portmap twice"),
        ([BRIDGE, PROTOTYPE], "bridge and testcni both make an interface"),
        ([PORTMAP, BRIDGE], "nothing is known here of the plugin 'portmap'"),
    ],
)
def test_plugins_that_cannot_be_in_one_list(plugins: list[object], message: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        translate(json.dumps({"plugins": plugins}).encode(), FILE)

    assert message in raised.value.message


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="it is a directory, not a regular file"):
        source.read(tmp_path)
    with pytest.raises(FileError, match="No such file"):
        source.read(tmp_path / "nothing")


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as huge:
        huge.truncate(1 << 40)

    with pytest.raises(FileError, match=f"it has more than {source.SIZE_MAX} bytes"):
        source.read(file)
    with pytest.raises(FileError, match="/dev/zero cannot be read: it is a device"):
        source.read(Path("/dev/zero"))
