//! What lets others in who should not be: secrets that can be read or guessed, and a private listener in public.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::layers::{Layer, Layers, Place};
use super::validate::DEMO_SECRET;
use super::{Config, RedisUrl, Secret};

/// Bytes of a secret below which it can be guessed.
const LONG_ENOUGH: usize = 16;

impl Config {
    /// What is allowed for a server that is about to start, but opens it to others: the place, and the reason. `file` is the
    /// configuration file, `secret_files` are those that secrets came from.
    pub(super) fn exposures(
        &self,
        layers: &Layers,
        file: Option<&Path>,
        mut secret_files: Vec<(Place, PathBuf)>,
    ) -> Vec<(Place, String)> {
        let mut exposures = Vec::new();
        // An empty one was refused before, and that of the examples is where it matters.
        let short =
            |secret: &Secret| (1..LONG_ENOUGH).contains(&secret.expose().len()) && secret.expose() != DEMO_SECRET;
        for (table, _) in self.key_pairs().filter(|(_, pair)| short(&pair.secret)) {
            let text = format!(
                "shorter than {LONG_ENOUGH} characters, so that it can be guessed from any signature; take the output of \
                 `openssl rand -hex 32`"
            );
            exposures.push((layers.place(&format!("{table}.secret")), text));
        }
        let admin = self.admin.listen.ip().to_canonical();
        if !stays_inside(admin) {
            let reach = if admin.is_unspecified() { "every address of this machine" } else { "a public address" };
            let text = format!(
                "{} is {reach}, and the listener asks for no password; take a loopback or private one, or keep the port away \
                 from others by a firewall",
                self.admin.listen
            );
            exposures.push((layers.place("admin.listen"), text));
        }
        let readable = file.is_some_and(is_readable_by_all);
        if let Some(path) = self.secrets().into_iter().find(|path| readable && layers.get(Layer::File, path).is_some())
        {
            let text = "the file has secrets in it, and every user of this machine can read it; chmod o-r, or keep secrets in \
                        files of their own (`…_file`)";
            exposures.push((layers.place_in(Layer::File, &path), text.to_owned()));
        }
        let tls = self.server.tls.as_ref().map(|tls| (layers.place("server.tls.private_key"), tls.private_key.clone()));
        secret_files.extend(tls);
        for (place, path) in secret_files.into_iter().filter(|(_, path)| is_readable_by_all(path)) {
            let text = format!("every user of this machine can read {path:?}, which has a secret in it; chmod o-r");
            exposures.push((place, text));
        }
        exposures
    }

    /// The paths of all secrets that somebody could want, as they are where a file has them in it.
    fn secrets(&self) -> Vec<String> {
        let pairs = self.key_pairs().filter(|(_, pair)| pair.secret.expose() != DEMO_SECRET);
        let mut paths: Vec<String> = pairs.map(|(table, _)| format!("{table}.secret")).collect();
        for (index, app) in self.apps.iter().enumerate() {
            paths.extend(["encryption_master_key", "auth.jwt.secret"].map(|key| format!("apps.{index}.{key}")));
            let headers = app.webhooks.iter().enumerate().filter(|(_, webhook)| !webhook.headers.is_empty());
            paths.extend(headers.map(|(number, _)| format!("apps.{index}.webhooks.{number}.headers")));
        }
        paths.extend(["cluster.password", "cluster.sentinel_password"].map(str::to_owned));
        let has_password = |url: &String| RedisUrl::masked(url) != *url;
        paths.extend(self.cluster.urls.iter().any(has_password).then(|| "cluster.urls".to_owned()));
        paths
    }
}

/// Whether an address is one that the internet does not reach.
fn stays_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            // Shared by customers of one provider, and used by overlay networks.
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(unix)]
fn is_readable_by_all(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_all(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_reaches_public_addresses_and_those_that_mean_all() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(stays_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["0.0.0.0", "::", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(!stays_inside(outside.parse().unwrap()), "{outside}");
        }
    }
}
