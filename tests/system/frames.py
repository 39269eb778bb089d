"""Send broadcast frames inside the pretend host and report the receivers; standard library only.

Reads {"places": {name: [path of a netns or "", link]}, "frames": [[name, VLAN], …]} from stdin and prints for each
frame {name: VLAN} of the places that received it; VLAN 0 is a frame without a tag.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys

ETH_P_ALL, ETH_P_8021Q = 0x0003, 0x8100  # linux/if_ether.h
ETHERTYPE = 0x88B5  # IEEE 802: for local experiments
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4  # linux/if_packet.h
TP_STATUS_VLAN_VALID = 0x10
AUXDATA = struct.Struct("IIIHHHH")  # struct tpacket_auxdata
BROADCAST, SENDER = b"\xff" * 6, b"\x0a\x58\x00\x00\x00\x01"
QUIET = 0.3  # seconds


def listen(netns: str, link: str) -> socket.socket:
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if netns:
            enter(os.open(netns, os.O_RDONLY))
        place = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        place.bind((link, ETH_P_ALL))
        place.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        return place
    finally:
        enter(own)


def enter(netns: int) -> None:
    # os.setns exists from Python 3.12 only
    if ctypes.CDLL(None).setns(netns, 0):
        raise OSError(f"setns {netns}")
    os.close(netns)


def frame(number: int, vlan: int) -> bytes:
    tag = struct.pack("!HH", ETH_P_8021Q, vlan) if vlan else b""
    return BROADCAST + SENDER + tag + struct.pack("!HI", ETHERTYPE, number) + bytes(46)


def heard(place: socket.socket) -> tuple[int, int] | None:
    """Return the number and the VLAN of a frame that came in, None for any other packet."""
    data, ancillary, _, address = place.recvmsg(2048, socket.CMSG_SPACE(AUXDATA.size))
    ethertype, number = struct.unpack_from("!HI", data, 12)
    if address[2] == PACKET_OUTGOING or ethertype != ETHERTYPE:
        return None
    # the kernel has taken the tag out of the data
    status, *_, tci, _tpid = AUXDATA.unpack(ancillary[0][2])
    return number, tci & 0xFFF if status & TP_STATUS_VLAN_VALID else 0


def main() -> None:
    job = json.load(sys.stdin)
    # On one processor everything happens in the order in which it was sent, and most of it before `send` returns.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    places = {name: listen(netns, link) for name, (netns, link) in job["places"].items()}
    for number, (sender, vlan) in enumerate(job["frames"]):
        places[sender].send(frame(number, vlan))
    hearers: list[dict[str, int]] = [{} for _ in job["frames"]]
    while readable := select.select(list(places.values()), [], [], QUIET)[0]:
        for name, place in places.items():
            if place in readable and (message := heard(place)):
                number, vlan = message
                if name in hearers[number]:
                    raise RuntimeError(f"{name} heard the frame {job['frames'][number]} twice")
                hearers[number][name] = vlan
    json.dump(hearers, sys.stdout)


if __name__ == "__main__":
    main()
