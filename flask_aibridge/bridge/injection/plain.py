"""An answer without its content coding: what is to be woven has to be read, though the bridge asks for none."""

from __future__ import annotations

from collections.abc import Iterator

from flask_aibridge.bridge.headers import media_type
from flask_aibridge.bridge.intercept.decoding import Decoder, decoder_for
from flask_aibridge.bridge.upstream import Answer, UpstreamBroken

SSE = "text/event-stream"
_OF_THE_CODING = ("content-encoding", "content-length")


def kind_of(answer: Answer) -> str:
    """The media type, in lower case."""
    return media_type(answer.headers)


def plain(answer: Answer) -> Answer | None:
    """The answer, decoded where that is necessary; null where it is in a coding that nothing here undoes."""
    named = [value for name, value in answer.headers if name.lower() == "content-encoding"]
    coding = ",".join(named).strip().lower()
    if coding in ("", "identity"):
        return answer
    decoder = decoder_for(coding)
    return None if decoder is None else Decoded(answer, decoder)


class Decoded(Answer):
    """An answer that is decoded while it is read."""

    def __init__(self, answer: Answer, decoder: Decoder) -> None:
        self.status, self.reason, self.patient = answer.status, answer.reason, answer.patient
        self.headers = [pair for pair in answer.headers if pair[0].lower() not in _OF_THE_CODING]
        self._answer = answer
        self._decoder = decoder
        self._pieces: Iterator[bytes] = iter(())

    def read(self, patience: float | None = None) -> bytes:
        while True:
            try:
                for piece in self._pieces:
                    if piece:
                        return piece
            except Exception as error:  # each library has its own
                raise UpstreamBroken("the answer is not what its Content-Encoding says") from error
            data = self._answer.read(patience)
            if not data:
                if not self._decoder.whole:
                    raise UpstreamBroken("the answer ends within its Content-Encoding")
                return b""
            self._pieces = self._decoder.feed(data)

    def close(self) -> None:
        self._answer.close()
