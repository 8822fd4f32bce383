"""Who calls: what `Access` found out, for limits and logs. No key is ever kept here."""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """The other end of a connection.

    Args:
        address: its IP address; empty if there is none (a Unix socket).
        key: number of its API key in the list of keys, from 1; None: none was needed.
        record: whether it asks for a recording of its call (record=1 in the query).
    """

    address: str = ""
    key: int | None = None
    record: bool = False

    @property
    def network(self) -> str:
        """What counts as one address: an IPv4 address, or the /64 of an IPv6 address, which one customer has as a whole."""
        try:
            ip = ipaddress.ip_address(self.address)
        except ValueError:
            return self.address
        if isinstance(ip, ipaddress.IPv6Address):
            mapped = ip.ipv4_mapped
            return str(mapped or ipaddress.ip_network((ip, 64), strict=False))
        return str(ip)

    @property
    def shortened(self) -> str:
        """The address as logs have it, without the part that tells a person: 192.0.2.x, 2001:db8:1::x."""
        try:
            ip = ipaddress.ip_address(self.address)
        except ValueError:
            return "-"
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
            return f"{ipaddress.ip_network((ip, 48), strict=False).network_address}x"
        return f"{str(getattr(ip, 'ipv4_mapped', None) or ip).rpartition('.')[0]}.x"


#: The caller of the running request; tasks that a request starts have it too.
CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 (it is frozen)
