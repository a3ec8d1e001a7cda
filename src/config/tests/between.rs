//! Rules between settings, and for a server that is about to start.

use super::*;

#[test]
fn settings_that_work_against_each_other_bring_a_warning() {
    let app = "[[apps]]\nid = \"shop\"\nkey = \"k\"\nsecret = \"s\"\nclient_events = true\n[apps.limits]\n\
               message = 2048\nhttp_body = 2048\noutbox = \"16 KiB\"\nevent_data = \"1 MiB\"\n\
               activity_timeout = \"121s\"\n";
    let warnings = load_all(app, &[], &[]).unwrap().warnings;
    let expected = [
        "fanfare.toml:2: apps.0.id: \"shop\": ",
        "fanfare.toml:7: apps.0.limits.message: smaller than event_data",
        "fanfare.toml:8: apps.0.limits.http_body: smaller than event_data",
        "fanfare.toml:9: apps.0.limits.outbox: smaller than event_data",
        "fanfare.toml:11: apps.0.limits.activity_timeout: more than 120 s has no effect on pusher-js",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
    assert_eq!(load_all(APP, &[], &[]).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn a_client_that_may_have_more_channels_than_may_wait_for_the_cluster_brings_a_warning() {
    for (channels, pending, warned) in [("1000", "1000", false), ("1001", "1000", true), ("0", "1000000", true)] {
        for (driver, warned) in [("redis", warned), ("single", false)] {
            let settings = [
                ("cluster.driver", driver),
                ("cluster.pending_per_connection", pending),
                ("app_defaults.limits.channels_per_connection", channels),
            ];
            let warnings = load_all(APP, &[], &settings).unwrap().warnings;
            let of_channels =
                warnings.iter().filter(|warning| warning.contains("more than cluster.pending_per_connection"));
            assert_eq!(of_channels.count(), usize::from(warned), "{settings:?}: {warnings:?}");
        }
    }
}

#[test]
fn the_fallbacks_have_a_path_of_their_own() {
    for path in ["/app", "/apps", "/users/all", "/timeline"] {
        let error = load_all(APP, &[], &[("fallbacks.path", path)]).unwrap_err();
        let expected = format!("fallbacks.path: {path:?} is where WebSockets and the HTTP API are");
        assert!(error.mistakes[0].contains(&expected), "{error}");
    }
    for path in ["/pusher", "/application", "/realtime/app"] {
        assert!(load_all(APP, &[], &[("fallbacks.path", path)]).is_ok(), "{path}");
    }
}

#[test]
fn a_server_needs_an_app() {
    let error = Config::load_for_server(&Sources::default(), &Machine::default()).unwrap_err();
    assert!(error.mistakes[0].starts_with("apps: there is none"), "{error}");
    assert_eq!(obstacles(APP, &[]), Vec::<String>::new());
    let together = obstacles("[server]\nlisten = 5\n", &[]);
    assert_eq!(together.len(), 2, "{together:#?}");
}

#[test]
fn the_secret_of_the_examples_stays_on_this_machine() {
    let demo = "\n[[apps]]\nid = \"1001\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";
    let file = format!("{APP}{demo}");
    let mistakes = obstacles(&file, &[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].contains(": apps.1.secret: the secret that all the examples have"), "{mistakes:#?}");
    assert!(!mistakes[0].contains("app-secret"), "{mistakes:#?}");
    for loopback in ["127.0.0.1:6001", "[::1]:6001"] {
        assert_eq!(obstacles(&file, &[("server.listen", loopback)]), Vec::<String>::new());
    }
    assert_eq!(obstacles(&file.replace("app-secret", "my own"), &[]), Vec::<String>::new());
}
