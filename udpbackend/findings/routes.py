"""Routes that lead packets of the overlay astray, and routes by its device that lead others into it.

Looks at IPv4 and table main. The kernel's own route of an address is told with the device that has it, where that is
one of the overlay's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from udpbackend.findings.finding import Finding, count, named
from udpbackend.findings.here import Here
from udpbackend.host import mark, rtnetlink
from udpbackend.host.route_table import TableRoute
from udpbackend.model import Prefix

NOWHERE = "none (blackhole, unreachable, or several)"
PEERS_MOST = 1000
"""So many are looked up at most, should there be routes into the overlay that are not the network's."""


def astray(here: Here, routes: Sequence[TableRoute], names: Mapping[int, str]) -> list[Finding]:
    """Routes of others inside the network: to other nodes' pods, and away from our own. `names`: of the links."""
    if here.overlay is None:  # the backend may be one whose routes lead straight to the other nodes
        return []
    others, own = _sorted_out(here, routes, names)
    return [
        *_astray(others, f"packets for other nodes' pods do not go into {here.overlay}: other routes take them", names),
        *_astray(own, "packets for this node's own pods leave it: a route inside its subnet takes them", names),
    ]


def hidden(here: Here, routes: Sequence[TableRoute], names: Mapping[int, str], address: IPv4Address) -> bool:
    """Whether such a route takes what is sent to this address of another node's."""
    return any(it.destination.holds(address) for it in _sorted_out(here, routes, names)[0])


def _sorted_out(
    here: Here, routes: Sequence[TableRoute], names: Mapping[int, str]
) -> tuple[list[TableRoute], list[TableRoute]]:
    """Those that take packets for other nodes, and for our own pods."""
    others, own = [], []
    for route in routes:
        device = names.get(route.link, NOWHERE)
        if not _inside(here.network, route) or device == here.overlay or _of_its_device(route, device):
            continue
        if not here.subnet.contains(route.destination):
            others.append(route)
        elif device == here.interface or route.gateway:
            own.append(route)
    return others, own


def into(
    here: Here, routes: Sequence[TableRoute], names: Mapping[int, str], peers: Iterable[IPv4Address]
) -> list[Finding]:
    """Routes by the overlay's device that do not lead into the network; `peers`: the other nodes' public IPs."""
    if here.overlay is None:
        return []
    wrong = [
        route
        for route in routes
        if names.get(route.link) == here.overlay and not here.network.contains(route.destination)
    ]
    if not wrong:
        return []
    caught = [str(peer) for peer in list(peers)[:PEERS_MOST] if _best(routes, peer) in wrong]
    if caught:
        return [looped(caught, here.overlay)]
    shown = [f"{route.destination} dev {here.overlay}" for route in wrong]
    return [
        Finding(
            "part",
            f"packets that are not the overlay's are led into {here.overlay}, which drops them",
            named(shown),
            f"ip route delete {shown[0]}, and so on",
        )
    ]


def looped(peers: Sequence[str], overlay: str) -> Finding:
    """Datagrams to these peers are led into the overlay, out of which they came."""
    return Finding(
        "down",
        f"datagrams to {count(len(peers), 'peer')} go back into {overlay}, for ever",
        named(peers),
        f"remove the route to them by {overlay}, or choose a Network that holds no node's address",
    )


def _astray(routes: Sequence[TableRoute], what: str, names: Mapping[int, str]) -> list[Finding]:
    if not routes:
        return []
    found = [f"{it.destination} dev {names.get(it.link, NOWHERE)}" for it in routes]
    cure = f"ip route delete {found[0]}, and so on; if they come back, another network plugin still runs here"
    return [Finding("part", what, named(found), cure)]


def _inside(network: Prefix, route: TableRoute) -> bool:
    return network.contains(route.destination) and route.destination != network


def _of_its_device(route: TableRoute, device: str) -> bool:
    """Whether it is the kernel's own for an address of cni0 or of a flannel device: it goes with that."""
    return route.protocol == rtnetlink.PROTO_KERNEL and (device == mark.BRIDGE or mark.overlays(device))


def _best(routes: Sequence[TableRoute], address: IPv4Address) -> TableRoute | None:
    """What the kernel would take, of table main alone: the longest, of equals that of the least metric."""
    fitting = [it for it in routes if it.destination.holds(address)]
    return min(fitting, key=lambda it: (-it.destination.bits, it.metric), default=None)
