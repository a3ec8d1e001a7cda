//! The result of a run, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::findings::Findings;
use super::meter::Sample;

/// All that a run found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// The scenario's name.
    pub(super) scenario: &'static str,
    /// Where the server was.
    pub(super) target: String,
    /// The scenario's flags with their values.
    pub(super) parameters: Value,
    /// What the samples count, in the singular.
    counted: &'static str,
    pub(super) metrics: Vec<Metric>,
    /// Results that are no single number: name, label, value.
    pub(super) lists: Vec<(&'static str, &'static str, Value)>,
    /// Latencies in microseconds.
    pub(super) latency: Option<Histogram<u64>>,
    pub(super) findings: Findings,
    pub(super) samples: Vec<Sample>,
}

/// One number.
#[derive(Debug, Clone)]
pub(super) struct Metric {
    /// Its name in JSON, with the unit.
    pub(super) name: &'static str,
    /// What people read.
    pub(super) label: &'static str,
    /// The unit for people; empty for bare counts.
    pub(super) unit: &'static str,
    pub(super) value: f64,
}

impl Report {
    /// A report without any numbers.
    pub(super) fn new(scenario: &'static str, target: String, parameters: Value, counted: &'static str) -> Self {
        Self {
            scenario,
            target,
            parameters,
            counted,
            metrics: Vec::new(),
            lists: Vec::new(),
            latency: None,
            findings: Findings::default(),
            samples: Vec::new(),
        }
    }

    /// Adds a number.
    pub(super) fn add(&mut self, name: &'static str, label: &'static str, unit: &'static str, value: f64) {
        self.metrics.push(Metric { name, label, unit, value });
    }

    /// Adds a number if it is known.
    pub(super) fn maybe(&mut self, name: &'static str, label: &'static str, unit: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.add(name, label, unit, value);
        }
    }

    /// What the server did wrong.
    pub(crate) fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The samples, for a picture.
    pub(super) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The result as one JSON object.
    pub(crate) fn to_json(&self) -> Value {
        let lists = self.lists.iter().map(|(name, _, value)| ((*name).to_owned(), value.clone()));
        let results = self.metrics.iter().map(|metric| (metric.name.to_owned(), number(metric.value))).chain(lists);
        let mut object = Map::new();
        object.insert("scenario".to_owned(), self.scenario.into());
        object.insert("target".to_owned(), self.target.as_str().into());
        object.insert("parameters".to_owned(), self.parameters.clone());
        object.insert("results".to_owned(), Value::Object(results.collect()));
        if let Some(latency) = &self.latency {
            let mut values: Map<String, Value> =
                percentiles(latency).into_iter().map(|(name, _, value)| (name.to_owned(), value.into())).collect();
            values.insert("mean".to_owned(), number(latency.mean()));
            values.insert("count".to_owned(), latency.len().into());
            object.insert("latency_us".to_owned(), Value::Object(values));
        }
        object.insert("errors".to_owned(), self.findings.to_json());
        object.insert("samples".to_owned(), json!(self.samples.iter().map(Sample::to_json).collect::<Vec<_>>()));
        Value::Object(object)
    }

    /// The result as rows of a table. With an older one, its numbers stand before the new ones, and the change behind
    /// them.
    pub(crate) fn rows(&self, older: Option<&Value>) -> Vec<Vec<String>> {
        let latency = self.latency.iter().filter(|latency| !latency.is_empty()).flat_map(percentiles);
        let latency = latency.map(|(name, label, value)| ("latency_us", name, label, "µs", value as f64));
        let metrics =
            self.metrics.iter().map(|metric| ("results", metric.name, metric.label, metric.unit, metric.value));
        let head = older.map(|_| ["", "BEFORE", "NOW", "", "CHANGE"].map(str::to_owned).to_vec());
        let row = |(group, name, label, unit, value): (&str, &str, &str, &str, f64)| {
            let mut row = vec![label.to_owned()];
            let before = older.and_then(|older| older[group][name].as_f64());
            if older.is_some() {
                row.push(before.map_or_else(|| "–".to_owned(), shown));
            }
            row.extend([shown(value), unit.to_owned()]);
            if let Some(before) = before {
                row.push(change(before, value));
            }
            row
        };
        head.into_iter().chain(metrics.chain(latency).map(row)).collect()
    }

    /// Results that are no single number, one a line.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.lists.iter().map(|(_, label, value)| format!("{label}: {}", listed(value))).collect()
    }

    /// What was run, on one line.
    pub(crate) fn title(&self) -> String {
        let parameters = self.parameters.as_object().into_iter().flatten();
        let parameters =
            parameters.filter(|(_, value)| !value.is_null()).map(|(name, value)| format!("{name} {value}"));
        format!("{} at {}: {}", self.scenario, self.target, parameters.collect::<Vec<_>>().join(", "))
    }

    /// What the samples count, in the singular.
    pub(super) fn counted(&self) -> &'static str {
        self.counted
    }
}

/// Names, labels and values of the percentiles that matter.
fn percentiles(latency: &Histogram<u64>) -> Vec<(&'static str, &'static str, u64)> {
    vec![
        ("p50", "latency, 50th percentile", latency.value_at_quantile(0.5)),
        ("p99", "latency, 99th percentile", latency.value_at_quantile(0.99)),
        ("p999", "latency, 99.9th percentile", latency.value_at_quantile(0.999)),
        ("max", "latency, highest", latency.max()),
    ]
}

/// A list for people.
fn listed(value: &Value) -> String {
    let texts: Vec<String> = match value {
        Value::Object(object) => object.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        Value::Array(values) => values.iter().map(|value| value.as_f64().map_or_else(String::new, shown)).collect(),
        other => vec![other.to_string()],
    };
    if texts.is_empty() { "–".to_owned() } else { texts.join("  ") }
}

/// Whole numbers as such, others with three decimals.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!((value * 1000.0).round() / 1000.0) }
}

/// A number for people: as many digits as mean something, and groups of three.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// The difference in percent.
fn change(before: f64, now: f64) -> String {
    if before == now {
        "same".to_owned()
    } else if before == 0.0 {
        "new".to_owned()
    } else {
        format!("{:+.1} %", (now - before) / before.abs() * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_mean_something() {
        let texts = [0.1234, 12.34, 1234.5, 0.0, 1_234_567.0, -1500.0, -3.25].map(shown);
        assert_eq!(texts, ["0.12", "12.3", "1,234", "0", "1,234,567", "-1,500", "-3.25"]);
    }

    #[test]
    fn a_comparison_names_both_and_the_change() {
        let mut report = Report::new("fanout", "http://a".to_owned(), json!({}), "delivery");
        report.add("deliveries_per_second", "deliveries", "/s", 150.0);
        report.add("unknown_before", "unknown", "", 1.0);
        let older = json!({ "results": { "deliveries_per_second": 100 } });
        let rows = report.rows(Some(&older));
        assert_eq!(rows[1], ["deliveries", "100", "150", "/s", "+50.0 %"]);
        assert_eq!(rows[2], ["unknown", "–", "1", ""]);
        assert_eq!(change(2.0, 1.0), "-50.0 %");
    }
}
