//! JSON Web Tokens, made by hand: the server's library is not asked.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use sha2::Sha256;

use super::rsa_key::RSA_KEY;
use super::{pem, unix_now};

/// The secret of the tests' HS256 tokens.
pub const JWT_SECRET: &str = "a secret of the tests, longer than 32 bytes";

/// A key that an issuer signs with.
pub enum Issuer {
    /// HS256.
    Secret(Vec<u8>),
    /// RS256.
    Rsa(Box<RsaKeyPair>),
    /// ES256.
    Ec(EcdsaKeyPair),
    /// EdDSA.
    Ed(Ed25519KeyPair),
}

impl Issuer {
    /// The one whose secret the server has.
    pub fn trusted() -> Self {
        Self::Secret(JWT_SECRET.into())
    }

    /// The only RSA key of the tests.
    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(RSA_KEY).unwrap()).unwrap()))
    }

    /// A new key on P-256.
    pub fn ec() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap())
    }

    /// A new Ed25519 key.
    pub fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    /// The name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// A token with these claims that is good for an hour.
    pub fn token(&self, claims: Value) -> String {
        self.token_with(json!({ "alg": self.algorithm(), "typ": "JWT" }), claims)
    }

    /// The same with the name of the key.
    pub fn named_token(&self, kid: &str, claims: Value) -> String {
        self.token_with(json!({ "alg": self.algorithm(), "kid": kid }), claims)
    }

    /// The same with any header. `exp` is added unless the claims have it; `null` leaves it out.
    pub fn token_with(&self, header: Value, mut claims: Value) -> String {
        let object = claims.as_object_mut().unwrap();
        object.entry("exp").or_insert_with(|| (unix_now() + 3600).into());
        if object["exp"].is_null() {
            object.remove("exp");
        }
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", encode(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as an entry of a key set.
    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Secret(secret) => json!({ "kty": "oct", "k": encode(secret) }),
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Self::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key()) }),
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm().into();
        jwk
    }

    /// The public key as a PEM file.
    pub fn public_pem(&self) -> String {
        let (algorithm, key): (&[u8], &[u8]) = match self {
            Self::Secret(_) => panic!("a secret has no public half"),
            Self::Rsa(key) => (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00", key.public().as_ref()),
            Self::Ec(key) => (
                b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
                key.public_key().as_ref(),
            ),
            Self::Ed(key) => (b"\x06\x03\x2b\x65\x70", key.public_key().as_ref()),
        };
        let key = element(0x03, &[b"\0", key].concat());
        pem("PUBLIC KEY", &element(0x30, &[element(0x30, algorithm), key].concat()))
    }
}

/// Base64 as tokens have it.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}
