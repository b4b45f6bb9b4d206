#!/usr/bin/env python3
"""A complete Callboard client in one page, Python's standard library only: hello, metadata, produce, fetch.

    python3 mini_client.py [HOST:PORT] [TOPIC]          (the topic has to exist; 127.0.0.1:9644 and "hello" by default)

docs/protocol.md explains every byte. Records are sent uncompressed, and only uncompressed ones are shown.
"""
import socket, struct, sys, time

# --- MessagePack, as much of it as the protocol uses --------------------------------------------------------------------

def pack(v):
    if v is None: return b"\xc0"
    if isinstance(v, bool): return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        if 0 <= v < 128: return bytes([v])
        return b"\xd3" + struct.pack(">q", v) if v < 0 else b"\xcf" + struct.pack(">Q", v)
    if isinstance(v, str): return b"\xdb" + struct.pack(">I", len(v.encode())) + v.encode()
    if isinstance(v, bytes): return b"\xc6" + struct.pack(">I", len(v)) + v
    if isinstance(v, (list, tuple)): return b"\xdd" + struct.pack(">I", len(v)) + b"".join(map(pack, v))
    if isinstance(v, dict): return b"\xdf" + struct.pack(">I", len(v)) + b"".join(pack(k) + pack(v[k]) for k in v)
    raise TypeError(type(v))

SCALARS = {0xca: ">f", 0xcb: ">d", 0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b", 0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}
LENGTHS = {0xc4: (">B", "bin"), 0xc5: (">H", "bin"), 0xc6: (">I", "bin"), 0xd9: (">B", "str"), 0xda: (">H", "str"), 0xdb: (">I", "str"),
           0xdc: (">H", "list"), 0xdd: (">I", "list"), 0xde: (">H", "dict"), 0xdf: (">I", "dict")}

def unpack(b, at=0):
    """Returns the value at `at` and where the next one starts."""
    m, at = b[at], at + 1
    if m < 0x80: return m, at
    if m >= 0xe0: return m - 256, at
    if m in (0xc0, 0xc2, 0xc3): return {0xc0: None, 0xc2: False, 0xc3: True}[m], at
    if m in SCALARS: return struct.unpack_from(SCALARS[m], b, at)[0], at + struct.calcsize(SCALARS[m])
    if m < 0x90: kind, n = "dict", m & 15
    elif m < 0xa0: kind, n = "list", m & 15
    elif m < 0xc0: kind, n = "str", m & 31
    else:
        fmt, kind = LENGTHS[m]
        n, at = struct.unpack_from(fmt, b, at)[0], at + struct.calcsize(fmt)
    if kind in ("bin", "str"): return (b[at:at + n] if kind == "bin" else b[at:at + n].decode()), at + n
    items = []
    for _ in range(n if kind == "list" else 2 * n):
        item, at = unpack(b, at)
        items.append(item)
    return (items if kind == "list" else dict(zip(items[::2], items[1::2]))), at

# --- Record batches -----------------------------------------------------------------------------------------------------

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

def varint(n):  # zigzag, then seven bits a byte, the lowest first
    n, out = (n << 1) ^ (n >> 63), bytearray()
    while n > 127: out.append(n & 127 | 128); n >>= 7
    return bytes(out) + bytes([n])

def read_varint(b, at):
    n = shift = 0
    while True:
        byte, at = b[at], at + 1
        n |= (byte & 127) << shift
        shift += 7
        if byte < 128: return (n >> 1) ^ -(n & 1), at

def field(v): return varint(-1) if v is None else varint(len(v)) + v

def build_batch(records):
    """`records`: (key, value) pairs of bytes or None."""
    now, body = int(time.time() * 1000), b""
    for i, (key, value) in enumerate(records):
        record = b"\0" + varint(0) + varint(i) + field(key) + field(value) + varint(0)
        body += varint(len(record)) + record
    # attributes, last offset delta, first and max timestamp, producer id, epoch and sequence (none), count
    tail = struct.pack(">hiqqqhii", 0, len(records) - 1, now, now, -1, -1, -1, len(records)) + body
    return struct.pack(">qiibI", 0, 9 + len(tail), -1, 2, crc32c(tail)) + tail

def read_batches(b):
    """Yields (offset, key, value)."""
    at = 0
    while at + 61 <= len(b):
        base, length, _, _, crc, attributes = struct.unpack_from(">qiibIh", b, at)
        end = at + 12 + length
        if end > len(b): return
        assert crc32c(b[at + 21:end]) == crc, "damaged batch"
        assert attributes & 7 == 0, "a compressed batch: this small client does not inflate it"
        count, p = struct.unpack_from(">i", b, at + 57)[0], at + 61
        for _ in range(0 if attributes & 32 else count):  # bit 5: a control batch, not data
            size, p = read_varint(b, p)
            record_end, q = p + size, p + 1
            _, q = read_varint(b, q)
            delta, q = read_varint(b, q)
            fields = []
            for _ in range(2):
                n, q = read_varint(b, q)
                fields.append(None if n < 0 else b[q:q + n])
                q += max(n, 0)
            yield base + delta, *fields
            p = record_end
        at = end

# --- The connection -----------------------------------------------------------------------------------------------------

HELLO, METADATA, PRODUCE, FETCH = 0, 1, 2, 3

class CallboardError(Exception): pass

def ok(outcome):  # [error, value]: one of them is nil
    if outcome[0] is not None: raise CallboardError("error %d: %s" % tuple(outcome[0]))
    return outcome[1]

class Client:
    def __init__(self, host, port):
        self.socket, self.next_id = socket.create_connection((host, port)), 1
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.hello = self.call(HELLO, [1, 1, "mini-client", "mini_client.py"])[0]

    def call(self, api, body, attachments=()):
        """Sends a request and returns the payload and the attachments of its reply."""
        frame = pack([api, 1, self.next_id]) [5:]  # three elements without the array's own marker
        frame = b"\x95" + frame + pack(body) + pack(list(attachments))
        self.socket.sendall(struct.pack(">I", len(frame)) + frame)
        length = struct.unpack(">I", self.exactly(4))[0]
        (_, _, correlation_id, reply, bins), _ = unpack(self.exactly(length))
        assert correlation_id in (0, self.next_id)  # 0: an error of the connection as a whole
        self.next_id += 1
        return ok(reply), bins

    def exactly(self, n):
        parts = bytearray()
        while len(parts) < n:
            part = self.socket.recv(n - len(parts))
            if not part: raise CallboardError("the node closed the connection")
            parts += part
        return bytes(parts)

def main():
    address, topic_name = (sys.argv[1:] + ["127.0.0.1:9644", "hello"][len(sys.argv) - 1:])[:2]
    host, port = address.rsplit(":", 1)
    client = Client(host, int(port))
    print("node", client.hello[2], client.hello[3], "speaks protocol", client.hello[0])
    _, _, _, topics = client.call(METADATA, [[topic_name]])[0]
    topic_id, _, partitions = ok(topics[0][1])
    print("topic", topic_name, "has", len(partitions), "partition(s)")
    batch = build_batch([(b"greeting", b"hello"), (None, b"from python")])
    outcomes, = client.call(PRODUCE, [-1, 30000, [[topic_id, 0, None]]], [batch])[0]
    base_offset, _, _ = ok(outcomes[0])
    print("appended at offset", base_offset)
    (outcomes,), bins = client.call(FETCH, [1000, 1, 1 << 20, [[topic_id, 0, None, base_offset, 1 << 20]]])
    _, high_watermark, _ = ok(outcomes[0])
    for offset, key, value in read_batches(bins[0]):
        if offset >= base_offset: print(offset, key, value)
    print("high watermark", high_watermark)

if __name__ == "__main__":
    main()
