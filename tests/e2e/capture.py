"""What passes a router, as a program of its own so that it runs in that namespace: `capture.py PORT MARK...`
prints "ready", looks at every packet on every interface until its input ends, then prints as JSON how many were
QUIC from or to that UDP port, how many were anything else, and how often a MARK (hex) was on the wire. What hosts
say by themselves is left out: ARP, ICMP, neighbour discovery."""

import collections
import json
import select
import socket
import struct
import sys

ETH_P_ALL = 3
QUIC_FIXED_BIT = 0x40  # RFC 9000 section 17
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
UDP, OF_HOSTS = 17, (0, 1, 2, 58)  # hop-by-hop options, ICMP, IGMP, ICMPv6


def kind_of(frame, port):
    """quic, hosts or other, of an Ethernet frame."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == ARP:
        return "hosts"
    if kind == IPV4 and len(frame) >= 34:
        protocol, at = frame[23], 14 + (frame[14] & 15) * 4
    elif kind == IPV6 and len(frame) >= 54:
        protocol, at = frame[20], 54
    else:
        return "other"
    if protocol in OF_HOSTS:
        return "hosts"
    if protocol != UDP or len(frame) <= at + 8:
        return "other"
    ports = struct.unpack_from("!HH", frame, at)
    return "quic" if port in ports and frame[at + 8] & QUIC_FIXED_BIT else "other"


def main():
    port, marks = int(sys.argv[1]), [bytes.fromhex(m) for m in sys.argv[2:]]
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
    seen = collections.Counter(quic=0, other=0, marks=0)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([s, sys.stdin], [], [])
        if s not in readable:
            break
        frame = s.recv(1 << 17)
        seen[kind_of(frame, port)] += 1
        seen["marks"] += sum(m in frame for m in marks)
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
