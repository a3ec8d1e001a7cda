//! Many nodes as one server: real `fanfare` processes around a real Redis, which are killed, paused, cut off and
//! restarted. The client, the HTTP client and the signatures are those of `tests/it`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(unreachable_pub, reason = "nothing outside this binary can call anything in it")]

#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "written for tests/it, which needs more of it")]
mod it;
mod support;

mod crashes;
mod events;
mod fairness;
mod fallbacks;
mod model;
mod network;
mod presence;
mod questions;
mod restarts;
mod scripts;
mod tools;
mod topologies;
mod users;
