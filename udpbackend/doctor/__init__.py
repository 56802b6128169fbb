"""What may be wrong on a host, one file for each finding, and what all of them share.

    finding    what a check says: the words of a finding, and of what could not be looked at
    aside      a thread that may hang without holding up the rest
    facts      what every check may start from: the daemon's own report, subnet.env, the links of this host
    sysctl     values below /proc/sys/net
    routes     which way the kernel would send
    peers      which peers are asked, and what they are called
    echo       ICMP echo requests
    sizes      the largest packet that passes
    api        the way to the API server of Kubernetes
    cluster    what is asked there
    checks/    one file for each finding; none knows another
    examine    runs them all, each within its time

Changes nothing on the host. Must not know how findings are shown.
"""
