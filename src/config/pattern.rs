//! Patterns in settings: of origins, hosts and channels.

/// Whether a text is what a pattern says, where `*` stands for any text, also none. Takes time in proportion to the
/// pattern's length times the text's, whatever they are: one of the two may be a stranger's.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and up to where it reaches for now.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, reach)) = star {
            star = Some((at, reach + 1));
            p = at + 1;
            t = reach + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// A list that is empty, or holds a pattern of this origin. Who sends no origin is no browser.
pub fn origin_allowed(patterns: &[String], origin: Option<&str>) -> bool {
    let Some(origin) = origin else { return true };
    let origin = origin.to_lowercase();
    let fits = |pattern: &String| match pattern.contains("://") || pattern == "*" {
        true => matches(&pattern.to_lowercase(), &origin),
        false => host(&origin).is_some_and(|host| matches(&pattern.to_lowercase(), host)),
    };
    patterns.is_empty() || patterns.iter().any(fits)
}

/// The host of an origin; `null` has none.
fn host(origin: &str) -> Option<&str> {
    let (_, authority) = origin.split_once("://")?;
    // The colons of an IPv6 address stand in brackets.
    let end = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    Some(&authority[..end.unwrap_or(authority.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let table = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "é*", true),
            ("presence-*", "presence-room", true),
            ("presence-*", "presence", false),
            ("*-room", "a-room-room", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbxbxc", true),
            ("a*b*c", "axxbxb", false),
            ("a**", "a", true),
            ("room", "room1", false),
        ];
        for (pattern, text, fits) in table {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_one() {
        assert!(!matches(&"*a".repeat(100), &"b".repeat(100_000)));
    }

    #[test]
    fn origins_match_as_a_whole() {
        let table = [
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "https://EXAMPLE.com", true),
            ("https://example.com", "https://example.com.evil", false),
            ("https://example.com", "http://example.com", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://a.example.com.evil", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("*", "null", true),
            ("example.com", "https://example.com", true),
            ("example.com", "http://Example.com:8080", true),
            ("example.com", "https://a.example.com", false),
            ("*.example.com", "https://a.example.com:444", true),
            ("example.com", "https://example.com.evil", false),
            ("example.com", "null", false),
            ("localhost", "http://[::1]:80", false),
        ];
        for (pattern, origin, allowed) in table {
            assert_eq!(origin_allowed(&[pattern.to_owned()], Some(origin)), allowed, "{pattern} {origin}");
        }
        assert!(origin_allowed(&["https://a.b".to_owned()], None));
        assert!(origin_allowed(&[], Some("https://a.b")));
    }
}
