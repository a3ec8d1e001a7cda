//! What claims allow: patterns of channels, and names, with claims in them.

use crate::config::{ClaimPattern, Part};
use crate::protocol::ChannelName;

use super::claims::Claims;

/// Whether the whole name fits the pattern with these claims. The value of a claim is only ever text: a `*` in it is no
/// wildcard, and a claim without a value fits nothing.
pub(super) fn fits(pattern: &ClaimPattern, claims: &Claims, channel: &ChannelName) -> bool {
    let name = channel.as_str();
    if !is_of_kind(pattern, channel) {
        return false;
    }
    // How far the parts so far can reach. Growing this set part by part takes no longer for clever claims than for others.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for (at, part) in pattern.parts.iter().enumerate() {
        let texts = match part {
            Part::Text(text) => vec![text.clone()],
            Part::Claim(_) => values(pattern, at, claims),
            Part::Any => {
                let first = reached.iter().position(|here| *here).unwrap_or(reached.len());
                reached[first..].fill(true);
                continue;
            }
        };
        let mut next = vec![false; reached.len()];
        for (from, _) in reached.iter().enumerate().filter(|(_, here)| **here) {
            for text in &texts {
                if name[from..].starts_with(text.as_str()) {
                    next[from + text.len()] = true;
                }
            }
        }
        reached = next;
    }
    reached[name.len()]
}

/// Whether the channel is of the kind that the pattern's own text says: with `private-{sub}`, whoever is called
/// `encrypted-7` must not have an encrypted channel, which other patterns may mean for somebody else.
fn is_of_kind(pattern: &ClaimPattern, channel: &ChannelName) -> bool {
    let [Part::Text(text), Part::Claim(_), ..] = &pattern.parts[..] else { return true };
    let of = |name: &ChannelName| (name.kind(), name.is_cache());
    ChannelName::parse(text, usize::MAX).is_ok_and(|start| of(&start) == of(channel))
}

/// The one text that a pattern without `*` and lists stands for, unless a claim has no value.
pub(super) fn render(pattern: &ClaimPattern, claims: &Claims) -> Option<String> {
    let parts = pattern.parts.iter().enumerate().map(|(at, part)| match part {
        Part::Text(text) => Some(text.clone()),
        Part::Claim(_) => values(pattern, at, claims).pop(),
        Part::Any => None,
    });
    parts.collect()
}

/// The values of the claim that is this part of the pattern. Where another part is variable, too, the characters that hold
/// them apart must not be in a value: with `{org}-{user}`, user `b-c` of `a` would have the name of user `c` of `a-b`.
fn values(pattern: &ClaimPattern, at: usize, claims: &Claims) -> Vec<String> {
    let Part::Claim(path) = &pattern.parts[at] else { return Vec::new() };
    let mut values = claims.texts(path);
    if pattern.is_divided() {
        let (before, after) = (&pattern.parts[..at], &pattern.parts[at + 1..]);
        let divides = |beyond: &[Part]| beyond.iter().any(Part::is_variable);
        let text = |part: Option<&Part>| match part {
            Some(Part::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let left = text(before.last()).chars().next_back().filter(|_| divides(before));
        let right = text(after.first()).chars().next().filter(|_| divides(after));
        values.retain(|value| !value.contains(|c| Some(c) == left || Some(c) == right));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { panic!("claims are an object") };
        Claims(claims)
    }

    fn pattern(text: &str) -> ClaimPattern {
        ClaimPattern::parse(text).unwrap()
    }

    fn fits(pattern: &ClaimPattern, claims: &Claims, name: &str) -> bool {
        ChannelName::parse(name, 1000).is_ok_and(|channel| super::fits(pattern, claims, &channel))
    }

    #[test]
    fn a_channel_fits_as_a_whole_or_not_at_all() {
        let claims = claims(json!({ "sub": "1", "user": { "id": 7 }, "courses": ["math", 12, {}, ""], "dot": "." }));
        let table = [
            ("private-user-{sub}", "private-user-1", true),
            ("private-user-{sub}", "private-user-12", false),
            ("private-user-{sub}", "private-user-", false),
            ("private-user-{sub}", "private-user-2", false),
            ("private-user-{sub}", "presence-user-1", false),
            ("private-user-{sub}", "xprivate-user-1", false),
            ("private-user-{sub}-x", "private-user-1-x", true),
            ("private-user-{sub}-x", "private-user-1", false),
            ("private-{user.id}", "private-7", true),
            ("presence-course-{courses[*]}", "presence-course-math", true),
            ("presence-course-{courses[*]}", "presence-course-12", true),
            ("presence-course-{courses[*]}", "presence-course-", false),
            ("presence-course-{courses[*]}", "presence-course-{}", false),
            ("private-{missing}", "private-", false),
            ("private-{dot}", "private-.", true),
            ("private-{dot}", "private-x", false),
            ("private-{sub}-*", "private-1-anything", true),
            ("private-{sub}-*", "private-1-", true),
            ("private-{sub}-*", "private-12-a", false),
            ("private-*-{sub}", "private-a-b-1", true),
            ("private-*-{sub}", "private-a-21", false),
            ("private-room", "private-room", true),
            ("private-*", "private-room", true),
            ("presence-*", "private-room", false),
        ];
        for (text, name, expected) in table {
            assert_eq!(fits(&pattern(text), &claims, name), expected, "{text} {name}");
        }
    }

    #[test]
    fn a_wildcard_in_a_value_is_a_character() {
        for value in ["*", "1*", "*1", "{sub}", "[*]"] {
            let claims = claims(json!({ "sub": value }));
            for name in ["private-user-1", "private-user-12", "private-user-"] {
                assert!(!fits(&pattern("private-user-{sub}"), &claims, name), "{value} {name}");
            }
        }
    }

    #[test]
    fn a_value_cannot_make_another_kind_of_channel() {
        let table = [
            ("private-{sub}", "encrypted-7", false),
            ("private-{sub}", "cache-7", false),
            ("private-{sub}", "encrypted", true),
            ("private-enc{sub}", "rypted-7", false),
            ("private-encrypted-{sub}", "cache-7", false),
            ("private-encrypted-{sub}", "7", true),
            ("presence-{sub}", "cache-7", false),
            ("presence-{sub}", "7", true),
            // Here the claim is what says which channels there are.
            ("{sub}", "private-encrypted-7", true),
        ];
        for (text, value, expected) in table {
            let name = text.replace("{sub}", value);
            assert_eq!(fits(&pattern(text), &claims(json!({ "sub": value })), &name), expected, "{text} {value}");
        }
        // A wildcard is the configuration's own.
        assert!(fits(&pattern("private-*"), &claims(json!({})), "private-encrypted-7"));
    }

    #[test]
    fn values_cannot_shift_the_border_between_two_parts() {
        let of = |org: &str, sub: &str| claims(json!({ "org": org, "sub": sub }));
        let two = pattern("private-{org}-{sub}");
        assert!(fits(&two, &of("a", "c"), "private-a-c"));
        assert!(!fits(&two, &of("a", "b-c"), "private-a-b-c"));
        assert!(!fits(&two, &of("a-b", "c"), "private-a-b-c"));
        let star = pattern("private-{sub}-*");
        assert!(!fits(&star, &of("", "1-2"), "private-1-2-x"));
        // With only one variable part there is no border, and with another character in between there is one.
        assert!(fits(&pattern("private-{sub}"), &of("", "1-2"), "private-1-2"));
        assert!(fits(&pattern("private-{org};{sub}"), &of("a-b", "c-d"), "private-a-b;c-d"));
    }

    #[test]
    fn a_name_is_made_of_claims_that_have_a_value() {
        let claims = claims(json!({ "sub": 7, "org": "a", "list": ["x"], "empty": "" }));
        assert_eq!(render(&pattern("{sub}"), &claims).as_deref(), Some("7"));
        assert_eq!(render(&pattern("{org}.{sub}"), &claims).as_deref(), Some("a.7"));
        for missing in ["{list}", "{empty}", "{none}", "{org}.{none}"] {
            assert_eq!(render(&pattern(missing), &claims), None, "{missing}");
        }
    }

    #[test]
    fn many_values_and_parts_take_no_longer_than_their_product() {
        let values: Vec<_> = (1..200).map(|n| "a".repeat(n)).collect();
        let claims = claims(json!({ "list": values }));
        let many = pattern(&"{list[*]}-".repeat(20));
        assert!(!fits(&many, &claims, &"a-".repeat(100)));
    }
}
