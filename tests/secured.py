"""A Kafka that asks who somebody is, by password, token or certificate, and lets them do what lists say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from ops.kafka.server import RealKafka
from stream.config import Settings
from stream.rights import BROKER_ROLES, broker_rights
from tests.certificates import Authority, Certificate

PASSWORD = "word-of-the-role"  # noqa: S105 - of a server that lives as long as a test
PATIENCE_SECONDS = 120.0
MODULES = "org.apache.kafka.common.security"


class SecuredKafka:
    """A broker whose listener without security is for the administrator, and two others for roles."""

    def __init__(self, server: RealKafka, authority: Authority) -> None:
        self.server = server
        self._authority = authority
        self._certificates: dict[str, Certificate] = {}

    def by_password(self, role: str) -> dict[str, Any]:
        """Section `broker` for a role: SASL/SCRAM over TLS."""
        return {
            "bootstrap": self.server.listener("SECURE"),
            "properties": {
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": str(self._authority.certificate),
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": f"segstream-{role}",
                "sasl.password": PASSWORD,
            },
        }

    def by_token(self, role: str) -> dict[str, Any]:
        """The same: SASL/OAUTHBEARER over TLS, with tokens of a function."""
        return {
            "bootstrap": self.server.listener("SECURE"),
            "oauth_provider": "tests.integration.tokens:token",
            "properties": {
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": str(self._authority.certificate),
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.config": f"segstream-{role}",
            },
        }

    def by_certificate(self, role: str) -> dict[str, Any]:
        """The same: TLS on both sides."""
        if role not in self._certificates:
            self._certificates[role] = self._authority.sign(f"segstream-{role}")
        certificate = self._certificates[role]
        return {
            "bootstrap": self.server.listener("MUTUAL"),
            "properties": {
                "security.protocol": "SSL",
                "ssl.ca.location": str(self._authority.certificate),
                "ssl.certificate.location": str(certificate.certificate),
                "ssl.key.location": str(certificate.key),
            },
        }

    def allow(self, role: str, settings: Settings) -> None:
        """Give a role the rights that `stream.rights` says, and no others."""
        admin = AdminClient({"bootstrap.servers": self.server.bootstrap})
        bindings = [
            AclBinding(
                ResourceType[right.kind.upper()],
                name,
                ResourcePatternType.PREFIXED
                if right.kind == "group"
                else ResourcePatternType.LITERAL,
                f"User:{who}",
                "*",
                AclOperation[right.operation],
                AclPermissionType.ALLOW,
            )
            for right in broker_rights(role, settings)
            for name in right.names
            for who in (f"segstream-{role}", f"CN=segstream-{role}")
        ]
        for future in admin.create_acls(bindings, request_timeout=PATIENCE_SECONDS).values():
            future.result(PATIENCE_SECONDS)


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """Start one; certificates go into the folder."""
    authority = Authority(folder)
    own = authority.sign("broker")
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(authority.certificate),
        "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": (
            f"{MODULES}.scram.ScramLoginModule required;"
        ),
        "listener.name.secure.oauthbearer.sasl.jaas.config": (
            f'{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="x";'
        ),
    }
    for name in ("secure", "mutual"):
        properties |= {
            f"listener.name.{name}.ssl.keystore.type": "PEM",
            f"listener.name.{name}.ssl.keystore.location": str(own.both),
        }
    with RealKafka(
        properties=properties,
        listeners={"SECURE": "SASL_SSL", "MUTUAL": "SSL"},
        users={f"segstream-{role}": PASSWORD for role in BROKER_ROLES},
    ) as server:
        yield SecuredKafka(server, authority)
