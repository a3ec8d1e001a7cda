//! What the fuzz targets in `fuzz/` run: one function each, which takes any bytes and panics if what the code makes of them
//! is not what an oracle says. The oracles live beside the code they watch, in files called `fuzz.rs`. They are part of the
//! unit tests, too, which run them over the seeds in `fuzz/corpus`; no other build has them.

/// Heads of requests: what the fast path accepts, hyper accepts with the same meaning.
pub fn request_heads(bytes: &[u8]) {
    crate::server::fuzz::request_heads(bytes);
}

/// Frames of WebSocket clients: as tungstenite reads them, in pieces of any size.
pub fn frames(bytes: &[u8]) {
    crate::websocket::fuzz::frames(bytes);
}

/// Messages of clients: what was understood, written down again, is understood in the same way.
pub fn client_messages(bytes: &[u8]) {
    crate::protocol::fuzz::client_messages(bytes);
}

/// Queries and bodies of the HTTP API, as a slow reader of JSON understands them.
pub fn api_params(bytes: &[u8]) {
    crate::api::fuzz::api_params(bytes);
}

/// Signed queries: a slow verifier agrees, what was signed verifies, and what was forged never does.
pub fn signed_queries(bytes: &[u8]) {
    crate::auth::fuzz::signed_queries(bytes);
}

/// Messages between nodes: what was read, encoded again, is read in the same way.
pub fn cluster_messages(bytes: &[u8]) {
    crate::cluster::fuzz::cluster_messages(bytes);
}

/// What SockJS clients send, and the packets that they get, on each transport.
pub fn sockjs(bytes: &[u8]) {
    crate::fallback::fuzz::sockjs(bytes);
}

/// Fields of requests for an authorization, and tokens.
pub fn auth_fields(bytes: &[u8]) {
    crate::auth_endpoint::fuzz::auth_fields(bytes);
}

/// Configurations: what was loaded, printed, loads again as the same; mistakes name a setting and no secret.
pub fn config(bytes: &[u8]) {
    crate::config::fuzz::config(bytes);
}

/// Patterns with claims and stars in them: as the simplest, exponential matcher understands them.
pub fn claim_patterns(bytes: &[u8]) {
    crate::authorizers::fuzz::claim_patterns(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// The names in a directory, without their extensions.
    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    /// Places in a seed at which it breaks off, or has another byte.
    const PLACES: usize = 40;

    /// Runs a target over its seeds, over what is left of them if they break off, and with a byte changed.
    fn holds_for_all_seeds(name: &str, target: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        for entry in fs::read_dir(seeds).unwrap() {
            let path = entry.unwrap().path();
            let seed = fs::read(&path).unwrap();
            // Shown if it fails.
            println!("{}", path.display());
            target(&seed);
            for at in (0..seed.len()).step_by(seed.len() / PLACES + 1) {
                target(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] = changed[at].wrapping_add(1);
                target(&changed);
            }
        }
    }

    macro_rules! targets {
        ($($name:ident),*) => {
            const TARGETS: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

            $(
                #[test]
                fn $name() {
                    holds_for_all_seeds(stringify!($name), super::$name);
                }
            )*
        };
    }

    targets![
        api_params,
        auth_fields,
        claim_patterns,
        client_messages,
        cluster_messages,
        config,
        frames,
        request_heads,
        signed_queries,
        sockjs
    ];

    #[test]
    fn every_oracle_has_its_target_and_its_seeds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        assert_eq!(names(&root.join("fuzz_targets")), TARGETS);
        assert_eq!(names(&root.join("corpus")), TARGETS);
        for name in TARGETS {
            assert!(names(&root.join("corpus").join(name)).len() >= 5, "{name} has few seeds");
        }
    }
}
