//! Signatures, made from the crates' HMAC and MD5 and nothing of the server.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

/// HMAC-SHA256 in lower-case hex.
pub fn hmac(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    base16ct::lower::encode_string(&mac.finalize().into_bytes())
}

/// MD5 in lower-case hex.
pub fn md5(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Md5::digest(bytes))
}

/// The text an API request signs: keys in lower case and in order, values as they are meant, the signature left out.
pub fn request_text(method: &str, path: &str, params: &[(String, String)]) -> String {
    let mut params: Vec<_> = params.iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
    params.retain(|(key, _)| key != "auth_signature");
    params.sort_by(|(a, _), (b, _)| a.cmp(b));
    let query: Vec<_> = params.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{method}\n{path}\n{}", query.join("&"))
}

#[test]
fn the_tests_sign_channels_and_users_as_published() {
    let (docs, node) = ("7ad3773142a6692b25b8", "tofu");
    let rows = [
        (docs, "1234.1234:private-foobar", "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
        (
            docs,
            r#"1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#,
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
        ),
        (
            docs,
            r#"1234.1234::user::{"id":"12345"}"#,
            "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
        ),
        (node, "123.456:test", "efa6cf7644a0b35cba36aa0f776f3cbf7bb60e95ea2696bde1dbe8403b61bd7c"),
        (node, r#"1.1::user::{"id":"ą§¶™€łü€ß£"}"#, "620494cee53d6c568b49598313194088afda37218f0d059af03c0c898ed61ff4"),
    ];
    for (secret, text, expected) in rows {
        assert_eq!(hmac(secret, text), expected, "{text}");
    }
}

#[test]
fn the_tests_sign_api_requests_as_published() {
    let pairs = |query: &str| -> Vec<(String, String)> {
        query.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let params = pairs("query=params&go=here&auth_key=key&auth_timestamp=1234&auth_version=1.0");
    let text = request_text("POST", "/some/path", &params);
    assert_eq!(text, "POST\n/some/path\nauth_key=key&auth_timestamp=1234&auth_version=1.0&go=here&query=params");
    assert_eq!(hmac("secret", &text), "3b237953a5ba6619875cbb2a2d43e8da9ef5824e8a2c689f6284ac85bc1ea0db");
    let params = pairs("QUERY=params&go=here&auth_key=key&auth_timestamp=1234&auth_version=1.0&auth_signature=x");
    assert_eq!(request_text("POST", "/some/path", &params), text);
    assert_eq!(md5(b"example body"), "165d5e6d7ca8f73b3853ce45addf42fc");
}
