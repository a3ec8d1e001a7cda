//! Gauges, read from the live state at each scrape.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::log_limit;

use super::{Node, Tenant};

/// Reports how many there are of everything, per app. The node holds the registry that holds this.
#[derive(Debug)]
pub struct Gauges(pub Weak<Node>);

/// A gauge's name, its help and how it is counted.
type Gauge = (&'static str, &'static str, fn(&Tenant) -> u64);

const GAUGES: [Gauge; 7] = [
    ("connections", "Open connections", |tenant| tenant.app.connections()),
    ("channels", "Occupied channels", |tenant| tenant.channels.counts().0),
    ("subscriptions", "Subscriptions of connections to channels", |tenant| tenant.channels.counts().1),
    ("cached_bytes", "Memory of cached events on this node", |tenant| tenant.channels.cached_bytes() as u64),
    ("subscription_memory_bytes", "Estimated memory of subscriptions", |tenant| tenant.subscription_memory.used()),
    ("users", "Signed-in users", |tenant| tenant.users.signed_in() as u64),
    ("webhook_events_pending", "Webhook events that wait to be delivered", |tenant| tenant.webhooks.pending()),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(node) = self.0.upgrade() else { return Ok(()) };
        for (name, help, count) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for tenant in node.tenants.all() {
                let gauge = ConstGauge::new(count(tenant));
                gauge.encode(family.encode_family(&[("app", tenant.app.id())])?)?;
            }
        }
        if let Some(redis) = node.cluster.redis() {
            let gauges = [
                (
                    "cluster_connected",
                    "1 while this node is connected to its cluster",
                    f64::from(u8::from(redis.obstacle().is_none())),
                ),
                (
                    "cluster_pending",
                    "Changes of channels and users that wait to be told to the cluster",
                    redis.pending() as f64,
                ),
                ("cluster_lag_seconds", "How long Redis took for the last sign of life", redis.lag().as_secs_f64()),
            ];
            for (name, help, value) in gauges {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        let (name, help) = ("subscription_memory_limit_bytes", "Estimated memory that subscriptions may take");
        let limit = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(node.subscription_memory.limit()).encode(limit)?;
        let suppressed = encoder.encode_descriptor(
            "log_lines_suppressed",
            "Log lines left out because of log.repeat_limit",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(log_limit::suppressed()).encode(suppressed)?;
        let mut info = encoder.encode_descriptor("build_info", "The running version", None, MetricType::Gauge)?;
        ConstGauge::new(1u64).encode(info.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?)
    }
}
