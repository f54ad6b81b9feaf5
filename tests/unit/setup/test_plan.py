"""Who makes VXLAN on a node: what the settings ask for, and what the kernel lets."""

from __future__ import annotations

import pytest

from loader.probe import Feature
from pycni.errors import SetupError
from pycni.settings import Settings
from pycni.setup.plan import choose_encap

ABLE = [Feature("own_encap", True, "", "")]
UNABLE = [Feature("own_encap", False, "the kernel refuses it", "the device carries all")]


@pytest.mark.parametrize(
    ("wanted", "features", "encap"),
    [
        ("auto", ABLE, "ebpf"),
        ("auto", UNABLE, "kernel"),
        ("ebpf", ABLE, "ebpf"),
        ("kernel", ABLE, "kernel"),
        ("kernel", UNABLE, "kernel"),
    ],
)
def test_settings_and_kernel_choose(wanted: str, features: list[Feature], encap: str) -> None:
    settings = Settings.model_validate({"node_name": "one", "encap": wanted})

    assert choose_encap(settings, features) == encap


def test_what_the_kernel_cannot_do_is_not_silently_something_else() -> None:
    settings = Settings(node_name="one", encap="ebpf")

    with pytest.raises(SetupError, match="does not let programs encapsulate") as caught:
        choose_encap(settings, UNABLE)

    assert caught.value.details == "the kernel refuses it"
    assert "auto" in caught.value.hint
