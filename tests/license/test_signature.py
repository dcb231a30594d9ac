"""``license.signature``: only an Ed25519 signature by a known key passes, and every other token has its code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import ConfigError, LicenseError
from flask_aibridge.license import signature
from flask_aibridge.license.issuing import SigningKey, sign
from flask_aibridge.license.signature import MAX_LICENSE_BYTES, known_keys, load_public_keys, verify

KEY = SigningKey.generate("k1")
OTHER = SigningKey.generate("k2")
KEYS = load_public_keys({"k1": KEY.public_pem})
PAYLOAD = {"sub": "customer", "exp": 1}
TYPED = {"kid": "k1", "typ": "aibridge-license+jwt"}


def encode(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, payload: Any = PAYLOAD, key: SigningKey = KEY) -> str:
    """A token with any header, genuinely signed."""
    signing_input = f"{encode(header)}.{encode(payload)}"
    return f"{signing_input}.{encode(key.private_key.sign(signing_input.encode()))}"


def code_of(token: str) -> str:
    with pytest.raises(LicenseError) as caught:
        verify(token, KEYS)
    return caught.value.code


def test_a_genuine_licence_gives_its_payload() -> None:
    """Expired or not: this module has no clock."""
    assert verify(sign(KEY, PAYLOAD), KEYS) == PAYLOAD


def test_white_space_is_left_out() -> None:
    """A licence that a mail program wrapped still works."""
    token = sign(KEY, PAYLOAD)
    wrapped = "\n".join(token[i : i + 64] for i in range(0, len(token), 64))
    assert verify(f"  {wrapped}\r\n", KEYS) == PAYLOAD


def test_another_key_under_the_same_name_is_a_bad_signature() -> None:
    """The name proves nothing."""
    assert code_of(sign(SigningKey.generate("k1"), PAYLOAD)) == "license_bad_signature"


def test_an_unknown_key_has_its_code() -> None:
    """So that a rotation is told from a forgery."""
    assert code_of(sign(OTHER, PAYLOAD)) == "license_unknown_key"


@pytest.mark.parametrize("kid", [None, 1, "", ["k1"], {"k1": 1}])
def test_a_kid_that_names_no_key(kid: Any) -> None:
    """Also one of a type that no table could be asked for."""
    assert code_of(signed({"alg": "EdDSA", **TYPED, "kid": kid})) == "license_unknown_key"


def test_a_kid_is_required() -> None:
    """One known key does not make it a default."""
    assert code_of(signed({"alg": "EdDSA", "typ": TYPED["typ"]})) == "license_unknown_key"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_part_does_not_pass(part: int) -> None:
    """Header, payload and signature are all bound."""
    parts = sign(KEY, PAYLOAD).split(".")
    parts[part] = (
        sign(KEY, {**PAYLOAD, "sub": "other"}).split(".")[part] if part else encode({"alg": "EdDSA", **TYPED})
    )
    assert code_of(".".join(parts)) == "license_bad_signature"


class TestAlgorithms:
    def test_none(self) -> None:
        """Unsigned is unsigned, however it is spelled."""
        for alg in ("none", "None", "NONE"):
            assert code_of(f"{encode({'alg': alg, **TYPED})}.{encode(PAYLOAD)}.") == "license_algorithm"

    @pytest.mark.parametrize(
        "secret", [KEY.public_pem.encode(), base64.b64decode(KEY.public_base64)], ids=["PEM", "raw"]
    )
    def test_hmac_with_the_public_key_as_its_secret(self, secret: bytes) -> None:
        """The classic confusion: everybody knows the public key."""
        signing_input = f"{encode({'alg': 'HS256', **TYPED})}.{encode(PAYLOAD)}"
        forged = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
        assert code_of(f"{signing_input}.{encode(forged)}") == "license_algorithm"

    @pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256"])
    def test_other_signatures(self, alg: str) -> None:
        """Sound, and not ours."""
        key: Any = ec.generate_private_key(ec.SECP256R1())
        if alg != "ES256":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        assert code_of(jwt.encode(PAYLOAD, key, algorithm=alg, headers=TYPED)) == "license_algorithm"

    @pytest.mark.parametrize("alg", [None, "", "eddsa", "EDDSA", "Ed25519", 1, ["EdDSA"]])
    def test_a_genuine_signature_under_another_name(self, alg: Any) -> None:
        """The name is compared, not interpreted."""
        assert code_of(signed({"alg": alg, **TYPED})) == "license_algorithm"

    def test_ed448(self) -> None:
        """``EdDSA`` too, with the other curve: not by a key of ours."""
        token = jwt.encode(PAYLOAD, Ed448PrivateKey.generate(), algorithm="EdDSA", headers=TYPED)
        assert code_of(token) == "license_bad_signature"


class TestHeaders:
    @pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "aibridge-license", "AIBRIDGE-LICENSE+JWT", 1])
    def test_another_type_of_token(self, typ: Any) -> None:
        """A session token of the same vendor is not a licence."""
        assert code_of(signed({"alg": "EdDSA", **TYPED, "typ": typ})) == "license_malformed"

    @pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "x", None])
    def test_critical_extensions(self, crit: Any) -> None:
        """None is understood here."""
        assert code_of(signed({"alg": "EdDSA", **TYPED, "crit": crit})) == "license_malformed"

    def test_a_key_in_the_token_is_never_used(self) -> None:
        """Neither its own key nor where to fetch one."""
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": encode(base64.b64decode(OTHER.public_base64))}
        header = {"alg": "EdDSA", **TYPED, "jwk": jwk, "jku": "https://localhost/jwks", "x5c": ["x"]}
        assert code_of(signed(header, key=OTHER)) == "license_bad_signature"

    def test_each_kind_of_token_has_its_type(self) -> None:
        """One does not pass for the other, either way."""
        other = sign(KEY, PAYLOAD, typ="other+jwt")
        assert verify(other, KEYS, typ="other+jwt") == PAYLOAD
        assert code_of(other) == "license_malformed"
        with pytest.raises(LicenseError, match="does not have typ"):
            verify(sign(KEY, PAYLOAD), KEYS, typ="other+jwt")

    def test_an_unencoded_payload(self) -> None:
        """RFC 7797's ``b64``, even without ``crit``."""
        assert code_of(signed({"alg": "EdDSA", **TYPED, "b64": False})) == "license_malformed"


class TestMalformed:
    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c.d",
            "not a licence",
            "-----BEGIN LICENSE-----",
            "é.é.é",
            "a.b.c=",
            "\x00",
            "e30.e30",
            "{}.{}.x",
        ],
    )
    def test_not_a_compact_jwt(self, token: str) -> None:
        """Three parts of base64url."""
        assert code_of(token) == "license_malformed"

    @pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 6000, b'{"alg":NaN}', b"1"])
    def test_a_header_that_is_no_object(self, raw: bytes) -> None:
        """However deep it is nested."""
        assert code_of(f"{encode(raw) or 'A'}.e30.AAAA") == "license_malformed"

    @pytest.mark.parametrize(
        "raw", [b"[]", b"null", b"{", b"\xff", b"[" * 6000, b'{"exp":Infinity}', b"9" * 5000]
    )
    def test_a_payload_that_is_no_object(self, raw: bytes) -> None:
        """A genuine signature does not make it one."""
        assert code_of(signed({"alg": "EdDSA", **TYPED}, raw)) == "license_malformed"

    def test_too_large(self) -> None:
        """Longer than any licence: not looked at, genuine or not."""
        assert code_of(sign(KEY, {"sub": "x" * MAX_LICENSE_BYTES})) == "license_too_large"
        assert code_of("x" * (MAX_LICENSE_BYTES + 1)) == "license_too_large"
        assert code_of("x" * MAX_LICENSE_BYTES) == "license_malformed"

    @given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,90}"))
    def test_any_text_is_refused(self, token: str) -> None:
        """With a code and nothing else, whatever it is."""
        with pytest.raises(LicenseError):
            verify(token, KEYS)

    @given(
        st.dictionaries(st.text(max_size=4) | st.sampled_from(["alg", "kid", "typ"]), st.none() | st.text())
    )
    def test_any_header_is_refused(self, header: dict[str, Any]) -> None:
        """Genuinely signed or not."""
        with pytest.raises(LicenseError):
            verify(signed(header), KEYS)


class TestPublicKeys:
    @pytest.mark.parametrize("padding", ["", "="])
    @pytest.mark.parametrize("urlsafe", [False, True])
    def test_raw_keys(self, urlsafe: bool, padding: str) -> None:
        """Base64 in either alphabet, with its padding or without."""
        text = KEY.public_base64.rstrip("=") + padding
        if urlsafe:
            text = text.replace("+", "-").replace("/", "_")
        assert verify(sign(KEY, PAYLOAD), load_public_keys({"k1": f" {text}\n"})) == PAYLOAD

    def test_several_keys(self) -> None:
        """A rotation: the old one and the new one."""
        keys = load_public_keys({"k1": KEY.public_pem, "k2": OTHER.public_base64})
        assert verify(sign(KEY, PAYLOAD), keys) == verify(sign(OTHER, PAYLOAD), keys)

    @pytest.mark.parametrize("text", ["x", "AAAA", "é" * 43, "A" * 44 + "=", "-----BEGIN PUBLIC KEY-----\nx"])
    def test_what_is_no_key(self, text: str) -> None:
        """Named by its kid."""
        with pytest.raises(ConfigError, match=r"AIBRIDGE_LICENSE_PUBLIC_KEYS\['k9'\] is not a public key"):
            load_public_keys({"k9": text})

    def test_the_built_in_keys_come_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Oldest to newest, then those of the configuration."""
        monkeypatch.setattr(signature, "BUILT_IN_KEYS", {"k1": KEY.public_pem})
        keys = known_keys({"k2": OTHER.public_pem})
        assert list(keys) == ["k1", "k2"]
        assert verify(sign(KEY, PAYLOAD), keys) == verify(sign(OTHER, PAYLOAD), keys) == PAYLOAD

    def test_a_built_in_key_is_not_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same key once more does no harm."""
        monkeypatch.setattr(signature, "BUILT_IN_KEYS", {"k1": KEY.public_pem})
        assert list(known_keys({"k1": KEY.public_base64})) == ["k1"]
        with pytest.raises(ConfigError, match=r"\['k1'\] is not the built-in key"):
            known_keys({"k1": OTHER.public_pem})

    def test_a_bad_signature_tries_no_other_key(self) -> None:
        """That a second known key made it is no help to a licence that names the first."""
        keys = known_keys({"k1": KEY.public_pem, "k2": OTHER.public_pem})
        header = {"alg": "EdDSA", **TYPED}
        with pytest.raises(LicenseError) as caught:
            verify(signed(header, key=OTHER), keys)
        assert caught.value.code == "license_bad_signature"

    def test_a_key_of_another_kind(self) -> None:
        """Ed448 signs ``EdDSA`` as well, and is refused as a key."""
        pem = (
            Ed448PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        with pytest.raises(ConfigError, match="another kind"):
            load_public_keys({"k1": pem.decode()})

    def test_a_private_key(self) -> None:
        """The error says what happened, and does not repeat it."""
        pem = KEY.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        with pytest.raises(ConfigError, match="is a private key") as caught:
            load_public_keys({"k1": pem})
        assert pem.splitlines()[1] not in str(caught.value)


SIGNATURE_TEXTS = {
    "none": ("", "license_bad_signature"),
    "cut off": ("A" * 85, "license_malformed"),
    "another length": ("A" * 84, "license_bad_signature"),
    "another alphabet": ("+" * 86, "license_malformed"),
}


@pytest.mark.parametrize(("text", "code"), SIGNATURE_TEXTS.values(), ids=SIGNATURE_TEXTS)
def test_a_signature_of_another_form(text: str, code: str) -> None:
    """Is refused by rules of our own, whatever the installed PyJWT thinks of it."""
    token = sign(KEY, PAYLOAD).rpartition(".")[0] + "." + text
    with pytest.raises(LicenseError) as refused:
        verify(token, KEYS)
    assert refused.value.code == code


def test_a_signature_has_one_spelling() -> None:
    """The spare bits at the end of its base64 are zero; else two texts would be one licence."""
    token = sign(KEY, PAYLOAD)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    with pytest.raises(LicenseError) as refused:
        verify(other, KEYS)
    assert refused.value.code == "license_malformed"


_PRIME = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022


@pytest.mark.parametrize("sign_of_x", [0, 1])
@pytest.mark.parametrize("y", [0, 1, _PRIME - 1, _PRIME, _PRIME + 1, _ORDER_8, _PRIME - _ORDER_8])
def test_a_public_key_of_small_order(y: int, sign_of_x: int) -> None:
    """Anybody can sign anything for it, so it is refused: 32 zero bytes, for example."""
    raw = (y | sign_of_x << 255).to_bytes(32, "little")
    with pytest.raises(ConfigError, match=r"\['k1'\] is a point of small order"):
        load_public_keys({"k1": base64.b64encode(raw).decode()})
