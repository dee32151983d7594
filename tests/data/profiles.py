"""Colour profiles made of the parts that ICC asks for: no profile of others is needed."""


def number(value):
    """Return a number of 16.16 bits."""
    return round(value * 65536).to_bytes(4, "big", signed=True)


def place(x, y, z):
    """Return a colour."""
    return b"XYZ \0\0\0\0" + number(x) + number(y) + number(z)


def gamma(value):
    """Return a curve."""
    count = (1).to_bytes(4, "big")
    return b"curv\0\0\0\0" + count + round(value * 256).to_bytes(2, "big") + b"\0\0"


def assembled(space, tags):
    """Return a display profile of ``tags`` for pictures of ``space``."""
    text = b"desc\0\0\0\0" + (5).to_bytes(4, "big") + b"test\0" + bytes(78 + 3)
    tags = {
        b"desc": text,
        b"cprt": b"text\0\0\0\0none",
        b"wtpt": place(0.9642, 1.0, 0.8249),
        **tags,
    }
    table, body = len(tags).to_bytes(4, "big"), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + (start + len(body)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content
    size = (start + len(body)).to_bytes(4, "big")
    light = number(0.9642) + number(1.0) + number(0.8249)
    header = size + bytes(4) + b"\x02\x10\0\0" + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + light + bytes(48)
    return header + table + body


def wide_gamut_profile():
    """Return a profile with BT.2020's primaries and gamma 2.2."""
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.2))
    primaries = {
        b"rXYZ": place(0.6734, 0.2790, -0.0019), b"gXYZ": place(0.1657, 0.6754, 0.0300),
        b"bXYZ": place(0.1251, 0.0456, 0.7968),
    }  # fmt: skip
    return assembled(b"RGB ", primaries | curves)


def linear_grey_profile():
    """Return a profile of grey with gamma 1: its middle is much brighter than sRGB's."""
    return assembled(b"GRAY", {b"kTRC": gamma(1.0)})
