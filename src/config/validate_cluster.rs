//! Rules between the settings of `[cluster]`.

use super::{ClusterConfig, RedisPlace, RedisUrl, Topology};

impl ClusterConfig {
    /// Mistakes: the key, and the reason.
    pub(super) fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut conflicts = Vec::new();
        let mut refuse = |text: String| conflicts.push(("cluster.urls", text));
        let topology = format!("cluster.topology {:?}", self.topology.name());
        if self.topology == Topology::Server && self.urls.len() > 1 {
            let count = self.urls.len();
            refuse(format!("{count} URLs, but {topology}; expected one, or \"sentinel\" or \"cluster\" there"));
        }
        for (text, url) in self.urls.iter().filter_map(|text| Some((RedisUrl::masked(text), RedisUrl::parse(text)?))) {
            if self.topology != Topology::Server && matches!(url.place, RedisPlace::Socket(_)) {
                refuse(format!(
                    "{text:?} is a socket of this machine, but {topology}; expected a host, or \"server\" there"
                ));
            }
            if self.topology == Topology::Cluster && url.database != 0 {
                refuse(format!("{text:?} has database {}, but {topology}; expected no other than 0", url.database));
            }
        }
        conflicts
    }

    /// What is allowed but probably not meant.
    pub(super) fn warnings(&self) -> Vec<(&'static str, String)> {
        let encrypted = self.urls.iter().any(|url| url.starts_with("rediss://"));
        let text = "no rediss:// in cluster.urls: nothing is encrypted, and no certificate verified";
        let unused = self.ca_file.is_some() && !encrypted;
        unused.then(|| ("cluster.ca_file", text.to_owned())).into_iter().collect()
    }
}
