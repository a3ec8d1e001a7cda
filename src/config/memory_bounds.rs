//! What the limits come to when all of them are used up, beside the memory that is there.

use std::fmt;

use super::{AppConfig, Config, Limits};

/// The machine of a server that is about to start, and how much to say of it.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Bytes of memory; `None` where the system does not say.
    pub memory: Option<u64>,
    /// Clients that the open-file limit leaves room for; `None` where the system does not say.
    pub connections: Option<u64>,
    /// Whether to warn of what nobody has configured, too: that there may be more open files than memory.
    pub warns_of_defaults: bool,
}

/// The connections of clients when there are as many as there may be.
struct Connections {
    count: u64,
    /// What may wait for all of them, and come from them.
    bytes: u64,
    /// Whether nobody has configured their number.
    of_open_files: bool,
}

impl Config {
    /// What is allowed but does not fit into the memory: a text that names all parts and their settings.
    pub(super) fn memory_warning(&self, machine: &Machine) -> Option<String> {
        let memory = machine.memory?;
        let mut parts = self.budgets(memory);
        let fixed = parts.iter().fold(0, |sum: u64, (bytes, _)| sum.saturating_add(*bytes));
        let connections = self.connections(machine, memory);
        let total = connections.as_ref().map_or(fixed, |connections| fixed.saturating_add(connections.bytes));
        if total <= memory {
            return None;
        }
        let mut advice = "lower some of these settings".to_owned();
        if let Some(Connections { count, bytes, of_open_files }) = connections {
            let number = if of_open_files {
                "as many as the open-file limit allows, because server.max_connections is 0"
            } else {
                "server.max_connections or limits.connections"
            };
            let what = format!(
                "for {count} connections ({number}; limits.outbox, limits.message and twice server.send_buffer for each)"
            );
            parts.insert(0, (bytes, what));
            let fits = memory.saturating_sub(fixed) / (bytes / count.max(1)).max(1);
            if of_open_files && fits > 0 {
                advice = format!("set server.max_connections: {fits} would fit; or lower some of the others");
            }
        }
        let parts: Vec<_> = parts.iter().map(|(bytes, what)| format!("{} {what}", Amount(*bytes))).collect();
        Some(format!(
            "the limits come to {} if all of them are used up, and there are {} of memory: {}; {advice}",
            Amount(total),
            Amount(memory),
            parts.join(", ")
        ))
    }

    /// What does not depend on the number of connections: bytes, and what for.
    fn budgets(&self, memory: u64) -> Vec<(u64, String)> {
        let Self { server, webhooks, .. } = self;
        let caches = self.apps.iter().map(|app| app.limits.cache_size as u64).fold(0, u64::saturating_add);
        let mut budgets = vec![
            (self.subscription_bytes(memory), "for subscriptions (server.subscription_memory)".to_owned()),
            (server.body_memory as u64, "for request bodies (server.body_memory)".to_owned()),
            (caches, "for cached events (limits.cache_size of every app)".to_owned()),
        ];
        let endpoints: usize = self.apps.iter().map(|app| app.webhooks.len()).sum();
        if endpoints > 0 {
            // Without a disk, what was given up is in memory as well.
            let (dead, also) = if webhooks.data_dir.is_none() { (webhooks.max_dead, ", max_dead") } else { (0, "") };
            // An eighth more for what is remembered of attempts.
            let pending = webhooks.max_pending as u64;
            let each = pending.saturating_add(pending / 8).saturating_add(dead as u64);
            let bytes = each.saturating_mul(endpoints as u64).saturating_add(webhooks.max_unwritten as u64);
            let what = format!("for webhooks (webhooks.max_pending{also} of every endpoint, max_unwritten)");
            budgets.push((bytes, what));
        }
        budgets
    }

    fn subscription_bytes(&self, memory: u64) -> u64 {
        match self.server.subscription_memory {
            0 => memory / 4,
            bytes => bytes as u64,
        }
    }

    /// As many connections as are configured, or else as many as the machine allows.
    fn connections(&self, machine: &Machine, memory: u64) -> Option<Connections> {
        // The kernel takes twice what it is asked for, for its own use.
        let kernel = 2 * self.server.send_buffer as u64;
        let each = |app: &AppConfig| kernel.saturating_add((app.limits.outbox + app.limits.message) as u64);
        let largest = self.apps.iter().map(each).max()?;
        let of = |count: u64, of_open_files| {
            let bytes = count.saturating_mul(largest);
            Connections { count, bytes, of_open_files }
        };
        // Each app up to its own quota, if all have one, and all of them up to that of the node.
        let quota = |app: &AppConfig| Some((app.limits.connections, each(app))).filter(|(most, _)| *most > 0);
        let quotas: Option<Vec<(u64, u64)>> = self.apps.iter().map(quota).collect();
        let apps = quotas.map(|quotas| {
            let (count, bytes) = quotas.into_iter().fold((0, 0), |(sum, bytes): (u64, u64), (connections, each)| {
                (sum.saturating_add(connections), bytes.saturating_add(connections.saturating_mul(each)))
            });
            Connections { count, bytes, of_open_files: false }
        });
        let node = Some(self.server.max_connections).filter(|max| *max > 0).map(|max| of(max, false));
        let configured = [apps, node].into_iter().flatten().min_by_key(|connections| connections.bytes);
        configured.or_else(|| {
            let count = machine.connections.filter(|_| machine.warns_of_defaults || self.has_raised(memory))?;
            Some(of(count, true))
        })
    }

    /// Whether anything that counts here is larger than by default.
    fn has_raised(&self, memory: u64) -> bool {
        let of_node = |Self { server, webhooks, .. }: &Self| {
            [server.body_memory, server.send_buffer, webhooks.max_pending, webhooks.max_unwritten, webhooks.max_dead]
        };
        let of_app = |limits: &Limits| [limits.outbox, limits.message, limits.cache_size];
        let (node, limits) = (Self::default(), Limits::default());
        let is_larger = |mine: &[usize], usual: &[usize]| mine.iter().zip(usual).any(|(mine, usual)| mine > usual);
        self.subscription_bytes(memory) > node.subscription_bytes(memory)
            || is_larger(&of_node(self), &of_node(&node))
            || self.apps.iter().any(|app| is_larger(&of_app(&app.limits), &of_app(&limits)))
    }
}

/// Whether a setting is one of those that are added up here.
pub(super) fn counts_for_memory(path: &str) -> bool {
    let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
    match table {
        "server" => ["max_connections", "send_buffer", "body_memory", "subscription_memory"].contains(&name),
        "webhooks" => ["data_dir", "max_pending", "max_unwritten", "max_dead"].contains(&name),
        _ => table.ends_with("limits") && ["connections", "outbox", "message", "cache_size"].contains(&name),
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
    use super::super::WebhookConfig;
    use super::*;

    const GIB: u64 = 1 << 30;

    /// 1 MiB of outbox, twice 256 KiB and 512 KiB of a message for each connection: 2 MiB.
    fn config(max_connections: u64, quotas: &[u64]) -> Config {
        let mut config = Config::default();
        config.server.max_connections = max_connections;
        for (index, quota) in quotas.iter().enumerate() {
            let mut app = AppConfig::new(index.to_string(), "k", "s");
            app.limits.message = 512 * 1024;
            app.limits.connections = *quota;
            config.apps.push(app);
        }
        config
    }

    /// What a machine with so much memory and an unknown open-file limit brings.
    fn warning(config: &Config, memory: u64) -> Option<String> {
        config.memory_warning(&Machine { memory: Some(memory), connections: None, warns_of_defaults: true })
    }

    #[test]
    fn defaults_fit_everywhere() {
        assert_eq!(warning(&config(0, &[0]), GIB), None);
        assert_eq!(warning(&Config::default(), GIB), None);
        assert_eq!(config(u64::MAX, &[0]).memory_warning(&Machine::default()), None);
    }

    #[test]
    fn configured_connections_are_multiplied_with_what_may_wait_for_each() {
        assert_eq!(warning(&config(300, &[0]), GIB), None);
        let text = warning(&config(8192, &[0]), 8 * GIB).unwrap();
        assert!(
            text.starts_with("the limits come to 18.1 GiB if all of them are used up, and there are 8.0 GiB"),
            "{text}"
        );
        assert!(
            text.contains(": 16.0 GiB for 8192 connections (server.max_connections or limits.connections;"),
            "{text}"
        );
        // The smaller of both bounds counts, and quotas only if every app has one.
        assert_eq!(warning(&config(8192, &[100, 100]), 8 * GIB), None);
        assert_eq!(warning(&config(100, &[8192, 8192]), 8 * GIB), None);
        assert_eq!(warning(&config(0, &[8192, 0]), 8 * GIB), None);
        assert!(warning(&config(0, &[4096, 4096]), 8 * GIB).unwrap().contains("for 8192 connections"));
        assert!(warning(&config(u64::MAX, &[0]), 8 * GIB).is_some());
    }

    #[test]
    fn without_a_configured_number_that_of_the_open_file_limit_counts() {
        let machine = |warns_of_defaults| Machine { memory: Some(8 * GIB), connections: Some(8192), warns_of_defaults };
        let text = config(0, &[0]).memory_warning(&machine(true)).unwrap();
        assert!(
            text.contains(": 16.0 GiB for 8192 connections (as many as the open-file limit allows, because"),
            "{text}"
        );
        // 6 GiB less 128 MiB for other things.
        assert!(text.ends_with("; set server.max_connections: 3008 would fit; or lower some of the others"), "{text}");
        assert_eq!(config(3008, &[0]).memory_warning(&machine(true)), None);
        assert_eq!(config(0, &[100]).memory_warning(&machine(true)), None);

        // Nobody has asked for this, unless something is larger than by default.
        let mut config = config(0, &[0]);
        config.apps[0].limits.message = Limits::default().message;
        config.server.subscription_memory = 64 << 20;
        assert!(config.memory_warning(&machine(true)).is_some());
        assert_eq!(config.memory_warning(&machine(false)), None);
        config.apps[0].limits.outbox *= 2;
        assert!(config.memory_warning(&machine(false)).is_some());
    }

    #[test]
    fn what_fits_alone_may_not_fit_together() {
        let mut config = config(256, &[0]);
        // 512 MiB for connections, 256 for subscriptions, 64 for bodies, 64 for the cache.
        assert_eq!(warning(&config, GIB), None);
        config.server.body_memory += 129 << 20;
        let text = warning(&config, GIB).unwrap();
        for part in [
            "512 MiB for 256 connections",
            "256 MiB for subscriptions (server.subscription_memory)",
            "193 MiB for request bodies (server.body_memory)",
            "64 MiB for cached events (limits.cache_size of every app)",
        ] {
            assert!(text.contains(part), "{text}");
        }
        config.server.body_memory = 1 << 20;
        config.apps[0].webhooks = vec![WebhookConfig::new("http://a/"), WebhookConfig::new("http://b/")];
        let text = warning(&config, GIB).unwrap();
        assert!(
            text.contains("208 MiB for webhooks (webhooks.max_pending of every endpoint, max_unwritten)"),
            "{text}"
        );
        config.webhooks.data_dir = None;
        assert!(warning(&config, GIB).unwrap().contains("336 MiB for webhooks (webhooks.max_pending, max_dead of"));
    }
}
