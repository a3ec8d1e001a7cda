//! What the limits come to when all of them are used up, beside the memory that is there.

use std::fmt;

use super::{AppConfig, Config};

impl Config {
    /// What is allowed but does not fit into `memory` bytes: one text each, which names the settings to lower. Only what was
    /// configured counts: without `server.max_connections`, the number of connections is the open-file limit's business.
    pub fn memory_warnings(&self, memory: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some((connections, bytes)) = self.connection_memory().filter(|(_, bytes)| *bytes > memory) {
            warnings.push(format!(
                "{connections} connections may have {} waiting for them (limits.outbox, and twice server.send_buffer), and there \
                 are {} of memory; lower server.max_connections, limits.connections, limits.outbox or server.send_buffer",
                Amount(bytes),
                Amount(memory)
            ));
        }
        let caches: u64 = self.apps.iter().map(|app| app.limits.cache_size as u64).fold(0, u64::saturating_add);
        let subscriptions = match self.server.subscription_memory {
            0 => memory / 4,
            bytes => bytes as u64,
        };
        let fixed = [self.server.body_memory as u64, subscriptions].into_iter().fold(caches, u64::saturating_add);
        if fixed > memory {
            warnings.push(format!(
                "request bodies, subscriptions and cached events may take {} together, and there are {} of memory; lower \
                 server.body_memory, server.subscription_memory or limits.cache_size",
                Amount(fixed),
                Amount(memory)
            ));
        }
        warnings
    }

    /// The configured number of connections, and the bytes that may wait for all of them.
    fn connection_memory(&self) -> Option<(u64, u64)> {
        let server = &self.server;
        // The kernel takes twice what it is asked for, for its own use.
        let kernel = 2 * server.send_buffer as u64;
        let each = |outbox: usize| kernel.saturating_add(outbox as u64);
        let largest = each(self.apps.iter().map(|app| app.limits.outbox).max()?);
        // Each app up to its own quota, if all have one, and all of them up to that of the node.
        let quota =
            |app: &AppConfig| Some((app.limits.connections, each(app.limits.outbox))).filter(|(most, _)| *most > 0);
        let quotas: Option<Vec<(u64, u64)>> = self.apps.iter().map(quota).collect();
        let apps = quotas.map(|quotas| {
            quotas.into_iter().fold((0, 0), |(sum, bytes): (u64, u64), (connections, each)| {
                (sum.saturating_add(connections), bytes.saturating_add(connections.saturating_mul(each)))
            })
        });
        let node = Some(server.max_connections).filter(|max| *max > 0).map(|max| (max, max.saturating_mul(largest)));
        [apps, node].into_iter().flatten().min_by_key(|(_, bytes)| *bytes)
    }
}

/// Bytes, rounded as people do.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        if mib < 1024.0 { write!(f, "{mib:.0} MiB") } else { write!(f, "{:.1} GiB", mib / 1024.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// 1 MiB of outbox and twice 256 KiB for each connection.
    fn config(max_connections: u64, quotas: &[u64]) -> Config {
        let mut config = Config::default();
        config.server.max_connections = max_connections;
        config.server.send_buffer = 256 * 1024;
        for (index, quota) in quotas.iter().enumerate() {
            let mut app = AppConfig::new(index.to_string(), "k", "s");
            app.limits.outbox = 1024 * 1024;
            app.limits.connections = *quota;
            config.apps.push(app);
        }
        config
    }

    #[test]
    fn defaults_fit_everywhere() {
        assert_eq!(config(0, &[0]).memory_warnings(GIB), Vec::<String>::new());
        assert_eq!(Config::default().memory_warnings(GIB), Vec::<String>::new());
    }

    #[test]
    fn configured_connections_are_multiplied_with_what_may_wait_for_each() {
        assert_eq!(config(600, &[0]).memory_warnings(GIB), Vec::<String>::new());
        let [warning] = &config(8192, &[0]).memory_warnings(8 * GIB)[..] else { panic!("one warning") };
        assert!(warning.starts_with("8192 connections may have 12.0 GiB waiting"), "{warning}");
        assert!(warning.contains("there are 8.0 GiB of memory; lower server.max_connections"), "{warning}");
        // The smaller of both bounds counts, and quotas only if every app has one.
        assert_eq!(config(8192, &[100, 100]).memory_warnings(8 * GIB), Vec::<String>::new());
        assert_eq!(config(100, &[8192, 8192]).memory_warnings(8 * GIB), Vec::<String>::new());
        assert_eq!(config(0, &[8192, 0]).memory_warnings(8 * GIB), Vec::<String>::new());
        assert_eq!(config(0, &[4096, 4096]).memory_warnings(8 * GIB).len(), 1);
        assert_eq!(config(u64::MAX, &[0]).memory_warnings(8 * GIB).len(), 1);
    }

    #[test]
    fn budgets_that_are_larger_than_the_memory_are_named() {
        let mut config = config(0, &[0]);
        config.server.subscription_memory = 2 << 30;
        let [warning] = &config.memory_warnings(GIB)[..] else { panic!("one warning") };
        assert!(warning.contains("there are 1.0 GiB of memory; lower server.body_memory"), "{warning}");
        // Subscriptions have a quarter if nothing else is said.
        config.server.subscription_memory = 0;
        assert_eq!(config.memory_warnings(GIB), Vec::<String>::new());
        config.server.body_memory = 800 << 20;
        assert_eq!(config.memory_warnings(GIB).len(), 1);
    }
}
