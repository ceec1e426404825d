"""Event files, read as TensorBoard reads them."""

import struct


def records(path):
    """The events of a file: length, its checksum, content, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + length])
        at += length + 16


def scalars(folder):
    """(step, value) of every scalar, without those that a restart discards."""
    from tensorboardX.proto.event_pb2 import SessionLog

    found = {}
    for path in sorted(folder.glob("events.*")):
        for event in records(path):
            if event.session_log.status == SessionLog.START:
                for name, points in found.items():
                    found[name] = [p for p in points if p[0] < event.step]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points = found.setdefault(value.tag, [])
                    points.append((event.step, value.simple_value))
    return found
