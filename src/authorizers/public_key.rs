//! Public keys of issuers: from a PEM file, or from the set at a URL.

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};

/// A key, and the only algorithm that it is good for: the token has no say in it.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    pub(super) algorithm: Algorithm,
    /// Its name in the set.
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
}

impl PublicKey {
    /// Reads a PEM file that begins with `BEGIN PUBLIC KEY`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let spki = SubjectPublicKeyInfoDer::from_pem_file(path)
            .map_err(|error| format!("no PUBLIC KEY in PEM: {error}; `openssl pkey -pubout` writes one"))?;
        let (algorithm, key) = split_spki(&spki).ok_or("not a public key in DER")?;
        let (algorithm, key) = if algorithm == alg_id::RSA_ENCRYPTION.as_ref() {
            (Algorithm::RS256, DecodingKey::from_rsa_der(key))
        } else if algorithm == alg_id::ECDSA_P256.as_ref() {
            (Algorithm::ES256, DecodingKey::from_ec_der(key))
        } else if algorithm == alg_id::ED25519.as_ref() {
            (Algorithm::EdDSA, DecodingKey::from_ed_der(key))
        } else {
            return Err("a key for none of RS256, ES256 (P-256) and EdDSA (Ed25519)".to_owned());
        };
        Ok(Self { algorithm, id: None, key })
    }

    /// Reads an entry of a key set. `None` if it is for something else: encryption, another algorithm, or a shared secret,
    /// which has no business in a public place.
    pub(super) fn from_jwk(entry: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(entry.clone()).ok()?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let named = match algorithm {
            Algorithm::RS256 => KeyAlgorithm::RS256,
            Algorithm::ES256 => KeyAlgorithm::ES256,
            _ => KeyAlgorithm::EdDSA,
        };
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        if !signs || common.key_algorithm.is_some_and(|algorithm| algorithm != named) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { algorithm, id: jwk.common.key_id, key })
    }
}

/// The content of the algorithm identifier and the key itself, out of a SubjectPublicKeyInfo (RFC 5280 §4.1): a sequence
/// of a sequence and a string of bits.
fn split_spki(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (outer, rest) = element(der, 0x30)?;
    let (algorithm, key) = element(outer, 0x30)?;
    let (bits, after) = element(key, 0x03)?;
    // The first byte of a bit string counts the bits that are left over.
    let key = bits.strip_prefix(&[0])?;
    (rest.is_empty() && after.is_empty()).then_some((algorithm, key))
}

/// The content of a DER element with this tag, and what follows the element.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else { return None };
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (*first == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_element_that_is_cut_off_is_none() {
        assert_eq!(element(&[0x30, 2, 1, 2, 3], 0x30), Some((&[1, 2][..], &[3][..])));
        for der in
            [&[][..], &[0x30], &[0x30, 2, 1], &[0x30, 0x81], &[0x30, 0x82, 1], &[0x30, 0x83, 0, 0, 0], &[0x31, 0]]
        {
            assert_eq!(element(der, 0x30), None, "{der:?}");
        }
    }

    #[test]
    fn keys_for_something_else_are_left_out() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let fits = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "a", "use": "sig", "alg": "EdDSA" });
        let key = PublicKey::from_jwk(&fits).unwrap();
        assert_eq!((key.algorithm, key.id.as_deref()), (Algorithm::EdDSA, Some("a")));
        let changes = [
            ("use", json!("enc")),
            ("alg", json!("RS256")),
            ("alg", json!("HS256")),
            ("alg", json!("none")),
            ("crv", json!("P-384")),
            ("crv", json!("X25519")),
            ("kty", json!("oct")),
            ("kty", json!(5)),
            ("x", json!("not base64!")),
        ];
        for (name, value) in changes {
            let mut entry = fits.clone();
            entry[name] = value;
            assert!(PublicKey::from_jwk(&entry).is_none(), "{entry}");
        }
        assert!(PublicKey::from_jwk(&json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" })).is_none());
        assert!(PublicKey::from_jwk(&json!([])).is_none());
    }
}
