//! Patterns, and the simplest matcher there is. See [`crate::fuzzing`].

use serde_json::{Map, json};

use crate::config::{ClaimPattern, Part, matches};
use crate::protocol::ChannelName;

use super::claims::Claims;
use super::grants::{fits, render};

/// Lengths up to which an exponential matcher ends in this life.
const MAX_TEXT: usize = 24;
const MAX_PARTS: usize = 7;

/// The input: a line with the pattern, one with a name, one with the claim `a`, and others with the items of the list `b`.
pub(crate) fn claim_patterns(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (pattern, name, a) = (line(), line(), line());
    let list: Vec<&str> = lines.take(4).collect();
    stars(pattern, name);
    let Some(parsed) = ClaimPattern::parse(pattern) else {
        assert!(pattern.is_empty() || pattern.contains(['{', '}', '*']), "{pattern}");
        return;
    };
    let written: String = parsed.parts.iter().map(written).collect();
    assert_eq!(written, pattern);
    let mut claims = Map::new();
    claims.insert("a".to_owned(), json!(a));
    claims.insert("b".to_owned(), json!(list));
    claims.insert("c".to_owned(), json!({ "d": list.first().copied().unwrap_or_default(), "n": 7 }));
    let claims = Claims(claims);
    if let Some(text) = render(&parsed, &claims) {
        assert!(!parsed.parts.contains(&Part::Any), "{pattern}");
        // Whatever a pattern stands for fits it.
        if let Ok(channel) = ChannelName::parse(&text, MAX_TEXT)
            && parsed.parts.len() <= MAX_PARTS
        {
            check(&parsed, &claims, &channel);
        }
    }
    if let Ok(channel) = ChannelName::parse(name, MAX_TEXT)
        && parsed.parts.len() <= MAX_PARTS
    {
        check(&parsed, &claims, &channel);
    }
}

fn written(part: &Part) -> String {
    match part {
        Part::Text(text) => text.clone(),
        Part::Any => "*".to_owned(),
        Part::Claim(claim) => format!("{{{claim}}}"),
    }
}

fn check(pattern: &ClaimPattern, claims: &Claims, channel: &ChannelName) {
    let expected = naive(pattern, 0, claims, channel.as_str()) && is_of_kind(pattern, channel);
    assert_eq!(fits(pattern, claims, channel), expected, "{pattern:?} {claims:?} {channel}");
}

/// Tries everything.
fn naive(pattern: &ClaimPattern, at: usize, claims: &Claims, rest: &str) -> bool {
    let Some(part) = pattern.parts.get(at) else { return rest.is_empty() };
    let texts = match part {
        Part::Text(text) => vec![text.clone()],
        Part::Any => (0..=rest.len()).filter_map(|end| rest.get(..end)).map(str::to_owned).collect(),
        Part::Claim(path) => {
            let texts = claims.texts(path);
            texts.into_iter().filter(|text| !text.is_empty() && keeps_to_itself(pattern, at, text)).collect()
        }
    };
    texts.iter().any(|text| rest.strip_prefix(text.as_str()).is_some_and(|rest| naive(pattern, at + 1, claims, rest)))
}

/// Whether a value has none of the characters that hold it apart from other variable parts.
fn keeps_to_itself(pattern: &ClaimPattern, at: usize, value: &str) -> bool {
    let variable = |part: &Part| !matches!(part, Part::Text(_));
    let (before, after) = (&pattern.parts[..at], &pattern.parts[at + 1..]);
    let left = match before.last() {
        Some(Part::Text(text)) if before.iter().any(variable) => text.chars().last(),
        _ => None,
    };
    let right = match after.first() {
        Some(Part::Text(text)) if after.iter().any(variable) => text.chars().next(),
        _ => None,
    };
    !value.chars().any(|c| Some(c) == left || Some(c) == right)
}

/// Whether a claim right behind the first text has not made another kind of channel of it.
fn is_of_kind(pattern: &ClaimPattern, channel: &ChannelName) -> bool {
    const PREFIXES: [&str; 7] = [
        "private-encrypted-cache-",
        "private-encrypted-",
        "private-cache-",
        "private-",
        "presence-cache-",
        "presence-",
        "cache-",
    ];
    let prefix = |text: &str| PREFIXES.iter().find(|prefix| text.starts_with(**prefix));
    match &pattern.parts[..] {
        [Part::Text(text), Part::Claim(_), ..] => prefix(text) == prefix(channel.as_str()),
        _ => true,
    }
}

/// Patterns that have nothing but stars.
fn stars(pattern: &str, text: &str) {
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', pattern @ ..], _) => (0..=text.len()).any(|at| naive(pattern, &text[at..])),
            ([one, pattern @ ..], [other, text @ ..]) => one == other && naive(pattern, text),
            _ => false,
        }
    }
    let few = pattern.bytes().filter(|byte| *byte == b'*').count() <= 4;
    if few && pattern.len() <= MAX_TEXT && text.len() <= MAX_TEXT {
        assert_eq!(matches(pattern, text), naive(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
    }
}
