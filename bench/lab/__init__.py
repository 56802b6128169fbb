"""The namespace laboratory: hosts, pods, daemons and traffic, all inside network namespaces of their own.

Owns nothing itself; what stands in its files, lowest first, and no file imports from a later one:

    wait       conditions with deadlines, and the one error of the laboratory
    cleanup    signals as exceptions, and work that no signal interrupts
    process    programs we started and will stop
    netns      network namespaces, and running something inside one
    topology   Lab: hosts joined by an underlay, each with a bridge and a pod
    daemon     Overlay: one udp-backend per host, its status and its counters
    parse      what ping and iperf3 print, as values (pure)
    traffic    ping and iperf3 between namespaces
    rootless   the same for somebody who is not root
    table      columns for people (pure)
"""
