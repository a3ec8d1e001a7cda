//! What the admin listener says about webhooks, as tables for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::super::output::{on_one_line, table};

/// The answer to `GET /webhooks`.
pub(super) fn listing(listing: &Value) -> String {
    let endpoints = items(&listing["endpoints"]);
    if endpoints.is_empty() && items(&listing["deliveries"]).is_empty() {
        return "no webhook endpoint is configured".to_owned();
    }
    let mut text = endpoint_table(endpoints);
    let deliveries = items(&listing["deliveries"]);
    if deliveries.is_empty() {
        return text + "\n\nnothing has failed";
    }
    text += "\n\n";
    text + &delivery_table(deliveries)
}

fn endpoint_table(endpoints: &[Value]) -> String {
    let row = |endpoint: &Value| {
        let health = match endpoint["failures_in_a_row"].as_u64() {
            Some(0) if endpoint["last_success_ms"].is_null() => "not used yet".to_owned(),
            Some(0) => format!("fine, last {} ago", ago(&endpoint["last_success_ms"])),
            _ => format!("FAILS: {}", outcome(&endpoint["last_failure"])),
        };
        let text = |name: &str| on_one_line(endpoint[name].as_str().unwrap_or_default());
        let number = |name: &str| endpoint[name].to_string();
        vec![text("app"), text("url"), number("pending"), number("delivered"), health]
    };
    let header = ["APP", "ENDPOINT", "PENDING", "DELIVERED", "STATE"].map(str::to_owned).to_vec();
    table(&[header].into_iter().chain(endpoints.iter().map(row)).collect::<Vec<_>>())
}

fn delivery_table(deliveries: &[Value]) -> String {
    let row = |delivery: &Value| {
        let events = items(&delivery["events"]);
        let first = &events.first().unwrap_or(&Value::Null);
        let name = first["name"].as_str().unwrap_or_default();
        let more = if events.len() > 1 { format!(" and {} more", events.len() - 1) } else { String::new() };
        vec![
            on_one_line(delivery["id"].as_str().unwrap_or_default()),
            state(&delivery["state"]),
            format!("{} ago", ago(&delivery["time_ms"])),
            delivery["attempt_count"].to_string(),
            on_one_line(&format!("{name} {}{more}", subject(first))),
            outcome(items(&delivery["attempts"]).last().unwrap_or(&Value::Null)),
        ]
    };
    let header = ["ID", "STATE", "CREATED", "ATTEMPTS", "EVENT", "LAST OUTCOME"].map(str::to_owned).to_vec();
    table(&[header].into_iter().chain(deliveries.iter().map(row)).collect::<Vec<_>>())
}

/// The answer to `GET /webhooks/{id}`.
pub(super) fn delivery(delivery: &Value) -> String {
    let text = |name: &str| on_one_line(delivery[name].as_str().unwrap_or_default());
    let mut rows = vec![
        vec!["id".to_owned(), text("id")],
        vec!["app".to_owned(), text("app")],
        vec!["endpoint".to_owned(), text("url")],
        vec!["state".to_owned(), state(&delivery["state"])],
    ];
    if let Some(reason) = delivery["state"]["reason"].as_str() {
        rows.push(vec!["reason".to_owned(), on_one_line(reason)]);
    }
    rows.push(vec![
        "created".to_owned(),
        format!("{} ago (time_ms {})", ago(&delivery["time_ms"]), delivery["time_ms"]),
    ]);
    rows.push(vec!["attempts".to_owned(), delivery["attempt_count"].to_string()]);
    let mut lines = vec![table(&rows)];
    lines.extend(items(&delivery["attempts"]).iter().map(|shown| format!("  {}", attempt(shown))));
    lines.push("events".to_owned());
    lines.extend(items(&delivery["events"]).iter().map(|event| format!("  {event}")));
    lines.join("\n")
}

/// One attempt on one line.
pub(super) fn attempt(attempt: &Value) -> String {
    let duration = attempt["duration_ms"].as_u64().unwrap_or(0);
    let answer = on_one_line(attempt["answer"].as_str().unwrap_or_default());
    let answer = if answer.is_empty() { answer } else { format!("  {answer:?}") };
    format!("{} ago  {} in {duration} ms{answer}", ago(&attempt["time_ms"]), outcome(attempt))
}

fn state(state: &Value) -> String {
    match state["name"].as_str().unwrap_or_default() {
        "retrying" => format!("again in {}", span(Duration::from_millis(state["in_ms"].as_u64().unwrap_or(0)))),
        other => other.to_owned(),
    }
}

fn outcome(attempt: &Value) -> String {
    match (attempt["status"].as_u64(), attempt["error"].as_str()) {
        (Some(status), _) => format!("status {status}"),
        (None, Some(error)) => on_one_line(error),
        (None, None) => "-".to_owned(),
    }
}

/// What an event is about.
fn subject(event: &Value) -> &str {
    ["channel", "user_id", "socket_id"].iter().find_map(|name| event[name].as_str()).unwrap_or_default()
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The time since a moment in milliseconds since 1970.
fn ago(moment: &Value) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(moment.as_u64().unwrap_or(0));
    span(SystemTime::now().duration_since(moment).unwrap_or_default())
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dead() -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        json!({
            "id": "1-2", "app": "1001", "url": "http://a/h", "state": { "name": "dead", "reason": "status 500" },
            "time_ms": now - 300_000, "attempt_count": 2,
            "attempts": [
                { "time_ms": now - 300_000, "duration_ms": 7, "error": "refused" },
                { "time_ms": now - 5000, "duration_ms": 12, "status": 500, "answer": "no\u{1b}[2J" },
            ],
            "events": [{ "name": "channel_occupied", "channel": "room" }, { "name": "user_online", "user_id": "7" }],
        })
    }

    #[test]
    fn a_listing_tells_of_endpoints_and_deliveries() {
        let endpoint = json!({
            "app": "1001", "url": "http://a/h", "pending": 3, "delivered": 9, "failures_in_a_row": 2,
            "last_success_ms": null, "last_failure": { "status": 500 },
        });
        let text = listing(&json!({ "endpoints": [endpoint], "deliveries": [dead()] }));
        let expected = "\
APP   ENDPOINT    PENDING  DELIVERED  STATE
1001  http://a/h  3        9          FAILS: status 500

ID   STATE  CREATED    ATTEMPTS  EVENT                            LAST OUTCOME
1-2  dead   5 min ago  2         channel_occupied room and 1 more  status 500";
        assert_eq!(
            text,
            expected.replace("EVENT                            LAST", "EVENT                             LAST")
        );
        assert_eq!(listing(&json!({ "endpoints": [], "deliveries": [] })), "no webhook endpoint is configured");
    }

    #[test]
    fn a_delivery_shows_every_attempt_and_cannot_move_the_cursor() {
        let text = delivery(&dead());
        assert!(text.contains("reason    status 500"), "{text}");
        assert!(text.contains("\n  5 min ago  refused in 7 ms\n"), "{text}");
        assert!(text.contains("  5 s ago  status 500 in 12 ms  \"no\\\\u{1b}[2J\"\n"), "{text}");
        assert!(text.ends_with("  {\"name\":\"user_online\",\"user_id\":\"7\"}"), "{text}");
    }
}
