#!/usr/bin/env python3
"""delay_line.py NAMESPACE ROUTER DEVICE SOURCE MS: what NAMESPACE sends arrives at ROUTER that much later.
Two TUN devices and a queue between them, for kernels without netem. SOURCE is the sender's address. Prints
a line when it works, and runs until its standard input ends."""

import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
CLONE_NEWNET = 0x40000000
PACKETS_MAX = 20000  # more are lost, as in any queue
LIBC = ctypes.CDLL(None, use_errno=True)


def tun(space, name):
    with open(f"/var/run/netns/{space}", "rb") as ns:
        if LIBC.setns(ns.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return fd


def main():
    space, router, name, source, ms = sys.argv[1:]
    inlet, outlet = tun(space, name), tun(router, name)
    # The answers come over the wire; the filter must not mind.
    subprocess.run(["sysctl", "-q", "-w", f"net.ipv4.conf.{name}.rp_filter=0",
                    "net.ipv4.conf.all.rp_filter=0"], check=True)
    subprocess.run(["ip", "netns", "exec", space, "ip", "route", "replace", "default", "dev", name,
                    "src", source], check=True)
    print("ready", flush=True)
    delay, queue = int(ms) / 1000, collections.deque()
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            os.write(outlet, queue.popleft()[1])
        wait = queue[0][0] - now if queue else None
        ready, _, _ = select.select([inlet, 0], [], [], wait)
        if 0 in ready and not os.read(0, 1):
            return
        while inlet in ready:
            try:
                packet = os.read(inlet, 65536)
            except BlockingIOError:
                break
            if len(queue) < PACKETS_MAX:
                queue.append((time.monotonic() + delay, packet))


main()
