# SPDX-License-Identifier: Apache-2.0
"""What libcni does for a runtime: the configuration on stdin, CNI_* variables, the cached result.

CNI specification 1.1.0, section 4: name and cniVersion of the list are put into the plugin's
configuration, `runtimeConfig` has the capabilities that the configuration declares, `prevResult`
goes to CHECK, and to DEL from 0.4.0 on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance import call
from conformance.call import Answer, Json

IFNAME = "eth0"


def older(version: str, than: str) -> bool:
    """Whether one version of the specification is before another; empty is the oldest."""

    def ordered(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in (text or "0.1.0").split("."))

    return ordered(version) < ordered(than)


@dataclass
class Attachment:
    """One container's interface in one network, and what the runtime remembers of it."""

    plugin: Path
    cni_path: str
    conf: Json
    """The plugin's configuration with name and cniVersion, as on stdin."""
    container_id: str
    netns: str
    ifname: str = IFNAME
    args: str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod"
    capabilities: Json = field(default_factory=dict)
    """What the runtime offers; only what the configuration declares is sent."""
    result: Json | None = None
    """Of the last ADD that succeeded, until a DEL does."""

    @property
    def version(self) -> str:
        return str(self.conf.get("cniVersion", ""))

    def env(self, command: str) -> dict[str, str | bytes]:
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.args,
            "CNI_PATH": self.cni_path,
        }

    def config(self, changes: Mapping[str, Any] | None = None) -> Json:
        """The document for stdin; `changes` go in last."""
        declared = self.conf.get("capabilities") or {}
        payload = {key: one for key, one in self.capabilities.items() if declared.get(key)}
        extra = {"runtimeConfig": payload} if payload else {}
        return {**self.conf, **extra, **(changes or {})}

    def call(
        self,
        command: str,
        *,
        env: Mapping[str, str | bytes | None] | None = None,
        conf: Mapping[str, Any] | None = None,
        stdin: bytes | None = None,
        **more: Any,
    ) -> Answer:
        """One call. `env` changes variables (None removes one); `stdin` replaces the document."""
        variables: dict[str, str | bytes | None] = {**self.env(command), **(env or {})}
        document = json.dumps(self.config(conf)).encode() if stdin is None else stdin
        kept = {key: one for key, one in variables.items() if one is not None}
        return call.execute(self.plugin, kept, document, **more)

    def add(self, **changes: Any) -> Answer:
        """ADD; a result is remembered."""
        answer = self.call("ADD", **changes)
        if answer.status == 0:
            self.result = answer.document
        return answer

    def attach(self, **changes: Any) -> Json:
        """ADD that must succeed; returns the result."""
        return call.succeeded(self.add(**changes)).document

    def delete(self, *, conf: Mapping[str, Any] | None = None, **changes: Any) -> Answer:
        """DEL, with the remembered result as libcni has it."""
        previous = (
            {"prevResult": self.result}
            if self.result is not None and not older(self.version, "0.4.0")
            else {}
        )
        answer = self.call("DEL", conf=previous | dict(conf or {}), **changes)
        if answer.status == 0:
            self.result = None
        return answer

    def detach(self, **changes: Any) -> None:
        """DEL that must succeed, and say nothing."""
        call.silent(self.delete(**changes))

    def check(self, *, conf: Mapping[str, Any] | None = None, **changes: Any) -> Answer:
        """CHECK with the remembered result."""
        return self.call("CHECK", conf={"prevResult": self.result, **(conf or {})}, **changes)
