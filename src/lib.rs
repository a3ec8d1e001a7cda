//! Fanfare: a self-hosted realtime server that speaks the Pusher Channels protocol.
//!
//! Modules stand on floors. A module uses any floor below its own and, on its own floor, only what stands to its left; so
//! there is one order of reading and no cycle. What must travel upward travels as a returned value or through a queue.
//!
//! ```text
//! 6  process   server · bench · cli · main                   who starts what, and in which order it stops
//! 5  edges     websocket · fallback · api ·                  bytes in, bytes out
//!              auth_endpoint · admin
//! 4  session   session                                       one client's conversation
//! 3  node      node                                          every action, written once
//! 2  state     channels · webhooks · cluster · authorizers   what is true here, elsewhere, who is told, who may do what
//! 1  ground    shutdown · addresses · source ·             small tools without opinions
//!              open_sockets ·
//!              socket · rewound · body_budget ·
//!              request_body · response · http_client ·
//!              rate_limit · presence_joins · log_limit ·
//!              untrusted · memory · subscription_memory ·
//!              metrics · outbox ·
//!              apps · auth
//! 0  words     protocol · config                             plain data: no sockets, no tasks, no clock
//! ```
//!
//! The life of a message: **trigger** ([`api`], [`node`]) → **publish** ([`cluster`], if there are other nodes) →
//! **deliver** ([`channels`]) → **push** ([`outbox`]) → **write** ([`socket`]). It is encoded once per channel into a
//! [`protocol::Frame`], which all subscribers share. Whoever publishes to a quiet channel writes it to the subscribers'
//! sockets, and no other task wakes up for that; what comes while that goes on is taken along in the next round, many
//! frames in one write. A client is never waited for: what its socket does not take waits in its outbox, and one that
//! reads too slowly overflows it and is sent away, and nobody else notices.
//!
//! [`Config`] and [`Server`] are all that `main` and the tests need:
//!
//! ```no_run
//! # async fn example() -> Result<(), fanfare::StartError> {
//! let mut config = fanfare::Config::default();
//! config.apps.push(fanfare::config::AppConfig::new("1001", "app-key", "app-secret"));
//! let server = fanfare::Server::bind(config).await?;
//! println!("serving on {}", server.local_addr());
//! server.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
//! # Ok(())
//! # }
//! ```

pub mod addresses;
pub mod admin;
pub mod api;
pub mod apps;
pub mod auth;
pub mod auth_endpoint;
pub mod authorizers;
mod bench;
pub mod body_budget;
pub mod channels;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod fallback;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http_client;
pub mod log_limit;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod open_sockets;
pub mod outbox;
pub mod presence_joins;
pub mod protocol;
pub mod rate_limit;
pub mod request_body;
pub mod response;
pub mod rewound;
pub mod server;
pub mod session;
pub mod shutdown;
pub mod socket;
pub mod source;
pub mod subscription_memory;
pub mod untrusted;
pub mod webhooks;
pub mod websocket;

pub use config::Config;
pub use server::{Server, StartError};
