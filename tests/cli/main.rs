//! The command line seen from outside: every test runs the real binary with an environment of its own, reads what it
//! prints, and reads as a sentence of the manual. Servers take free ports and say in their log which.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(unreachable_pub, reason = "nothing outside this binary can call anything in it")]

mod support;

mod bench;
mod check_and_config;
mod dev;
mod help;
mod listen;
mod logs;
mod mistakes;
mod nodes;
mod open_files;
mod secrets;
mod sources;
mod stopping;
mod tools;
mod webhooks;
