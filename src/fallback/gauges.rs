//! How many clients there are on each transport, counted at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Fallbacks;

/// See the module. The registry of metrics outlives what it counts.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) Weak<Fallbacks>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(fallbacks) = self.0.upgrade() else { return Ok(()) };
        let mut counts: BTreeMap<&str, u64> = ["xhr_streaming", "xhr"].map(|name| (name, 0)).into();
        for session in fallbacks.registry.all() {
            *counts.entry(session.transport()).or_default() += 1;
        }
        let help = "Open sessions of HTTP transports, by the transport that they receive with";
        let mut family = encoder.encode_descriptor("fallback_sessions", help, None, MetricType::Gauge)?;
        for (transport, count) in counts {
            ConstGauge::new(count).encode(family.encode_family(&[("transport", transport)])?)?;
        }
        Ok(())
    }
}
