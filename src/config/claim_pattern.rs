//! Texts with claims in braces: `private-user-{sub}`, `presence-course-{courses[*]}`.

/// A pattern, taken apart. What it matches is decided where the claims are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPattern {
    /// In order; no two variable ones next to each other.
    pub parts: Vec<Part>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Text(String),
    /// `*`: any text, also none.
    Any,
    /// `{user.id}`, `{courses[*]}`: the value of this claim, or one of its values.
    Claim(String),
}

impl ClaimPattern {
    /// Takes a pattern apart. `None` if it is empty, if its braces do not pair up, or if two variable parts touch: of
    /// `{a}{b}`, and of `{a}*`, nobody could say where a value ends, and whoever is `1` would be let in as `12`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = if let Some(after) = rest.strip_prefix('*') {
                (Part::Any, after)
            } else if let Some(inside) = rest.strip_prefix('{') {
                let (claim, after) = inside.split_once('}').filter(|(claim, _)| is_claim(claim))?;
                (Part::Claim(claim.to_owned()), after)
            } else {
                let end = rest.find(['*', '{']).unwrap_or(rest.len());
                (Part::Text(rest[..end].to_owned()), &rest[end..])
            };
            let touches = |last: &Part| last.is_variable() && part.is_variable();
            if parts.last().is_some_and(touches) || matches!(&part, Part::Text(text) if text.contains('}')) {
                return None;
            }
            parts.push(part);
            rest = after;
        }
        Some(Self { parts }).filter(|pattern| !pattern.parts.is_empty())
    }

    /// Whether it can be the pattern of a channel: outside of its braces there is nothing but what names may have.
    pub(super) fn is_of_channels(&self) -> bool {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
        self.parts.iter().all(|part| !matches!(part, Part::Text(text) if !text.chars().all(allowed)))
    }

    /// Whether it stands for one text: no `*`, no list.
    pub(super) fn is_single(&self) -> bool {
        let single = |part: &Part| match part {
            Part::Text(_) => true,
            Part::Any => false,
            Part::Claim(claim) => !claim.contains("[*]"),
        };
        self.parts.iter().all(single)
    }

    /// Whether it has more than one part that is not fixed.
    pub fn is_divided(&self) -> bool {
        self.parts.iter().filter(|part| part.is_variable()).count() > 1
    }
}

impl Part {
    /// Whether it stands for more than one text.
    pub fn is_variable(&self) -> bool {
        !matches!(self, Self::Text(_))
    }
}

/// Whether this can be the path of a claim: names joined by dots, with `[*]` after those of lists. Names may be URLs.
pub(super) fn is_claim(text: &str) -> bool {
    let names = text.replace("[*]", "");
    !names.is_empty() && !text.starts_with("[*]") && !names.contains(['*', '{', '}', '[', ']']) && !has_control(&names)
}

fn has_control(text: &str) -> bool {
    text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_taken_apart() {
        let pattern = ClaimPattern::parse("presence-{org.id}-*.{https://a.example/courses[*]}").unwrap();
        let text = |text: &str| Part::Text(text.to_owned());
        let claim = |path: &str| Part::Claim(path.to_owned());
        let parts = [
            text("presence-"),
            claim("org.id"),
            text("-"),
            Part::Any,
            text("."),
            claim("https://a.example/courses[*]"),
        ];
        assert_eq!(pattern.parts, parts);
        assert!(pattern.is_divided() && !pattern.is_single() && pattern.is_of_channels());
        assert!(!ClaimPattern::parse("private-{sub}").unwrap().is_divided());
    }

    #[test]
    fn a_pattern_whose_values_have_no_end_is_none() {
        for bad in ["", "{a}{b}", "{a}*", "*{a}", "**", "{", "{}", "}", "a}", "{a", "{a*}", "{[*]}", "{a{b}}", "{a[0]}"]
        {
            assert_eq!(ClaimPattern::parse(bad), None, "{bad}");
        }
        assert!(!ClaimPattern::parse("private room").unwrap().is_of_channels());
    }
}
