//! Attacks on a real server process, and what they cost it and everybody else: memory, descriptors, log lines, and the
//! latency of a fresh client while they go on. Bounds are ratios and counts; the one time is that of the fresh client.
//!
//! The attacks are the rows of the table in SECURITY.md. They run one at a time, since they measure.
//! `cargo test --test abuse -- --nocapture` prints what each of them measured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(unreachable_pub, reason = "nothing outside this binary can call anything in it")]

#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "written for tests/it, which needs more of it")]
mod it;
mod support;

mod addresses;
mod bodies;
mod caches;
mod channels;
mod clusters;
mod descriptors;
mod floods;
mod frames;
mod listings;
mod logs;
mod presence;
mod readers;
mod reconnects;
mod webhooks;
