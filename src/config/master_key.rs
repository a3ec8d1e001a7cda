//! The key behind encrypted channels.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{AppConfig, Secret};

/// The 32 bytes from which the key of every encrypted channel is made (protocol §3.2). `Debug` prints a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Reads base64, in which all libraries take the key.
    pub fn parse(secret: &Secret) -> Option<Self> {
        let bytes = STANDARD.decode(secret.expose().trim()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The bytes themselves, for derivations.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl AppConfig {
    /// The master key of the app's encrypted channels, if it has one.
    pub fn master_key(&self) -> Option<MasterKey> {
        self.encryption_master_key.as_ref().and_then(MasterKey::parse)
    }
}
