# SPDX-License-Identifier: Apache-2.0
"""Certificates, tokens, and the kubeconfig files with them."""

from __future__ import annotations

import base64
import csv
import json
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import keys, kubeconfig
from cluster.layout import Cluster, addresses
from pycni.errors import PycniError
from unit.cluster.clusters import drawn


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return replace(drawn(), base=tmp_path)


def test_every_component_and_kubelet_has_a_token_of_its_own(cluster: Cluster) -> None:
    tokens = keys.make_tokens(cluster)

    rows = list(csv.reader((cluster.keys / "tokens.csv").read_text().splitlines()))
    assert len({row[0] for row in rows}) == len(rows) == len(tokens)
    groups = {row[1]: row[3] for row in rows}
    assert groups["admin"] == "system:masters"
    assert groups["system:node:node1"] == groups["system:node:node2"] == "system:nodes"
    assert groups["system:kube-scheduler"] == ""


def test_secrets_are_in_private_files(cluster: Cluster) -> None:
    keys.make_files(cluster)
    kubeconfig.write(cluster, keys.make_tokens(cluster))

    secret = [path for path in cluster.keys.iterdir()
              if path.suffix in (".key", ".csv", ".kubeconfig")]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert cluster.keys.stat().st_mode & 0o777 == 0o700


def test_the_api_servers_certificate_is_the_authoritys_and_names_it(cluster: Cluster) -> None:
    keys.make_files(cluster)

    context = ssl.create_default_context(cafile=str(cluster.keys / "ca.crt"))
    certificate = ssl._ssl._test_decode_cert(str(cluster.keys / "api.crt"))
    named = {value for _, value in certificate["subjectAltName"]}
    assert context.cert_store_stats()["x509_ca"] == 1
    assert {"kubernetes.default.svc.cluster.local", "10.96.0.1"} <= named
    assert addresses(cluster.control)[0] in named
    assert certificate["issuer"] == ((("commonName", "pycni-cluster-ca"),),)


def test_a_kubeconfig_needs_no_other_file(cluster: Cluster) -> None:
    document = kubeconfig.document(cluster, b"authority", "secret")

    (known,) = document["clusters"]
    assert known["cluster"]["server"] == cluster.api
    assert base64.b64decode(known["cluster"]["certificate-authority-data"]) == b"authority"
    assert document["users"] == [{"name": "k8s", "user": {"token": "secret"}}]
    assert document["current-context"] == document["contexts"][0]["name"]


def test_each_user_has_a_kubeconfig(cluster: Cluster) -> None:
    keys.make_files(cluster)
    tokens = keys.make_tokens(cluster)

    kubeconfig.write(cluster, tokens)

    for user, token in tokens.items():
        document = json.loads((cluster.keys / f"{user}.kubeconfig").read_bytes())
        assert document["users"][0]["user"]["token"] == token


def test_opensslss_own_words_are_told(cluster: Cluster) -> None:
    keys.make_files(cluster)

    with pytest.raises(PycniError, match="openssl pkey failed") as error:
        keys._openssl(cluster.keys, "pkey", "-in", "no-such-file")

    assert "no-such-file" in error.value.details


def test_a_missing_openssl_is_said(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")

    with pytest.raises(PycniError, match="openssl is missing"):
        keys.make_files(cluster)
