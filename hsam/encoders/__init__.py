"""Image encoders, one family a file, behind one protocol: `hsam.encoders.base`.

Only these files know how an encoder is built inside; decoders, LoRA and storage ask the protocol.
"""
