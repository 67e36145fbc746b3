"""What server processes tell each other: entries of the log that nobody receives. Every process reads them, in the same order. No I/O."""

from __future__ import annotations

import msgspec

from hub.principal import Principal
from storage.entries import OWN_TOPICS, Entry, NewEvent
from storage.owned import Owned
from storage.revoked import Revocation

CONTROL_TOPIC = f"{OWN_TOPICS}control"  # publishers cannot use it, and nobody is in its empty audience


class Revoked(msgspec.Struct, tag="revoked", tag_field="what", frozen=True):
    """Credentials that hold no longer."""

    revocation: Revocation


class Renewed(msgspec.Struct, tag="renewed", tag_field="what", frozen=True):
    """A fresh credential for a connection, of whichever process it is."""

    client_id: str
    principal: Principal


class Changed(msgspec.Struct, tag="changed", tag_field="what", frozen=True):
    """The owners of a resource are others now."""

    owned: Owned


Control = Revoked | Renewed | Changed
_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
_encoder = msgspec.json.Encoder(order="sorted")


def control_event(control: Control, correlation_id: str | None = None) -> NewEvent:
    """Return an event that tells all processes of something, ready to be appended."""
    type = f"control:{control.__struct_config__.tag}"
    return NewEvent(CONTROL_TOPIC, type, (), _encoder.encode(control).decode(), correlation_id=correlation_id)


def read_control(entry: Entry) -> Control | None:
    """Return what an entry tells the processes; None for every other entry, and for what a newer version of this server tells."""
    if entry.topic != CONTROL_TOPIC or entry.audience:
        return None
    try:
        return _decoder.decode(entry.data)
    except msgspec.DecodeError:
        return None
