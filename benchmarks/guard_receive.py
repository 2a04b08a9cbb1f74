"""The receiving part of the guard beside Orthanc: C-STORE per second, acknowledgement latency, memory under attack.

Prints tables; `--write` keeps them in benchmarks/results/. Run alone on the machine:

    python benchmarks/guard_receive.py [--slices 400] [--repeats 3] [--no-orthanc] [--write]

Each slice is a CT of 512 x 512 x 16 bit in explicit little endian, 530 kB, with a SOP Instance UID that was never sent
before. The bare-socket sender (one process, one thread per association) sends the next slice when the one before was
acknowledged; DCMTK's storescu is timed with its start. The guard's figures are with T0, SHA-256 of file and pixels,
fsync of file and folder, the journal's commit (SQLite WAL, synchronous = FULL) and the audit row before each
acknowledgement.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from guard_receive_peers import HERE, Slices, guard, orthanc, send, serve

from dicom_peers import Raw, pdv, store_request, unit  # isort: skip - found by the one before

ASSOCIATIONS = (1, 4, 8)
TARGETS = {1: 65, 4: 190, 8: 220}


def bare(port: int, called: str, associations: int, slices: int) -> tuple[float, list[float]]:
    """Send from a process of its own; returns slices per second and latencies in ms."""
    command = [sys.executable, __file__, "--send", str(port), called, str(associations), str(slices)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return len(told["latencies"]) / told["seconds"], sorted(1000 * one for one in told["latencies"])


def storescu(port: int, called: str, files: list[list[Path]], *, nodelay: bool) -> float:
    """Send with DCMTK, one process per association; returns slices per second."""
    environment = {**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})}
    began = time.perf_counter()
    running = [
        subprocess.Popen(["storescu", "-aec", called, "127.0.0.1", str(port), *map(str, share)], env=environment)  # noqa: S607
        for share in files
    ]
    codes = [one.wait() for one in running]
    assert not any(codes), codes
    return sum(map(len, files)) / (time.perf_counter() - began)


def throughput(work: Path, slices: int, repeats: int, *, with_orthanc: bool) -> list[str]:
    """Measure, and return the table's lines."""
    lines = [
        "| receiver | sender | associations | slices/s, best of runs (all runs) | ack p50 / p99 ms, best run | reach |",
        "|---|---|---|---|---|---|",
    ]
    servers = [("guard", guard, "TITER"), *([("Orthanc, its defaults", orthanc, "ORTHANC")] if with_orthanc else [])]
    for name, server, called in servers:
        with server(work / f"{called}-bare") as (port, pid):
            bare(port, called, 1, 20)  # first use: imports, tables, page cache
            for associations in ASSOCIATIONS:
                cpu = _cpu(pid)
                runs = [bare(port, called, associations, slices) for _ in range(repeats)]
                each = 1000 * (_cpu(pid) - cpu) / (repeats * (slices // associations) * associations)
                rate, latencies = max(runs, key=lambda run: run[0])
                p50, p99 = (latencies[min(int(share * len(latencies)), len(latencies) - 1)] for share in (0.5, 0.99))
                reach = f">= {TARGETS[associations]}" if name == "guard" else ""
                every = ", ".join(f"{run[0]:.0f}" for run in runs)
                lines.append(
                    f"| {name} ({each:.1f} ms CPU a slice) | bare socket | {associations} | {rate:.0f} ({every}) "
                    f"| {p50:.1f} / {p99:.1f} | {reach} |"
                )
                print(lines[-1], flush=True)
        for nodelay in (False, True):
            with server(work / f"{called}-{nodelay}") as (port, _pid):
                source = Slices()
                for associations in ASSOCIATIONS:
                    folder = work / f"files-{called}-{nodelay}-{associations}"
                    folder.mkdir()
                    count = slices // 2 // associations
                    files = [[source.file(folder) for _ in range(count)] for _ in range(associations)]
                    rate = storescu(port, called, files, nodelay=nodelay)
                    shutil.rmtree(folder)
                    sender = "storescu" + (", TCP_NODELAY=1" if nodelay else "")
                    lines.append(f"| {name} | {sender} | {associations} | {rate:.0f} | | |")
                    print(lines[-1], flush=True)
    return lines


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def light_check() -> list[str]:
    """Measure T0 on one slice, in CPU time of this process: other work on the machine counts less."""
    from titer.guard.checks.light import Claim, light

    uid, content = Slices().one()
    claim = Claim(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    rounds = 200
    walks = _each(rounds, lambda: light(content, 0, claim))
    hashes = _each(rounds, lambda: hashlib.sha256(content).digest())
    lines = ["| T0 of one 530 kB slice | ms CPU | reach |", "|---|---|---|"]
    lines.append(f"| header walk | {walks:.2f} | <= 2 with the next |")
    lines.append(f"| SHA-256 of the pixel data | {hashes:.2f} | |")
    print("\n".join(lines), flush=True)
    return lines


def _each(rounds: int, work: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(rounds):
        work()
    return 1000 * (time.process_time() - began) / rounds


def hostile(work: Path) -> list[str]:
    """Measure memory of the guard's process under hostile peers, and how long a good peer waits meanwhile."""
    lines = ["| attack | memory before, MB | most, MB | growth, MB | good peer's object acknowledged after, ms |"]
    lines.append("|---|---|---|---|---|")
    with guard(work / "hostile") as (port, pid):
        bare(port, "TITER", 8, 160)
        for name, attack in (("4 GiB claimed, 50 times", _claims), ("300 idle sockets", _idle), ("endless", _endless)):
            before = _rss(pid)
            most, waited = attack(port, pid)
            lines.append(f"| {name} | {before:.0f} | {most:.0f} | {most - before:.0f} | {1000 * waited:.0f} |")
            print(lines[-1], flush=True)
    return lines


def _rss(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def _good_peer(port: int) -> float:
    uid, content = Slices().one()
    began = time.perf_counter()
    with Raw(port, calling="GOOD") as peer:
        assert peer.associate() == 2
        assert peer.store(uid, content)[0] == 0
    return time.perf_counter() - began


def _claims(port: int, pid: int) -> tuple[float, float]:
    most = 0.0
    for _ in range(50):
        with Raw(port) as peer:
            with contextlib.suppress(OSError):
                peer.send(struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(4 << 20))
            most = max(most, _rss(pid))
    return most, _good_peer(port)


def _idle(port: int, pid: int) -> tuple[float, float]:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        time.sleep(1)
        waited = _good_peer(port)
        return _rss(pid), waited


def _endless(port: int, pid: int) -> tuple[float, float]:
    """Ten associations of one peer, each with an object that does not end, 100 MB of each."""
    piece = unit(4, pdv(1, 0, bytes(130_000)))
    most = 0.0
    waited = 0.0
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Raw(port, calling="EVIL")) for _ in range(10)]
        for peer in peers:
            assert peer.associate() == 2
            peer.send(unit(4, pdv(1, 3, store_request("1.2.3"))))
        for number in range(770):
            for peer in peers:
                peer.send(piece)
            most = max(most, _rss(pid))
            if number % 200 == 100:
                waited = max(waited, _good_peer(port))
    return most, waited


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-orthanc", action="store_true")
    parser.add_argument("--only", choices=("throughput", "hostile"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--send", nargs=4)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    if given.send:
        port, called, associations, slices = given.send
        print(json.dumps(send(int(port), called, int(associations), int(slices))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tables: list[str] = []
        if given.only != "hostile":
            tables += [*light_check(), ""]
            tables += [*throughput(work, given.slices, given.repeats, with_orthanc=not given.no_orthanc), ""]
        if given.only != "throughput":
            tables += hostile(work)
    if given.write:
        load = f"Load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n"
        text = "# Receiving, measured by benchmarks/guard_receive.py\n\n" + load + "\n" + "\n".join(tables) + "\n"
        (HERE / "results" / f"{time.strftime('%Y-%m-%d')}-guard-receive.md").write_text(text)


if __name__ == "__main__":
    main()
