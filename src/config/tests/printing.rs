//! A configuration as the file it could have come from.

use super::*;

#[test]
fn the_printed_configuration_loads_again_once_the_secrets_are_put_in() {
    let pem = TempFile::new("pem");
    let mut config = Config::default();
    config.server.path_prefix = "/realtime".to_owned();
    config.server.drain_period = Duration::from_millis(1500);
    config.server.tls = Some(TlsConfig { certificate: pem.0.clone(), private_key: pem.0.clone() });
    config.log.format = LogFormat::Json;
    config.apps = vec![AppConfig::new("1", "k", "hunter2"), AppConfig::new("2", "k2", "hunter2")];
    config.apps[0].allowed_origins = vec!["https://a.example".to_owned(), "*".to_owned()];
    config.apps[0].keys.push(KeyPair { key: "k3".to_owned(), secret: Secret::new("hunter2") });
    config.apps[0].limits.event_data = 5 << 20;
    config.apps[1].limits.messages_per_day = 1_000_000;
    config.webhooks.data_dir = None;
    config.apps[1].webhooks = vec![WebhookConfig::new("http://a.example"), WebhookConfig::new("https://b.example")];
    config.apps[1].webhooks[0].headers.insert("X-A".to_owned(), Secret::new("hunter2"));
    config.apps[1].webhooks[1].events = vec![WebhookEvent::CacheMiss, WebhookEvent::UserOffline];
    config.apps[0].auth.jwt = Some(JwtConfig {
        public_key_file: Some(pem.0.clone()),
        audience: vec!["fanfare".to_owned()],
        channels: vec!["private-user-{sub}".to_owned()],
        ..JwtConfig::new(vec![JwtAlgorithm::EdDsa, JwtAlgorithm::Es256])
    });
    config.apps[1].auth.forward = Some(ForwardConfig::new("http://a.example"));
    config.apps.push(AppConfig::new("3", "k4", "hunter2"));
    let secret = Some(Secret::new("hunter2"));
    config.apps[2].auth.jwt = Some(JwtConfig { secret, ..JwtConfig::new(vec![JwtAlgorithm::Hs256]) });
    config.cluster.topology = Topology::Cluster;
    config.cluster.urls = vec!["redis://ann:hunter2@a:1".to_owned(), "rediss://b/0".to_owned()];
    config.cluster.password = Some(Secret::new("hunter2"));
    config.cluster.on_gap = OnGap::Reconnect;
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(printed.matches(MASK).count(), 8);
    assert_eq!(load(&printed.replace(MASK, "hunter2")), config);
    let found = mistakes(&printed, &[], &[]);
    assert!(found.len() == 8 && found.iter().all(|line| line.contains("the mask of a printed")), "{found:#?}");
}

#[test]
fn an_encryption_master_key_is_printed_where_it_is_read() {
    let key = "zyrm8pvV2C9fJcBfhyXzvxbJVN/H7QLmbe0xJi1GhPU=";
    let mut config = Config { apps: vec![AppConfig::new("1", "k", key)], ..Config::default() };
    config.apps[0].encryption_master_key = Some(Secret::new(key));
    assert_eq!(load(&config.to_toml().replace(MASK, key)), config);
}
