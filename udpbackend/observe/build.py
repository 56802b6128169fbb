"""Facts in, report out: pure functions that draw the verdict and the law together.

Must not read anything itself. The law, *received = delivered + dropped + in flight*, is only added up here; that it
holds is the dataplane's work, and what is left over is shown as `unexplained` rather than hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from udpbackend.observe import report
from udpbackend.observe.facts import Facts
from udpbackend.observe.losses import evidence
from udpbackend.observe.peers import PeerCount, count_peers, every, slow, some, unanswered


def build(facts: Facts, *, peers_max: int = sys.maxsize) -> report.Report:
    """The report of one moment; at most `peers_max` peers are listed, see `some`."""
    counters = _counters(facts)
    count = count_peers(facts)
    return report.Report(
        schema=1,
        version=facts.version,
        node=facts.node,
        started_at=facts.started_at,
        uptime_s=round(facts.uptime_s, 3),
        verdict=_verdict(facts, count),
        network=_network(facts),
        interface=_interface(facts),
        offloads=list(facts.offloads),
        registry=_registry(facts),
        routes=facts.routes,
        peers=list(every(facts) if count.total <= peers_max else some(facts, peers_max)),
        peers_total=count.total,
        peers_seen=count.seen,
        peers_unanswered=count.unanswered,
        counters=counters,
        kernel=[
            report.KernelDrops(name=it.name, direction=it.direction, value=value, meaning=it.meaning, cure=it.cure)
            for it, value in facts.kernel.items()
        ],
        law=report.Law(tx=_terms(counters, "tx", facts.in_flight), rx=_terms(counters, "rx", 0)),
        rates=facts.rates,
        last_error=None if facts.last_error is None else facts.last_error.text,
        loop=report.Loop(lag_s=round(facts.loop_lag_s, 6)),
        ignored=_ignored(facts),
        movers=_movers(facts),
        last_error_info=_last_error(facts),
        restart=report.Restart(
            kept_by=facts.kept_by,
            inherited_age_s=None if facts.inherited_age_s is None else round(facts.inherited_age_s, 3),
        ),
        rights=_rights(facts),
        losses=list(facts.losses),
        refused=list(facts.refused),
    )


def _verdict(facts: Facts, count: PeerCount) -> report.Verdict:
    if facts.waiting_for is not None:
        reasons = [f"waiting for {facts.waiting_for}", *facts.problems]
        if facts.inherited_age_s is not None:
            reasons.append(f"packets move by the last daemon's routes, {report.age(facts.inherited_age_s)} old")
        if facts.registry.degraded is not None:
            reasons.append(f"registry: {facts.registry.degraded}")
        return report.Verdict(state="starting", text=f"starting, {', '.join(reasons)}", reasons=reasons)
    lost = (f"{it.what} ({evidence(it)})" for it in facts.losses)
    reasons = [*facts.problems, *slow(facts), *lost]
    if facts.registry.degraded is not None:
        reasons.append(f"registry: {facts.registry.degraded}")
    parts = [_peers_text(facts, count), *unanswered(facts)]  # one-way traffic is no fault, nor is a dead node ours
    if ignored := len(facts.nodes.ignored):
        parts.append(f"{ignored} {'node' if ignored == 1 else 'nodes'} of another backend ignored")
    if facts.registry.age_s is not None:
        seconds = facts.registry.age_s
        parts.append(f"registry view {f'{seconds:.0f} s' if seconds < 60 else report.age(seconds)} old")
    if reasons:
        return report.Verdict(state="degraded", text=f"degraded, {', '.join([*reasons, *parts])}", reasons=reasons)
    return report.Verdict(state="ready", text=f"ready, {', '.join(parts)}", reasons=[])


def _last_error(facts: Facts) -> report.LastError | None:
    last = facts.last_error
    return None if last is None else report.LastError(text=last.text, counter=last.counter, age_s=last.age_s)


def _peers_text(facts: Facts, count: PeerCount) -> str:
    noun = "peer" if count.total == 1 else "peers"
    if not count.total:
        return "no peers yet"
    if not facts.infos:  # the kernel moves the packets: we cannot know who was seen
        return f"{count.total} {noun}"
    return f"{count.seen} of {count.total} {noun} seen"


def _network(facts: Facts) -> report.Network | None:
    if facts.network is None:
        return None
    return report.Network(
        network=str(facts.network.network),
        subnet=None if facts.subnet is None else str(facts.subnet),
        backend=facts.network.backend.type,
        port=facts.port,
        source_check=facts.source_check,
        dataplane=facts.dataplane,
        ipv6_network=None if facts.network.ipv6 is None else str(facts.network.ipv6.network),
        ipv6_subnet=None if facts.ipv6_subnet is None else str(facts.ipv6_subnet),
    )


def _interface(facts: Facts) -> report.Interface | None:
    endpoint, overlay = facts.endpoint, facts.overlay
    if endpoint is None:
        return None
    return report.Interface(
        name=endpoint.interface,
        address=str(endpoint.address),
        public_ip=str(endpoint.public_ip),
        mtu=endpoint.mtu,
        overlay_device=None if overlay is None else overlay.device,
        overlay_address=None if overlay is None else str(overlay.address),
        overlay_mtu=None if overlay is None else overlay.mtu,
        overlay_ipv6_address=None if overlay is None or overlay.address6 is None else str(overlay.address6),
        overlay_ipv6_device=None if overlay is None else overlay.device6,
    )


def _movers(facts: Facts) -> report.Movers | None:
    it = facts.movers
    if it is None:
        return None
    return report.Movers(
        threads=it.threads,
        nice=it.nice,
        crowded=it.crowded,
        session_nice=it.session_nice,
        refused=it.refused or None,
        filtered=it.filtered,
        unfiltered=it.unfiltered or None,
    )


def _rights(facts: Facts) -> report.Rights | None:
    if facts.rights is None:
        return None
    capabilities, no_new_privs = facts.rights
    return report.Rights(capabilities=list(capabilities), no_new_privs=no_new_privs)


def _registry(facts: Facts) -> report.Registry:
    view = facts.registry
    return report.Registry(
        kind=view.kind,
        source=view.source,
        revision=view.revision,
        synced_at=view.synced_at,
        age_s=None if view.age_s is None else round(view.age_s, 3),
        degraded=view.degraded,
    )


def _counters(facts: Facts) -> list[report.Counter]:
    return [
        report.Counter(
            name=info.name,
            direction=info.direction,  # type: ignore[arg-type]  # the C list knows no other
            kind=info.kind,  # type: ignore[arg-type]
            value=value,
            meaning=info.meaning,
            cure=info.cure,
        )
        for info, value in zip(facts.infos, facts.counters, strict=True)
    ]


def _terms(counters: Sequence[report.Counter], direction: str, in_flight: int) -> report.Terms:
    total = dict.fromkeys(("received", "delivered", "dropped", "note"), 0)
    for counter in counters:
        if counter.direction == direction:
            total[counter.kind] += counter.value
    received, delivered, dropped = total["received"], total["delivered"], total["dropped"]
    return report.Terms(
        received=received,
        delivered=delivered,
        dropped=dropped,
        in_flight=in_flight,
        unexplained=received - delivered - dropped - in_flight,
    )


def _ignored(facts: Facts) -> list[report.Ignored]:
    return [
        report.Ignored(
            node=lease.node,
            public_ip=str(lease.public_address),
            backend=lease.backend_type,
            subnets=[str(subnet) for subnet in lease.subnets],
        )
        for lease in facts.nodes.ignored
    ]
