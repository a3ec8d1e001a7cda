//! `[cluster]`.

use super::*;

const URLS: &str = "expected a list of URLs such as \"redis://user:password@redis.example:6379/0\", \
                    \"rediss://redis.example\" (TLS) or \"unix:///run/redis.sock\"";

#[test]
fn every_setting_of_a_cluster_can_be_given() {
    let pem = TempFile::new("pem");
    let file = format!(
        "[cluster]\ndriver = \"redis\"\nid = \"shop_1\"\nnode = \"web-1.example\"\n\
         address = \"http://10.0.0.5:6001\"\ntopology = \"sentinel\"\n\
         urls = [\"rediss://ann:a@s1:26379\", \"rediss://s2:26379/3\"]\nusername = \"ann\"\npassword = \"b\"\n\
         ca_file = {:?}\nsentinel_master = \"the.master\"\nsentinel_username = \"bob\"\nsentinel_password_env = \"S\"\n\
         lease = \"1s\"\ntimeout = \"100ms\"\nreplay = \"0s\"\nreplay_events = 1\npending_per_connection = 9\n\
         on_gap = \"reconnect\"\n",
        pem.name()
    );
    let loaded = load_all(&file, &[("S", "c")], &[]).unwrap();
    let expected = ClusterConfig {
        driver: ClusterDriver::Redis,
        id: "shop_1".to_owned(),
        node: "web-1.example".to_owned(),
        address: "http://10.0.0.5:6001".to_owned(),
        topology: Topology::Sentinel,
        urls: vec!["rediss://ann:a@s1:26379".to_owned(), "rediss://s2:26379/3".to_owned()],
        username: "ann".to_owned(),
        password: Some(Secret::new("b")),
        ca_file: Some(pem.0.clone()),
        sentinel_master: "the.master".to_owned(),
        sentinel_username: "bob".to_owned(),
        sentinel_password: Some(Secret::new("c")),
        lease: Duration::from_secs(1),
        timeout: Duration::from_millis(100),
        replay: Duration::ZERO,
        replay_events: 1,
        pending_per_connection: 9,
        on_gap: OnGap::Reconnect,
    };
    assert_eq!((loaded.config.cluster, loaded.warnings), (expected, Vec::new()));
}

#[test]
fn the_environment_has_several_urls_with_commas_between_them() {
    let env = [("FANFARE_CLUSTER_URLS", "redis://a:1, redis://b:1"), ("FANFARE_CLUSTER_TOPOLOGY", "cluster")];
    assert_eq!(load_all("", &env, &[]).unwrap().config.cluster.urls, ["redis://a:1", "redis://b:1"]);
}

#[test]
fn a_cluster_that_cannot_work_is_a_mistake() {
    let cases = [
        ("driver = \"valkey\"", "driver: \"valkey\" is not a driver; expected \"single\" or \"redis\""),
        ("id = \"\"", "id: \"\" is not the id of a cluster; expected letters, digits, `_` and `-`"),
        ("id = \"a:b\"", "id: \"a:b\" is not the id of a cluster; expected letters, digits, `_` and `-`"),
        (
            "node = \"a b\"",
            "node: \"a b\" is not the name of a node; expected letters, digits, `_`, `-` and `.`, or nothing",
        ),
        (
            "topology = \"ring\"",
            "topology: \"ring\" is not a topology; expected \"server\", \"sentinel\" or \"cluster\"",
        ),
        ("urls = []", &format!("urls: empty; {URLS}")),
        ("urls = \"redis://:hunter2@a\"", &format!("urls: a text is not a list; {URLS}")),
        ("urls = [\"redis://:hunter2\"]", &format!("urls: entry 1 is not the URL of a Redis; {URLS}")),
        ("urls = [\"redis://a\", \"hunter2\"]", &format!("urls: entry 2 is not the URL of a Redis; {URLS}")),
        ("urls = [6379]", &format!("urls: entry 1 is not the URL of a Redis; {URLS}")),
        (
            "urls = [\"redis://ann:********@a\"]",
            &format!("urls: entry 1 has the mask of a printed configuration for a password; {URLS}"),
        ),
        (
            "username = \"a b\"",
            "username: \"a b\" is not the name of a user; expected the name of an ACL user, without \
             spaces, or nothing",
        ),
        ("password = \"\"", "password: empty; expected a secret"),
        (
            "sentinel_password = \"hunter2\"\nsentinel_password_env = \"X\"",
            "sentinel_password: given more than once; expected one of `sentinel_password`, \
             `sentinel_password_file` and `sentinel_password_env`",
        ),
        (
            "ca_file = \"/nowhere\"",
            "ca_file: \"/nowhere\" cannot be read: No such file or directory (os error 2); expected the path of a \
             readable PEM file, or nothing",
        ),
        (
            "sentinel_master = \"\"",
            "sentinel_master: \"\" is not the name of a master; expected letters, digits, `_`, `-` and `.`",
        ),
        ("lease = \"61s\"", "lease: \"61s\" is out of range; expected a duration from \"1s\" to \"1m\""),
        ("timeout = \"99ms\"", "timeout: \"99ms\" is out of range; expected a duration from \"100ms\" to \"1m\""),
        ("replay = \"11m\"", "replay: \"11m\" is out of range; expected a duration from \"0s\" to \"10m\""),
        ("replay_events = 0", "replay_events: 0 is out of range; expected an integer from 1 to 1000000"),
        ("on_gap = \"close\"", "on_gap: \"close\" is not a reaction; expected \"log\" or \"reconnect\""),
    ];
    for (given, expected) in cases {
        assert_mistakes(&format!("[cluster]\n{given}\n"), &[&format!("fanfare.toml:2: cluster.{expected}")]);
    }
}

#[test]
fn urls_have_to_fit_the_topology() {
    let cases = [
        (
            "\"redis://a\", \"redis://b\"",
            "server",
            "2 URLs, but cluster.topology \"server\"; expected one, or \"sentinel\" or \"cluster\" there",
        ),
        (
            "\"redis://a\", \"unix:///run/s\"",
            "sentinel",
            "\"unix:///run/s\" is a socket of this machine, but cluster.topology \"sentinel\"; expected a host, or \
             \"server\" there",
        ),
        (
            "\"unix:///run/s\"",
            "cluster",
            "\"unix:///run/s\" is a socket of this machine, but cluster.topology \"cluster\"; expected a host, or \
             \"server\" there",
        ),
        (
            "\"redis://:hunter2@a/5\"",
            "cluster",
            "\"redis://:********@a/5\" has database 5, but cluster.topology \"cluster\"; expected no other than 0",
        ),
    ];
    for (urls, topology, expected) in cases {
        let file = format!("[cluster]\nurls = [{urls}]\ntopology = \"{topology}\"\n");
        assert_mistakes(&file, &[&format!("fanfare.toml:2: cluster.urls: {expected}")]);
    }
    for (urls, topology) in [
        ("\"unix:///run/s\"", "server"),
        ("\"redis://a/5\"", "server"),
        ("\"redis://a/5\", \"rediss://b/5\"", "sentinel"),
        ("\"redis://a/0\", \"redis://b/\", \"redis://c\"", "cluster"),
    ] {
        load(&format!("[cluster]\nurls = [{urls}]\ntopology = \"{topology}\"\n"));
    }
}

#[test]
fn root_certificates_that_nobody_looks_at_bring_a_warning() {
    let pem = TempFile::new("pem");
    let file = format!("[cluster]\nca_file = {:?}\n", pem.name());
    let warnings = load_all(&file, &[], &[]).unwrap().warnings;
    let expected = "fanfare.toml:2: cluster.ca_file: no rediss:// in cluster.urls: nothing is encrypted, and no \
                    certificate verified";
    assert_eq!(warnings, [expected]);
    let encrypted = load_all(&file, &[("FANFARE_CLUSTER_URLS", "rediss://redis")], &[]).unwrap();
    assert_eq!(encrypted.warnings, Vec::<String>::new());
}

#[test]
fn debug_output_masks_the_passwords_and_nothing_else() {
    let config = ClusterConfig {
        urls: vec!["redis://ann:hunter2@a:1/2".to_owned(), "redis://b".to_owned()],
        password: Some(Secret::new("hunter2")),
        sentinel_password: Some(Secret::new("hunter2")),
        ..ClusterConfig::default()
    };
    let expected = "ClusterConfig { driver: Single, id: \"fanfare\", node: \"\", address: \"\", topology: Server, \
                    urls: [\"redis://ann:********@a:1/2\", \"redis://b\"], username: \"\", password: Some(********), \
                    ca_file: None, sentinel_master: \"mymaster\", sentinel_username: \"\", \
                    sentinel_password: Some(********), lease: 8s, timeout: 3s, replay: 30s, replay_events: 10000, \
                    pending_per_connection: 2000, \
                    on_gap: Log }";
    assert_eq!(format!("{config:?}"), expected);
}
