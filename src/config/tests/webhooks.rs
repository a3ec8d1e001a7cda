//! `[[apps.webhooks]]`.

use super::*;

#[test]
fn an_endpoint_is_told_pushers_events_unless_it_asks_for_others() {
    let file = format!(
        "{APP}[[apps.webhooks]]\nurl = \"http://a.example/hook\"\n[[apps.webhooks]]\nurl = \"https://b.example\"\n\
         events = [\"user_online\", \"member_added\", \"user_online\"]\nchannels = [\"presence-*\"]\n\
         headers = {{ \"X-Tenant\" = \"a\", X-Other = \"b.c\" }}\nbatch_size = 10\nbatch_wait = \"1s\"\n"
    );
    let [first, second] = &load(&file).apps[0].webhooks[..] else { panic!() };
    assert_eq!(*first, WebhookConfig::new("http://a.example/hook"));
    assert_eq!(first.events.len(), 7);
    assert_eq!(second.events, [WebhookEvent::UserOnline, WebhookEvent::MemberAdded]);
    assert_eq!(second.channels, ["presence-*"]);
    let headers: Vec<_> = second.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("X-Other", "b.c"), ("X-Tenant", "a")]);
    assert_eq!((second.batch_size, second.batch_wait), (10, Duration::from_secs(1)));
}

#[test]
fn headers_can_be_given_as_text_and_one_by_one() {
    let file = format!("{APP}[[apps.webhooks]]\nurl = \"http://a.example\"\nheaders.X-A = \"file\"\n");
    let names = |env: &[(&str, &str)], overrides: &[(&str, &str)]| {
        let config = load_all(&file, env, overrides).unwrap().config;
        let headers = config.apps[0].webhooks[0].headers.iter();
        headers.map(|(name, value)| format!("{name}: {}", value.expose())).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(names(&[], &[]), "X-A: file");
    let env = [("FANFARE_APPS_0_WEBHOOKS_0_HEADERS", "X-B: env, X-C: a b")];
    assert_eq!(names(&env, &[]), "X-B: env, X-C: a b");
    assert_eq!(names(&env, &[("apps.0.webhooks.0.headers.X-D", "set")]), "X-D: set");
    assert_eq!(names(&env, &[("apps.0.webhooks.0.headers", "X-E: set")]), "X-E: set");
}

#[test]
fn an_endpoint_that_cannot_work_is_a_mistake() {
    let file = format!(
        "{APP}webhook_delay = \"1h\"\n[[apps.webhooks]]\nurl = \"a.example\"\nevents = [\"occupied\"]\n\
         channels = [\"a b\"]\nheaders = {{ \"Content-Type\" = \"hunter2\" }}\n[[apps.webhooks]]\n\
         url = \"http://b.example\"\nheaders = {{ \"a b\" = \"hunter2\" }}\n[[apps.webhooks]]\n\
         url = \"http://b.example\"\nheaders = {{ X = 998877 }}\n[webhooks]\ndata_dir = 5\n"
    );
    let found = mistakes(&file, &[], &[]);
    let expected = [
        "fanfare.toml:5: apps.0.webhook_delay: \"1h\" is out of range; expected a duration from \"0s\" to \"10m\"",
        "fanfare.toml:7: apps.0.webhooks.0.url: \"a.example\" is not a URL; expected an http:// or https:// URL such \
         as \"https://example.com/pusher/webhook\"",
        "fanfare.toml:8: apps.0.webhooks.0.events: \"occupied\" is not an event of webhooks; expected a list of \
         channel_occupied, ",
        "fanfare.toml:9: apps.0.webhooks.0.channels: \"a b\" is not a pattern of channel names; expected patterns",
        "fanfare.toml:10: apps.0.webhooks.0.headers: \"Content-Type\" is set by Fanfare itself; expected headers such",
        "fanfare.toml:13: apps.0.webhooks.1.headers: \"a b\" or its value cannot stand in a header; expected headers",
        "fanfare.toml:15: apps.0.webhooks.2.url: \"http://b.example\" is the URL of apps.0.webhooks.1.url; expected \
         another one",
        "fanfare.toml:16: apps.0.webhooks.2.headers: the value of \"X\" is not a text; expected headers such as",
        "fanfare.toml:18: webhooks.data_dir: 5 is not a path; expected the path of a directory, or nothing",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
        assert!(!found.contains("hunter2") && !found.contains("998877"), "{found}");
    }
    for url in ["http://", "ftp://a.example", "https://user:hunter2@a.example", "/hook"] {
        let found = mistakes(&format!("{APP}[[apps.webhooks]]\nurl = \"{url}\"\n"), &[], &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
    }
}
