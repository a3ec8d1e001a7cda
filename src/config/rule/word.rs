//! Names, patterns and other words.

use tracing_subscriber::EnvFilter;

use crate::config::claim_pattern::{ClaimPattern, is_claim};
use crate::protocol::reads_as;

use super::{Rule, is_word, text, texts};

/// Patterns of channel names.
pub(in crate::config) fn channel_patterns() -> Rule<Vec<String>> {
    let allowed = |text: &str| !text.is_empty() && text.chars().all(|c| is_word(c) || "=@,.;*".contains(c));
    texts("a pattern of channel names", "patterns such as \"presence-*\"; an empty list for all channels", allowed)
}

/// Patterns of channel names with claims in them.
pub(in crate::config) fn claim_channels() -> Rule<Vec<String>> {
    let allowed = |text: &str| ClaimPattern::parse(text).is_some_and(|pattern| pattern.is_of_channels());
    let expected = "patterns such as \"private-user-{sub}\" or \"presence-course-{courses[*]}\", in which no {claim} \
                    touches another one or a `*`";
    texts("a pattern of channel names", expected, allowed)
}

/// A text with claims in it.
pub(in crate::config) fn claim_text() -> Rule<String> {
    let allowed = |text: &str| ClaimPattern::parse(text).is_some_and(|pattern| pattern.is_single());
    text(
        "a text with claims",
        "a text such as \"{sub}\" or \"{org}.{user.id}\", in which no {claim} touches another",
        allowed,
    )
}

/// The names of claims.
pub(in crate::config) fn claims() -> Rule<Vec<String>> {
    texts("the name of a claim", "names of claims such as \"name\" or \"user.name\"", is_claim)
}

/// The name of a claim, or none.
pub(in crate::config) fn claim() -> Rule<String> {
    let allowed = |text: &str| text.is_empty() || is_claim(text);
    text("the name of a claim", "the name of a claim such as \"friends\" or \"user.friends\", or nothing", allowed)
}

/// The name that something has elsewhere.
pub(in crate::config) fn name(noun: &'static str) -> Rule<String> {
    text(noun, "letters, digits, `_`, `-` and `.`", |text| !text.is_empty() && is_name(text))
}

/// The name of a cookie, a parameter or a node, or none.
pub(in crate::config) fn name_or_none(noun: &'static str) -> Rule<String> {
    text(noun, "letters, digits, `_`, `-` and `.`, or nothing", is_name)
}

/// The names of parameters that go to an app's backend beside ours.
pub(in crate::config) fn parameters() -> Rule<Vec<String>> {
    let allowed = |text: &str| !text.is_empty() && text.chars().all(is_word) && reads_as(text).is_none();
    let expected = "names of letters, digits, `_` and `-` that cannot be taken for `channel_name`, `socket_id`, `app_key` \
                    or `callback`";
    texts("a parameter that can be passed on", expected, allowed)
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| is_word(c) || c == '.')
}

/// Names of hosts.
pub(in crate::config) fn host_names() -> Rule<Vec<String>> {
    texts("a host name", "host names such as \"fanfare.internal\"", |text| !text.is_empty() && is_name(text))
}

/// A user of Redis, or none.
pub(in crate::config) fn user_or_none() -> Rule<String> {
    let allowed = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
    text("the name of a user", "the name of an ACL user, without spaces, or nothing", allowed)
}

/// A text that means something to somebody else.
pub(in crate::config) fn plain_text(noun: &'static str, expected: &str) -> Rule<String> {
    text(noun, expected, |text| !text.contains(char::is_control))
}

/// A list of such texts.
pub(in crate::config) fn plain_texts(noun: &'static str, expected: &str) -> Rule<Vec<String>> {
    texts(noun, expected, |text| !text.is_empty() && !text.contains(char::is_control))
}

/// An app id or an app key: they stand in URLs.
pub(in crate::config) fn identifier(noun: &'static str) -> Rule<String> {
    text(noun, "letters, digits, `_` and `-`", |text| !text.is_empty() && text.chars().all(is_word))
}

/// What is logged. A lone word that is no level would be a target whose every line is logged, and never what was meant.
pub(in crate::config) fn log_level() -> Rule<String> {
    let known = |directive: &str| {
        directive.contains(['=', '[']) || ["trace", "debug", "info", "warn", "error", "off"].contains(&directive)
    };
    text(
        "a log level",
        "trace, debug, info, warn, error or off, or directives such as \"info,fanfare::session=debug\"",
        move |text| text.split(',').all(&known) && EnvFilter::try_new(text).is_ok(),
    )
}

/// A path in front of other paths.
pub(in crate::config) fn path_prefix() -> Rule<String> {
    text(
        "a path prefix",
        "nothing, or a path such as \"/realtime\" that starts with `/` and does not end with it",
        |text| text.is_empty() || is_path(text),
    )
}

/// A path that others begin with.
pub(in crate::config) fn path() -> Rule<String> {
    text("a path", "a path such as \"/pusher\" that starts with `/` and does not end with it", is_path)
}

fn is_path(text: &str) -> bool {
    let segments =
        |path: &str| path.split('/').all(|s| !s.is_empty() && s.chars().all(|c| is_word(c) || "~.".contains(c)));
    text.strip_prefix('/').is_some_and(segments)
}

#[cfg(test)]
mod tests {
    use super::super::Given;
    use super::*;

    fn given(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn a_misspelt_log_level_is_no_target() {
        for level in ["info", "off", "debug,hyper=warn", "warn,fanfare::session=trace", "fanfare[session]=debug"] {
            assert!((log_level().read)(&given(level)).is_ok(), "{level}");
        }
        for level in ["", "inof", "fanfare", "info,", "fanfare=loud"] {
            assert!((log_level().read)(&given(level)).is_err(), "{level}");
        }
    }

    #[test]
    fn a_path_prefix_starts_with_a_slash_and_does_not_end_with_one() {
        for prefix in ["", "/realtime", "/a/b-c_d.e~f"] {
            assert!((path_prefix().read)(&given(prefix)).is_ok(), "{prefix}");
        }
        for prefix in ["/", "realtime", "/realtime/", "//", "/a//b", "/a b", "/a?b", "/a#b", "/a%20b"] {
            assert!((path_prefix().read)(&given(prefix)).is_err(), "{prefix}");
            assert!((path().read)(&given(prefix)).is_err(), "{prefix}");
        }
    }
}
