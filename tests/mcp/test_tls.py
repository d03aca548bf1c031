"""https: a certificate of a private authority, and what is said of files that are none."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from tests.mcp.serving import ERAS, PATIENCE, Era, data_of, stdio_parameters
from tests.mcp.test_http import SERVED, http_server

pytestmark = pytest.mark.anyio


class Files:
    """A certificate for this machine with its key, and what trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("127.0.0.1", "localhost")
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        for number, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(str(self.cert), append=number > 0)
        leaf.private_key_pem.write_to_path(str(self.key))
        self.trusting = ssl.create_default_context()
        self.trusting.load_verify_locations(cadata=authority.cert_pem.bytes().decode())

    @property
    def options(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("era", ERAS)
async def test_a_workflow_is_served_by_https_and_by_nothing_else(era: Era, files: Files, tmp_path: Path) -> None:
    async def say_yes(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": True})

    with http_server(tmp_path, *files.options) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        http = httpx2.AsyncClient(verify=files.trusting, timeout=30)
        async with Client(
            streamable_http_client(url, http_client=http), mode=era, elicitation_callback=say_yes, cache=None
        ) as client:
            assert data_of(await client.call_tool("approve", {"input": "A1"})) == {"result": "shipped A1"}
        async with httpx.AsyncClient(timeout=30) as plain:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await plain.get(url)
            with pytest.raises(httpx.TransportError):
                await plain.get(url.replace("https://", "http://"))


def refused(folder: Path, *options: str) -> str:
    server = stdio_parameters(SERVED, "--transport", "http", "--port", "0", *options, folder=folder)
    ran = subprocess.run(
        [server.command, *server.args],
        cwd=server.cwd,
        env=server.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    return line


def test_files_that_are_no_certificate_and_key_are_named_in_a_sentence(
    files: Files, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert "go together" in refused(tmp_path, "--tls-cert", str(files.cert))
    assert "No such file" in refused(tmp_path, "--tls-cert", str(tmp_path / "none"), "--tls-key", str(files.key))
    other = Files(tmp_path_factory.mktemp("other"))
    mixed = refused(tmp_path, "--tls-cert", str(files.cert), "--tls-key", str(other.key))
    assert mixed.startswith(f"flux-mcp-server: https cannot be served with {files.cert} and {other.key}: ")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(files: Files, tmp_path: Path) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    files.key.write_bytes(sealed)
    assert "without a password" in refused(tmp_path, *files.options)
