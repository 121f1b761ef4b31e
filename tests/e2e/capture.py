"""A packet capture on loopback, as a program of its own so that it alone needs privileges:
`capture.py MARK... -- PORT...` prints "ready", looks at every packet that has one of the ports until
its input ends, then prints what it saw as JSON. A MARK (hex) is bytes that must not be on the wire."""

import json
import select
import socket
import struct
import sys

ETH_P_ALL = 3
QUIC_FIXED_BIT = 0x40  # RFC 9000 section 17


def parse(packet):
    """(protocol, source port, destination port, payload) of an Ethernet frame, or None."""
    kind = struct.unpack_from("!H", packet, 12)[0]
    if kind == 0x0800:
        head = (packet[14] & 15) * 4
        protocol, at = packet[23], 14 + head
    elif kind == 0x86DD:
        protocol, at = packet[20], 54
    else:
        return None
    if protocol not in (6, 17) or len(packet) < at + 8:
        return None
    source, destination = struct.unpack_from("!HH", packet, at)
    payload = packet[at + 8:] if protocol == 17 else packet[at + (packet[at + 12] >> 4) * 4:]
    return protocol, source, destination, payload


def main():
    cut = sys.argv.index("--")
    marks = [bytes.fromhex(m) for m in sys.argv[1:cut]]
    ports = {int(p) for p in sys.argv[cut + 1:]}
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
    s.bind(("lo", 0))
    seen = {"udp": 0, "tcp": 0, "not_quic": 0, "marks": 0, "bytes": 0}
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([s, sys.stdin], [], [])
        if s not in readable:
            break
        found = parse(s.recv(1 << 17))
        if found is None or not {found[1], found[2]} & ports:
            continue
        protocol, _, _, payload = found
        seen["udp" if protocol == 17 else "tcp"] += 1
        seen["bytes"] += len(payload)
        if protocol == 17 and not (payload and payload[0] & QUIC_FIXED_BIT):
            seen["not_quic"] += 1
        seen["marks"] += sum(m in payload for m in marks)
    print(json.dumps(seen), flush=True)


main()
