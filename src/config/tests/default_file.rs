//! `config/default.toml`.

use super::*;

/// The file with all its `#key = …` and `#[table]` lines in effect, and with certificates that exist.
fn uncommented(pem: &TempFile) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("{rest}\n")
        }
        _ => format!("{line}\n"),
    };
    let text: String = DEFAULT_TOML.lines().map(line).collect();
    assert_ne!(text, DEFAULT_TOML);
    text.replace("/etc/fanfare/tls.crt", pem.name()).replace("/etc/fanfare/tls.key", pem.name())
}

#[test]
fn the_default_file_is_the_default_configuration() {
    let Loaded { config, warnings } = load_all(DEFAULT_TOML, &[], &[]).unwrap();
    assert_eq!((config, warnings), (Config::default(), Vec::new()));
}

#[test]
fn the_default_file_without_its_comment_signs_adds_tls_and_an_app_with_all_it_can_have_in_default_settings() {
    let pem = TempFile::new("pem");
    let mut expected = Config::default();
    expected.server.tls = Some(TlsConfig { certificate: pem.0.clone(), private_key: pem.0.clone() });
    expected.apps = vec![AppConfig::new("1001", "app-key", "app-secret")];
    expected.apps[0].keys.push(KeyPair { key: "next-key".to_owned(), secret: Secret::new("next-secret") });
    expected.apps[0].webhooks.push(WebhookConfig::new("https://example.com/pusher/webhook"));
    let secret = Some(Secret::new("the output of `openssl rand -hex 32`"));
    expected.apps[0].auth.jwt = Some(JwtConfig { secret, ..JwtConfig::new(vec![JwtAlgorithm::Hs256]) });
    assert_eq!(load(&uncommented(&pem)), expected);
}

#[test]
fn the_default_file_has_every_key_with_its_variable_and_what_it_may_be_and_no_other() {
    // What stands in [app_defaults] is not repeated for apps.
    let keys = all_keys();
    let settings: Vec<_> = keys.iter().filter_map(|(path, _)| path.strip_prefix("app_defaults.")).collect();
    let own = |path: &str| !path.strip_prefix("apps.0.").is_some_and(|name| settings.contains(&name));
    let expected: Vec<_> = keys.iter().filter(|(path, _)| own(path)).collect();
    assert!(expected.len() > 50 && settings.len() > 30);

    // A key line, commented out or not, comes right after the line with its variable.
    let mut table = String::new();
    let mut found = Vec::new();
    let mut previous = "";
    for line in DEFAULT_TOML.lines() {
        let content = line.trim_start_matches(['#', ' ']);
        if let Some(header) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let in_list = header.replace("[apps.keys]", "apps.0.keys.0").replace("[apps]", "apps.0");
            let in_list = in_list.replace("[apps.webhooks]", "apps.0.webhooks.0");
            table = in_list.replace("apps.limits", "apps.0.limits").replace("apps.auth", "apps.0.auth");
        } else if let Some((name, _)) = content.split_once(" = ").filter(|(name, _)| !name.contains([' ', '`'])) {
            let path = format!("{table}.{name}");
            // The one example of a setting of its own.
            if path != "apps.0.limits.connections" {
                found.push((path, previous.to_owned()));
            }
        }
        previous = line;
    }
    let documented = |(path, rule): &(String, String)| (path.clone(), format!("# {}: {rule}", env_name(path)));
    let (mut found, mut expected): (Vec<_>, Vec<_>) = (found, expected.into_iter().map(documented).collect());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
