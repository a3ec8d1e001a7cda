//! The server seen from outside: every test starts its own on a free port, talks to it through real sockets, and reads
//! as a sentence of the specification. The client, the HTTP client and the signatures in [`support`] are written for
//! these tests alone, so that a mistake shared with the server cannot hide.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(unreachable_pub, reason = "nothing outside this binary can call anything in it")]

mod support;

mod admin;
mod api_auth;
mod api_channels;
mod api_events;
mod api_http;
mod api_users;
mod auth_endpoint;
mod auth_forward;
mod auth_jwks;
mod auth_jwt;
mod budgets;
mod cache;
mod channel_kinds;
mod client_events;
mod connection;
mod fallback_features;
mod fallback_http;
mod fallback_liveness;
mod fallback_receiving;
mod fallback_refusals;
mod fallback_sends;
mod fallback_sessions;
mod fallback_sockjs;
mod fallback_sockjs_pages;
mod fallback_sockjs_transports;
mod fallback_sockjs_websocket;
mod fallback_statistics;
mod fan_out;
mod limits;
mod listings;
mod liveness;
mod malformed;
mod presence;
mod shutdown;
mod slow_consumer;
mod strictness;
mod subscription_counts;
mod subscription_memory;
mod subscriptions;
mod tls;
mod users;
mod webhook_bounds;
mod webhook_endpoints;
mod webhook_failures;
mod webhook_restarts;
mod webhooks;
