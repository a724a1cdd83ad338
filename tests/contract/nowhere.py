"""Runs tests in a network of their own, from which every way out is watched: `python3 nowhere.py test_contract …`

The network namespace has a loopback and a second device that every route leads to and that nobody is behind. A packet socket sees what
goes anywhere. After the tests there must have been
- nothing at all on the device that leads outside: no connection, no DNS question, no ping;
- on the loopback, no datagram, and no connection opened to anything but a server under test.

So the whole run, servers and clients together, sent nothing but connections to the servers and answers on them. Before it believes a
silence, it makes each kind of noise itself and checks that it was heard.

Needs root or user namespaces; exit code 77 where the machine has neither. Standard library only.
"""

import ctypes
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

UNAVAILABLE = 77
OUTSIDE = "outside0"
ETH_P_ALL = 0x0003
SO_ATTACH_FILTER = 26
PACKET_OUTGOING = 4
# What the kernel itself says on a new device: router and neighbour solicitation, and who listens to which multicast group.
ICMPV6_OF_THE_KERNEL = {133, 135, 143}
PORTS = "ROSEMARY_TEST_PORTS"

# Classic BPF: drops what belongs to an open TCP connection, keeps its first packet and all else. (code, jump if true, if false, k)
FILTER = [
    (0x28, 0, 0, 12),  # 0: the EtherType
    (0x15, 0, 5, 0x0800),  # 1: IPv4?
    (0x30, 0, 0, 23),  # 2: its protocol
    (0x15, 0, 9, 6),  # 3: TCP? else keep
    (0xB1, 0, 0, 14),  # 4: X = length of the IPv4 header
    (0x50, 0, 0, 27),  # 5: flags of TCP at X + 14 + 13
    (0x05, 0, 0, 4),  # 6: to 11
    (0x15, 0, 5, 0x86DD),  # 7: IPv6? else keep
    (0x30, 0, 0, 20),  # 8: its next header
    (0x15, 0, 3, 6),  # 9: TCP? else keep
    (0x30, 0, 0, 67),  # 10: flags of TCP
    (0x54, 0, 0, 0x12),  # 11: SYN and ACK
    (0x15, 0, 1, 0x02),  # 12: SYN alone: keep
    (0x06, 0, 0, 0xFFFF),  # 13: keep
    (0x06, 0, 0, 0),  # 14: drop
]


class Ears:
    """Hears every packet that a device sends, until it is closed."""

    def __init__(self, device):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        program = b"".join(struct.pack("HBBI", *line) for line in FILTER)
        buffer = ctypes.create_string_buffer(program)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(FILTER), ctypes.addressof(buffer)))
        self.socket.bind((device, 0))
        self.socket.settimeout(0.2)
        self.heard, self.lost, self.done = [], 0, False
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            try:
                packet, about = self.socket.recvfrom(256)
            except TimeoutError:
                if self.done:
                    return
                continue
            if about[2] == PACKET_OUTGOING:
                self.heard.append(describe(packet))

    def close(self):
        """Returns what was heard."""
        self.done = True
        self.thread.join()
        self.lost = struct.unpack("II", self.socket.getsockopt(263, 6, 8))[1]  # SOL_PACKET, PACKET_STATISTICS
        self.socket.close()
        return self.heard


def describe(packet):
    """`(protocol, destination port or type)`; the kernel's own ICMPv6 is protocol `kernel`."""
    kind = struct.unpack_from("!H", packet, 12)[0]
    if kind == 0x0800:
        protocol, header = packet[23], 14 + (packet[14] & 15) * 4
    elif kind == 0x86DD:
        protocol, header = packet[20], 54
        if protocol == 0:  # hop-by-hop options, before a multicast report
            protocol, header = packet[54], 54 + (packet[55] + 1) * 8
    else:
        return (f"ethertype {kind:#06x}", 0)
    if protocol in (6, 17):
        return ({6: "tcp", 17: "udp"}[protocol], struct.unpack_from("!H", packet, header + 2)[0])
    if protocol == 58 and packet[header] in ICMPV6_OF_THE_KERNEL:
        return ("kernel", packet[header])
    return (f"protocol {protocol}", packet[header])


def namespace():
    """Gives this process a network of its own: CLONE_NEWNET, with a user namespace where it is not root. False where that is refused."""
    flags = 0x40000000
    user, group = os.getuid(), os.getgid()
    if user != 0:
        flags |= 0x10000000
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        return False
    if user != 0:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    commands = [
        "link set lo up",
        f"link add {OUTSIDE} type veth peer name nobody0",
        f"link set {OUTSIDE} arp off",  # a packet leaves at once, nobody need answer for its address
        "link set nobody0 up",
        f"address add 198.51.100.2/24 dev {OUTSIDE}",
        f"address add 2001:db8::2/64 dev {OUTSIDE} nodad",
        f"link set {OUTSIDE} up",
        f"route add default via 198.51.100.1 dev {OUTSIDE} onlink",
        f"-6 route add default dev {OUTSIDE}",
    ]
    return all(subprocess.run(["ip", *command.split()], stderr=subprocess.PIPE).returncode == 0 for command in commands)


def noise():
    """One of each kind, to be heard."""
    for family, outside in ((socket.AF_INET, "192.0.2.9"), (socket.AF_INET6, "2001:db8:1::9")):
        with socket.socket(family, socket.SOCK_DGRAM) as question:
            question.sendto(b"?", (outside, 53))
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            connection.connect_ex((outside, 443))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
        question.sendto(b"?", ("127.0.0.53", 53))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.connect_ex(("127.0.0.1", 9))


def main(names):
    if not namespace():
        print("nowhere: this machine gives no network namespace (root, or user namespaces, and the ip command)", file=sys.stderr)
        return UNAVAILABLE
    ears = Ears(OUTSIDE), Ears("lo")
    noise()
    outside, inside = (set(ear.close()) for ear in ears)
    wanted = {("udp", 53), ("tcp", 443)}
    assert wanted <= outside, f"what was sent outside was not heard: {outside}"
    assert {("udp", 53), ("tcp", 9)} <= inside, f"what was sent inside was not heard: {inside}"

    with tempfile.TemporaryDirectory(prefix="rosemary-nowhere-") as folder:
        ports = pathlib.Path(folder, "ports")
        ports.touch()
        os.environ[PORTS] = str(ports)
        ears = Ears(OUTSIDE), Ears("lo")
        result = unittest.main(module=None, argv=["nowhere", *names], exit=False).result
        outside, inside = (ear.close() for ear in ears)
        served = {("tcp", int(port)) for port in ports.read_text().split()}
    stray_outside = sorted({packet for packet in outside if packet[0] != "kernel"})
    stray_inside = sorted(set(inside) - served)
    opened = sum(packet in served for packet in inside)
    lost = sum(ear.lost for ear in ears)
    print(f"nowhere: {opened} connections to {len(served)} servers; sent anywhere else: {len(stray_outside) + len(stray_inside)}; not looked at: {lost}")
    for where, stray in (("outside", stray_outside), ("on the loopback", stray_inside)):
        for protocol, port in stray:
            print(f"nowhere: something was sent {where}: {protocol} {port}", file=sys.stderr)
    return 0 if result.wasSuccessful() and opened and not (stray_outside or stray_inside or lost) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    sys.exit(main(sys.argv[1:]))
