"""Makes certificates for servers and clients of tests, with openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.conftest import unavailable

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificate(NamedTuple):
    """Files in PEM.

    Attributes:
        both: the key, and the certificate behind it.
    """

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; its own is `certificate`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            unavailable("needs openssl, which makes certificates: apt-get install openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", *KEY, "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", self._key, "-out", self.certificate),
        )

    def sign(self, name: str, days: int = 2) -> Certificate:
        """A certificate of a name, good for a server of that name or on loopback, and for a client.

        Args:
            days: that it is valid; one of none has expired when it is shown.
        """
        certificate, key, request, both, more = (
            self._folder / f"{name}.{end}" for end in ("pem", "key", "csr", "both", "ext")
        )
        more.write_text(f"subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{name}\n")
        _openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", str(days), "-extfile", more, "-out", certificate),
        )
        both.write_text(key.read_text() + certificate.read_text())
        return Certificate(certificate, key, both)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
