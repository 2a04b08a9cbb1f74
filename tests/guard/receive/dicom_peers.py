"""Peers of the receiving tests: objects to send, and a sender over a bare socket that can misbehave at any byte."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498"
CT = str(CTImageStorage)
EXPLICIT = str(ExplicitVRLittleEndian)
VERIFICATION, COMMITMENT = "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"


def slice_of(number: int, *, side: int = 64, series: int = 1, seed: int = 0) -> FileDataset:
    """One CT slice of a made-up patient."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.{series}.{number}"
    ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.9", f"{ROOT}.9.{series}"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Doe^Jane", "PID-4711", "ward"
    ds.Modality, ds.InstanceNumber = "CT", str(number)
    ds.Rows = ds.Columns = side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng([seed, number]).integers(0, 4096, (side, side), dtype=np.uint16)
    ds.PixelData = pixels.tobytes()
    return ds


def body(ds: Dataset) -> bytes:
    """The data set's bytes in explicit VR little endian, as a sender puts them on the wire."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, ds)
    return stream.getvalue()


def saved(ds: FileDataset, folder: Path) -> Path:
    """Write it as a file; returns where."""
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


Contexts = tuple[tuple[str, str], ...]
Done = subprocess.CompletedProcess[str]


def storescu(port: int, *files: Path, options: tuple[str, ...] = (), called: str = "TITER") -> Done:
    """Send files with DCMTK's storescu."""
    command = ["storescu", "-v", *options, "-aec", called, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def echoscu(port: int, *options: str, called: str = "TITER") -> Done:
    """Send a C-ECHO with DCMTK."""
    command = ["echoscu", "-v", "-to", "10", *options, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def unit(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(content)) + content


def associate_request(
    contexts: tuple[tuple[str, str], ...] = ((CT, EXPLICIT),),
    called: str = "TITER",
    calling: str = "RAW",
    longest: int = 0,
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts are numbered 1, 3, 5 ..."""
    out = item(0x10, b"1.2.840.10008.3.1.1.1")
    for index, (abstract, transfer) in enumerate(contexts):
        out += item(
            0x20, bytes((2 * index + 1, 0, 0, 0)) + item(0x30, abstract.encode()) + item(0x40, transfer.encode())
        )
    out += item(0x50, item(0x51, longest.to_bytes(4, "big")) + item(0x52, b"1.2.3.4"))
    return unit(1, struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode()) + out)


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, tag, len(value)) + value


def uid(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) & 1)


def store_request(instance: str, message: int = 1, sop_class: str = CT) -> bytes:
    """The command set of a C-STORE-RQ."""
    one, number = struct.pack("<H", 1), struct.pack("<H", message)
    content = element(0x0002, uid(sop_class)) + element(0x0100, one) + element(0x0110, number)
    content += element(0x0700, bytes(2)) + element(0x0800, one) + element(0x1000, uid(instance))
    return element(0, len(content).to_bytes(4, "little")) + content


def pdv(context: int, control: int, content: bytes) -> bytes:
    return struct.pack(">IBB", len(content) + 2, context, control) + content


def store_units(instance: str, content: bytes, message: int = 1, piece: int = 131_000) -> bytes:
    """The P-DATA-TFs of a C-STORE on context 1."""
    out = [unit(4, pdv(1, 3, store_request(instance, message)))]
    for at in range(0, len(content), piece):
        last = 2 if at + piece >= len(content) else 0
        out.append(unit(4, pdv(1, last, content[at : at + piece])))
    return b"".join(out)


class Raw:
    """A sender over a bare socket."""

    def __init__(
        self, port: int, *, calling: str = "RAW", called: str = "TITER", tls: ssl.SSLContext | None = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.calling, self.called, self.piece = calling, called, 16_000
        if tls:
            self.socket = tls.wrap_socket(self.socket)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def receive(self) -> tuple[int, bytes]:
        """One unit: its type and body; type 0 where the guard closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        out = b""
        while len(out) < length:
            try:
                got = self.socket.recv(length - len(out))
            except ConnectionResetError:
                got = b""
            if not got:
                break
            out += got
        return out

    def associate(self, contexts: Contexts = ((CT, EXPLICIT),)) -> int:
        """Ask for an association; returns the type of the answer: 2 accepted, 3 rejected, 7 aborted."""
        self.send(associate_request(contexts, self.called, self.calling))
        kind, answer = self.receive()
        if kind == 2 and (length := int.from_bytes(answer.rpartition(b"\x51\0\0\4")[2][:4], "big")):
            self.piece = length - 6
        return kind

    def store(self, instance: str, content: bytes, message: int = 1) -> tuple[int, str]:
        """Send an object; returns status and comment."""
        self.send(store_units(instance, content, message, self.piece))
        return self.status()

    def status(self) -> tuple[int, str]:
        """Read a response; status -1 where none came."""
        kind, content = self.receive()
        if kind != 4:
            return -1, f"unit of type {kind}"
        elements, at, command = {}, 0, content[6:]
        while at < len(command):
            _group, tag, length = struct.unpack_from("<HHI", command, at)
            elements[tag] = command[at + 8 : at + 8 + length]
            at += 8 + length
        return int.from_bytes(elements[0x0900], "little"), elements.get(0x0902, b"").decode().strip()

    def release(self) -> int:
        """Release; returns the type of the answer."""
        self.send(unit(5, bytes(4)))
        return self.receive()[0]
