//! Verifies and makes HMAC signatures; no I/O. Which bytes are signed, in which order, is protocol §3.1 for channels and
//! users, §4.2 for the HTTP API.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod request;
mod signer;
mod token;

use base16ct::{lower, mixed};
use hmac::{Hmac, Mac};
use md5::Digest;
use sha2::Sha256;

use crate::apps::mac_of;

pub use request::{Pair, RequestError, SignedQuery, form_pairs, query_pairs, sign_request, verify_body};
pub use signer::{Signer, shared_secret};
pub use token::{TokenError, channel_text, user_text, verify_token};

/// HMAC-SHA256 as 64 lower-case hex digits, the form of every signature in the protocol.
pub fn sign(secret: &str, text: &str) -> String {
    lower::encode_string(&mac_of(secret).chain_update(text).finalize().into_bytes())
}

/// Whether `signature`, in hex of either case, is the one of `text`. `mac` knows the secret, and no text yet. Takes the same
/// time wherever the first difference is.
pub fn verify(mac: &Hmac<Sha256>, text: &str, signature: &str) -> bool {
    let mut expected = [0; 32];
    is_hex_of(signature, &mut expected) && mac.clone().chain_update(text).verify_slice(&expected).is_ok()
}

/// The MD5 of a request body in hex, as the HTTP API signs it.
pub fn md5_hex(body: &[u8]) -> String {
    lower::encode_string(&md5::Md5::digest(body))
}

/// Whether `digest`, in hex of either case, is the MD5 of a request body.
pub fn is_md5(digest: &str, body: &[u8]) -> bool {
    let mut expected = [0; 16];
    is_hex_of(digest, &mut expected) && md5::Md5::digest(body)[..] == expected
}

/// Whether these are the hex digits, in either case, of as many bytes as there is room for; they are there then.
fn is_hex_of(digits: &str, bytes: &mut [u8]) -> bool {
    digits.len() == 2 * bytes.len() && mixed::decode(digits, bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_examples_of_webhook_signatures() {
        let table = [
            (
                "tofu",
                r#"{"time_ms":1403175510755,"events":[{"channel":"test_channel","name":"channel_vacated"}]}"#,
                "c17257e92037cd7de407ebc1ed174ceb7b2e518db127f44411b9ffc4f5b28cc5",
            ),
            (
                "app-secret-1",
                r#"{"time_ms":1700000000123,"events":[{"name":"client_event","channel":"presence-room","event":"client-typing","data":"{\"on\":true}","socket_id":"123.456","user_id":"u-1"}]}"#,
                "f9cdfd805e2fd5b25645fd944bb86af6af7e984d8afd0b4a92c8f8713d7c5639",
            ),
        ];
        for (secret, body, signature) in table {
            assert_eq!(sign(secret, body), signature);
            let mac = mac_of(secret);
            assert!(verify(&mac, body, signature));
            assert!(!verify(&mac, body, &signature[..62]));
            assert!(!verify(&mac, body, ""));
        }
    }
}
