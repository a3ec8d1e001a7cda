//! Fanfare.
pub mod config;
pub mod protocol;
pub use config::Config;
