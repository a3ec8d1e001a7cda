//! Sockets, connections and bodies that this process holds, beside the most that it may hold, read at each scrape.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::body_budget::BodyBudget;
use crate::open_sockets::OpenSockets;

/// See the module.
#[derive(Debug)]
pub(super) struct Gauges {
    pub(super) sockets: Arc<OpenSockets>,
    pub(super) bodies: BodyBudget,
    pub(super) max_connections: u64,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { sockets, bodies, max_connections } = self;
        let gauges = [
            ("connections_limit", "Connections that this node may have", *max_connections),
            ("sockets", "Open sockets of the public listener, whatever is spoken on them", sockets.open() as u64),
            ("sockets_limit", "Sockets of the public listener that there may be", sockets.capacity() as u64),
            (
                "body_memory_bytes",
                "Memory of request bodies that are not verified or answered yet",
                bodies.bytes() as u64,
            ),
            ("body_memory_limit_bytes", "Memory that such request bodies may take", bodies.limit() as u64),
        ];
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        Ok(())
    }
}
