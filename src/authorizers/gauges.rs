//! How many questions there are to the backends of apps, counted at each scrape.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Authorizer, Authorizers};

/// See the module. The registry of metrics outlives what it counts.
#[derive(Debug)]
pub struct Gauges(pub Weak<Authorizers>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(authorizers) = self.0.upgrade() else { return Ok(()) };
        let questions = authorizers.0.iter().filter_map(|(app, authorizer)| match authorizer {
            Authorizer::Forward(forward) => Some((app, forward.questions())),
            Authorizer::Jwt(_) | Authorizer::Dev => None,
        });
        let questions: Vec<_> = questions.collect();
        // Most servers have no such app, and no such numbers then.
        if questions.is_empty() {
            return Ok(());
        }
        let mut gauge = |name, help, count: fn((usize, usize)) -> usize| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (app, counts) in &questions {
                let gauge = ConstGauge::new(count(*counts) as u64);
                gauge.encode(family.encode_family(&[("app", app.as_str())])?)?;
            }
            Ok(())
        };
        gauge("auth_questions_under_way", "Questions that the app's backend has not answered yet", |counts| counts.0)?;
        gauge("auth_questions_waiting", "Questions that wait for their turn at the app's backend", |counts| counts.1)
    }
}
