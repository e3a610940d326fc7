"""Says which addresses may be called: not those inside, unless that was declared.

Comes in: an IP address that a name was resolved to. Goes out: why it may not be called, or None. Who can
write a receiver's name into the settings, or into its DNS, must not reach what only this network reaches.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

_TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind NAT64, in the last four bytes."""
_UNICAST, _LOCAL = IPv6Network("2000::/3"), IPv6Network("fc00::/7")
"""Of IPv6, what is given out for the internet, and for networks of one's own. All else is neither."""
_NEVER: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(one)
    for one in (
        # Where clouds tell their machines' credentials, among addresses that are otherwise public or private.
        "168.63.129.16/32",
        "192.0.0.0/24",
        "fd00:42::42/128",
        "fd00:ec2::/32",
        "fd20:ce::/64",
        # Tunnels: who is at the other end is not seen in the address, or is another address.
        "192.88.99.0/24",
        "2001::/32",
    )
)


@lru_cache(maxsize=1_024)
def refusal(address: str, *, private: bool) -> str | None:
    """Why an address may not be called; None if it may.

    Args:
        private: private and loopback addresses may be called. Others that are not public never: at
            link-local ones clouds tell their machines' credentials.
    """
    ip = _meant(ip_address(address.partition("%")[0]))
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or _is_never_called(ip):
        return f"{ip} is an address that is never called"
    if ip.is_global:
        return None
    if not (ip.is_loopback or (ip.is_private and not ip.is_reserved)):
        return f"{ip} is no public address"
    return None if private else f"{ip} is a private address, and the endpoint is not private"


def _is_never_called(ip: IPv4Address | IPv6Address) -> bool:
    if any(ip in network for network in _NEVER):
        return True
    return isinstance(ip, IPv6Address) and not (ip in _UNICAST or ip in _LOCAL or ip.is_loopback)


def _meant(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
