//! What a value may be: one [`Rule`] a setting, made by one function per kind of value. A rule reads what a source
//! gives, says in words what it expects, and writes the value back as TOML.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::fs::File;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use tracing_subscriber::EnvFilter;

use super::Secret;
use super::claim_pattern::{ClaimPattern, is_claim};

/// Stands for every secret. Loading refuses it, so that nobody runs with a secret that everybody knows.
pub(super) const MASK: &str = "********";

/// What a source says. The file has types; the environment and the command line only have text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    Untyped(String),
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Given>),
    Table,
    /// A table with what is in it, where its keys are the user's.
    Map(Vec<(String, Given)>),
    /// A TOML type that no setting has: its name with the article.
    Other(&'static str),
}

impl Given {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Untyped(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Untyped(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// As a message shows it: on one line, text in quotes.
impl Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untyped(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(flag) => flag.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Table | Self::Map(_) => f.write_str("a table"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// The values of one setting.
pub(super) struct Rule<T> {
    /// Completes the sentence "expected …".
    pub(super) expected: String,
    /// There is no default.
    pub(super) required: bool,
    /// Whether a value is allowed depends on the files of this machine.
    pub(super) names_a_file: bool,
    /// The value, or what is wrong with what was given.
    pub(super) read: Reads<T>,
    /// The value as TOML.
    pub(super) write: Writes<T>,
}

type Writes<T> = Box<dyn Fn(&T) -> String>;
type Reads<T> = Box<dyn Fn(&Given) -> Result<T, String>>;

impl<T> Rule<T> {
    fn new(
        expected: impl Into<String>,
        read: impl Fn(&Given) -> Result<T, String> + 'static,
        write: impl Fn(&T) -> String + 'static,
    ) -> Self {
        let (read, write) = (Box::new(read), Box::new(write));
        Self { expected: expected.into(), required: false, names_a_file: false, read, write }
    }

    /// The same rule for a setting without a default.
    pub(super) fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl<T: 'static> Rule<Vec<T>> {
    /// The same rule for a list that must not be empty.
    pub(super) fn not_empty(self) -> Self {
        let Self { read, .. } = self;
        let read = Box::new(move |given: &Given| match read(given) {
            Ok(items) if items.is_empty() => Err("empty".to_owned()),
            read => read,
        });
        Self { read, ..self }
    }
}

/// A switch.
pub(super) fn flag() -> Rule<bool> {
    let read = |given: &Given| match given {
        Given::Boolean(flag) => Ok(*flag),
        Given::Untyped(text) if text == "true" => Ok(true),
        Given::Untyped(text) if text == "false" => Ok(false),
        _ => Err(format!("{given} is not a switch")),
    };
    Rule::new("true or false", read, ToString::to_string)
}

/// A whole number in `range`.
pub(super) fn number<T: Integer>(range: RangeInclusive<T>) -> Rule<T> {
    let expected = format!("an integer from {} to {}", range.start(), range.end());
    Rule::new(expected, move |given| integer(given, |number| range.contains(number)), ToString::to_string)
}

/// A whole number up to `max`, 0 = no limit.
pub(super) fn quota<T: Integer>(max: T) -> Rule<T> {
    let expected = format!("0 for no limit, or an integer up to {max}");
    Rule::new(expected, move |given| integer(given, |number| *number <= max), ToString::to_string)
}

/// An address to send requests to.
pub(super) fn url(example: &str) -> Rule<String> {
    let expected = format!("an http:// or https:// URL such as {example:?}");
    text("a URL", &expected, is_url)
}

/// The same, or none.
pub(super) fn optional_url(example: &str) -> Rule<String> {
    let expected = format!("an http:// or https:// URL such as {example:?}, or nothing");
    text("a URL", &expected, |text| text.is_empty() || is_url(text))
}

/// Whether a text is an address that requests can be sent to.
pub fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<hyper::Uri>() else { return false };
    let host = uri.host().is_some_and(|host| !host.is_empty());
    // A user and password would end up in logs; a header is the place for them.
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https")) && host && plain
}

/// A list of texts. `noun` is what one of them is called where it is not one.
pub(super) fn texts(
    noun: &'static str,
    expected: impl Into<String>,
    allowed: impl Fn(&str) -> bool + 'static,
) -> Rule<Vec<String>> {
    let read = move |given: &Given| {
        let text = |item: &Given| match item.text() {
            Some(text) if allowed(text) => Ok(text.to_owned()),
            _ => Err(format!("{item} is not {noun}")),
        };
        items(given)?.iter().map(text).collect()
    };
    Rule::new(expected, read, |items: &Vec<String>| list(items.iter().map(|item| quote(item))))
}

/// A list of some of these words, each once. `noun` is what an item is called where it is not one.
pub(super) fn words<T: Copy + PartialEq + 'static>(
    noun: &'static str,
    words: &'static [(&'static str, T)],
    name: fn(T) -> &'static str,
) -> Rule<Vec<T>> {
    let read = move |given: &Given| {
        let mut chosen = Vec::new();
        for item in items(given)?.iter() {
            let word = words.iter().find(|(word, _)| item.text() == Some(word));
            let (_, value) = word.ok_or_else(|| format!("{item} is not {noun}"))?;
            if !chosen.contains(value) {
                chosen.push(*value);
            }
        }
        Ok(chosen)
    };
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Rule::new(format!("a list of {}", names.join(", ")), read, move |values: &Vec<T>| {
        list(values.iter().map(|value| quote(name(*value))))
    })
}

/// Patterns of channel names.
pub(super) fn channel_patterns() -> Rule<Vec<String>> {
    let allowed = |text: &str| !text.is_empty() && text.chars().all(|c| is_word(c) || "=@,.;*".contains(c));
    texts("a pattern of channel names", "patterns such as \"presence-*\"; an empty list for all channels", allowed)
}

/// Patterns of channel names with claims in them.
pub(super) fn claim_channels() -> Rule<Vec<String>> {
    let allowed = |text: &str| ClaimPattern::parse(text).is_some_and(|pattern| pattern.is_of_channels());
    let expected = "patterns such as \"private-user-{sub}\" or \"presence-course-{courses[*]}\", in which no {claim} \
                    touches another one or a `*`";
    texts("a pattern of channel names", expected, allowed)
}

/// A text with claims in it.
pub(super) fn claim_text() -> Rule<String> {
    let allowed = |text: &str| ClaimPattern::parse(text).is_some_and(|pattern| pattern.is_single());
    text(
        "a text with claims",
        "a text such as \"{sub}\" or \"{org}.{user.id}\", in which no {claim} touches another",
        allowed,
    )
}

/// The names of claims.
pub(super) fn claims() -> Rule<Vec<String>> {
    texts("the name of a claim", "names of claims such as \"name\" or \"user.name\"", is_claim)
}

/// The name of a claim, or none.
pub(super) fn claim() -> Rule<String> {
    let allowed = |text: &str| text.is_empty() || is_claim(text);
    text("the name of a claim", "the name of a claim such as \"friends\" or \"user.friends\", or nothing", allowed)
}

/// The name of a cookie or a parameter, or none.
pub(super) fn name(noun: &'static str) -> Rule<String> {
    text(noun, "letters, digits, `_`, `-` and `.`, or nothing", |text| text.chars().all(|c| is_word(c) || c == '.'))
}

/// A text that means something to somebody else.
pub(super) fn plain_text(noun: &'static str, expected: &str) -> Rule<String> {
    text(noun, expected, |text| !text.contains(char::is_control))
}

/// A list of such texts.
pub(super) fn plain_texts(noun: &'static str, expected: &str) -> Rule<Vec<String>> {
    texts(noun, expected, |text| !text.is_empty() && !text.contains(char::is_control))
}

/// Names of headers that are passed on.
pub(super) fn header_names() -> Rule<Vec<String>> {
    let taken = [
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "transfer-encoding",
    ];
    let allowed =
        move |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok_and(|name| !taken.contains(&name.as_str()));
    texts("a header that can be passed on", "names of headers such as \"X-CSRF-Token\"", allowed)
}

/// A directory that need not exist yet, or none.
pub(super) fn directory() -> Rule<Option<PathBuf>> {
    let read = |given: &Given| match given.text() {
        Some("") => Ok(None),
        Some(path) if !PathBuf::from(path).is_file() => Ok(Some(PathBuf::from(path))),
        Some(_) => Err(format!("{given} is a file")),
        None => Err(format!("{given} is not a path")),
    };
    Rule::new("the path of a directory, or nothing", read, |path: &Option<PathBuf>| {
        quote(&path.as_deref().unwrap_or_else(|| Path::new("")).to_string_lossy())
    })
}

/// HTTP headers of the user's choice. Their values are never shown: a token is usually among them.
pub(super) fn headers() -> Rule<BTreeMap<String, Secret>> {
    let read = |given: &Given| {
        let pairs = match given {
            Given::Map(pairs) => pairs.clone(),
            Given::Untyped(text) if text.is_empty() => Vec::new(),
            Given::Untyped(text) => {
                let pair = |pair: &str| {
                    let (name, value) = pair.split_once(':')?;
                    Some((name.trim().to_owned(), Given::Text(value.trim().to_owned())))
                };
                text.split(',').map(pair).collect::<Option<_>>().ok_or("a header has no colon")?
            }
            _ => return Err(format!("{given} is not a table")),
        };
        let header = |(name, value): (String, Given)| {
            let Some(text) = value.text() else { return Err(format!("the value of {name:?} is not a text")) };
            if text == MASK {
                return Err(format!("the value of {name:?} is the mask of a printed configuration"));
            }
            let valid = HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(text).is_ok();
            let taken = ["content-type", "content-length", "host", "transfer-encoding", "connection"];
            let reserved = taken.contains(&&*name.to_lowercase())
                || ["x-pusher-", "x-fanfare-"].iter().any(|own| name.to_lowercase().starts_with(own));
            match (valid, reserved) {
                (true, false) => Ok((name, Secret::new(text))),
                (true, true) => Err(format!("{name:?} is set by Fanfare itself")),
                (false, _) => Err(format!("{name:?} or its value cannot stand in a header")),
            }
        };
        pairs.into_iter().map(header).collect()
    };
    let expected = "headers such as { \"X-Tenant\" = \"a\" }, in the environment X-Tenant: a, X-Other: b";
    // What is printed never shows the values; the writer knows.
    Rule::new(expected, read, |_| "{}".to_owned())
}

/// One of two close codes.
pub(super) fn close_code(codes: [u16; 2]) -> Rule<u16> {
    let expected = format!("{} or {}", codes[0], codes[1]);
    Rule::new(expected, move |given| integer(given, |code| codes.contains(code)), ToString::to_string)
}

/// The number types of the configuration.
pub(super) trait Integer: TryFrom<i128> + PartialOrd + Display + Copy + 'static {}
impl<T: TryFrom<i128> + PartialOrd + Display + Copy + 'static> Integer for T {}

fn integer<T: Integer>(given: &Given, allowed: impl Fn(&T) -> bool) -> Result<T, String> {
    let number = given.integer().ok_or_else(|| format!("{given} is not an integer"))?;
    T::try_from(number).ok().filter(allowed).ok_or_else(|| format!("{number} is out of range"))
}

/// A number of bytes in `range`.
pub(super) fn bytes(range: RangeInclusive<usize>) -> Rule<usize> {
    let (min, max) = (show_bytes(range.start()), show_bytes(range.end()));
    let expected = format!("a number of bytes from {min} to {max}");
    let read = move |given: &Given| {
        let number = given.integer().or_else(|| given.text().and_then(parse_bytes));
        let number = number.ok_or_else(|| format!("{given} is not a number of bytes"))?;
        let number = usize::try_from(number).ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("{given} is out of range"))
    };
    Rule::new(expected, read, show_bytes)
}

/// The units of sizes. `kB` is left out: some read it as 1000 bytes, some as 1024.
const SIZES: [(&str, i128); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse_bytes(text: &str) -> Option<i128> {
    let (number, factor) = number_and_unit(text, &SIZES)?;
    number.checked_mul(factor)
}

fn show_bytes(bytes: &usize) -> String {
    let bytes = *bytes as i128;
    match SIZES.iter().find(|(unit, size)| *unit != "B" && bytes != 0 && bytes % size == 0) {
        Some((unit, size)) => format!("\"{} {unit}\"", bytes / size),
        None => bytes.to_string(),
    }
}

/// A length of time in `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> Rule<Duration> {
    let (min, max) = (show_duration(range.start()), show_duration(range.end()));
    let expected = format!("a duration from {min} to {max}");
    let read = move |given: &Given| {
        let time = match given.integer() {
            Some(0) => Some(Duration::ZERO),
            Some(_) => return Err(format!("{given} has no unit")),
            None => given.text().and_then(parse_duration),
        };
        let time = time.ok_or_else(|| format!("{given} is not a duration"))?;
        if range.contains(&time) { Ok(time) } else { Err(format!("{given} is out of range")) }
    };
    Rule::new(expected, read, show_duration)
}

/// The units of durations, in milliseconds.
const TIMES: [(&str, i128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, factor) = number_and_unit(text, &TIMES)?;
    Some(Duration::from_millis(number.checked_mul(factor)?.try_into().ok()?))
}

fn show_duration(time: &Duration) -> String {
    let milliseconds = i128::try_from(time.as_millis()).unwrap_or(i128::MAX);
    let unit = if milliseconds == 0 {
        &TIMES[2]
    } else {
        TIMES.iter().find(|(_, size)| milliseconds % size == 0).unwrap_or(&TIMES[3])
    };
    format!("\"{}{}\"", milliseconds / unit.1, unit.0)
}

/// "64 KiB" is 64 and the factor of KiB.
fn number_and_unit(text: &str, units: &[(&str, i128)]) -> Option<(i128, i128)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    Some((number.parse().ok()?, factor))
}

/// Where to listen.
pub(super) fn address() -> Rule<SocketAddr> {
    let read = |given: &Given| {
        let address = given.text().and_then(|text| text.parse().ok());
        address.ok_or_else(|| format!("{given} is not an address"))
    };
    Rule::new(
        "host:port with an IP address as host, such as 0.0.0.0:6001 or [::]:6001",
        read,
        |address: &SocketAddr| quote(&address.to_string()),
    )
}

/// The path of a file that can be opened.
pub(super) fn readable_file() -> Rule<PathBuf> {
    let read = |given: &Given| {
        let path = given.text().ok_or_else(|| format!("{given} is not a path"))?;
        // A directory opens well enough on Unix; it is reading it that fails.
        let opened = File::open(path).and_then(|file| file.metadata());
        match opened {
            Ok(metadata) if metadata.is_file() => Ok(PathBuf::from(path)),
            Ok(_) => Err(format!("{given} is not a file")),
            Err(error) => Err(format!("{given} cannot be read: {error}")),
        }
    };
    let rule = Rule::new("the path of a readable PEM file", read, |path: &PathBuf| quote(&path.to_string_lossy()));
    Rule { names_a_file: true, ..rule }
}

/// The path of a file that can be opened, or none.
pub(super) fn optional_file() -> Rule<Option<PathBuf>> {
    let Rule { read, write, .. } = readable_file();
    let read = move |given: &Given| match given.text() {
        Some("") => Ok(None),
        _ => read(given).map(Some),
    };
    let write = move |path: &Option<PathBuf>| path.as_ref().map_or_else(|| quote(""), &*write);
    Rule { names_a_file: true, ..Rule::new("the path of a readable PEM file, or nothing", read, write) }
}

/// One of a few words.
pub(super) fn choice<T: Copy + 'static>(
    noun: &'static str,
    words: [(&'static str, T); 2],
    write: fn(&T) -> String,
) -> Rule<T> {
    let read = move |given: &Given| {
        let chosen = words.iter().find(|(word, _)| given.text() == Some(word));
        chosen.map(|(_, value)| *value).ok_or_else(|| format!("{given} is not {noun}"))
    };
    Rule::new(format!("{:?} or {:?}", words[0].0, words[1].0), read, write)
}

/// An app id or an app key: they stand in URLs.
pub(super) fn identifier(noun: &'static str) -> Rule<String> {
    text(noun, "letters, digits, `_` and `-`", |text| !text.is_empty() && text.chars().all(is_word))
}

/// What is logged. A lone word that is no level would be a target whose every line is logged, and never what was meant.
pub(super) fn log_level() -> Rule<String> {
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
pub(super) fn path_prefix() -> Rule<String> {
    text(
        "a path prefix",
        "nothing, or a path such as \"/realtime\" that starts with `/` and does not end with it",
        |text| {
            let segments = |path: &str| {
                path.split('/').all(|s| !s.is_empty() && s.chars().all(|c| is_word(c) || "~.".contains(c)))
            };
            text.is_empty() || text.strip_prefix('/').is_some_and(segments)
        },
    )
}

fn text(noun: &'static str, expected: &str, allowed: impl Fn(&str) -> bool + 'static) -> Rule<String> {
    let read = move |given: &Given| {
        let text = given.text().filter(|text| allowed(text)).map(str::to_owned);
        text.ok_or_else(|| format!("{given} is not {noun}"))
    };
    Rule::new(expected, read, |text| quote(text))
}

/// Patterns of origins.
pub(super) fn origins() -> Rule<Vec<String>> {
    let expected = "origins such as \"https://*.example.com\" or \"http://localhost:*\", hosts such as \"example.com\", or \"*\" for any";
    texts("an origin", expected, is_origin_pattern)
}

/// The entries of a list, which the environment and the command line separate by commas.
fn items(given: &Given) -> Result<Cow<'_, [Given]>, String> {
    match given {
        Given::List(items) => Ok(Cow::Borrowed(items)),
        Given::Untyped(text) if text.is_empty() => Ok(Cow::Borrowed(&[])),
        Given::Untyped(text) => Ok(text.split(',').map(|item| Given::Text(item.trim().to_owned())).collect()),
        _ => Err(format!("{given} is not a list")),
    }
}

/// A TOML array.
fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn is_origin_pattern(text: &str) -> bool {
    let is_name = |host: &str| !host.is_empty() && host.chars().all(|c| is_word(c) || ".*".contains(c));
    let Some((scheme, authority)) = text.split_once("://") else { return is_name(text) };
    // The colons of an IPv6 address stand in brackets, so only one after them leads to a port.
    let colon = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[colon..].rfind(':') {
        Some(at) => (&authority[..colon + at], &authority[colon + at + 1..]),
        None => (authority, "*"),
    };
    let is_host = |host: &str| match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.*".contains(c));
    is_scheme && is_host(host) && (port == "*" || port.parse::<u16>().is_ok())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// A TOML string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)).expect("a String takes all"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn durations_and_sizes_are_read_and_written_with_their_unit() {
        let any_time = duration(Duration::ZERO..=Duration::MAX);
        let times =
            [("500ms", 500), ("120s", 120_000), ("30m", 1_800_000), ("24h", 86_400_000), ("0", 0), ("5 s", 5000)];
        for (given, milliseconds) in times {
            let untyped = Given::Untyped(given.to_owned());
            assert_eq!((any_time.read)(&untyped), Ok(Duration::from_millis(milliseconds)), "{given}");
        }
        for (milliseconds, shown) in [(0, "0s"), (1500, "1500ms"), (90_000, "90s"), (120_000, "2m"), (7_200_000, "2h")]
        {
            assert_eq!((any_time.write)(&Duration::from_millis(milliseconds)), format!("{shown:?}"));
        }
        let any_size = bytes(0..=usize::MAX);
        for (given, bytes) in [("10 KiB", 10_240), ("1MiB", 1 << 20), ("7 B", 7), ("2 GiB", 2 << 30)] {
            assert_eq!((any_size.read)(&text(given)), Ok(bytes), "{given}");
        }
        for (bytes, shown) in [(0, "0"), (1000, "1000"), (10_240, "\"10 KiB\""), (3 << 20, "\"3 MiB\"")] {
            assert_eq!((any_size.write)(&bytes), shown);
        }
    }

    #[test]
    fn durations_and_sizes_that_could_mean_two_things_are_refused() {
        let any_time = duration(Duration::ZERO..=Duration::MAX);
        for given in ["", "s", "-5s", "1.5s", "5S", "5 sec", "1h30m", "99999999999999999999999999999999999999999h"] {
            assert!((any_time.read)(&text(given)).is_err(), "{given}");
        }
        assert_eq!((any_time.read)(&Given::Integer(120)), Err("120 has no unit".to_owned()));
        assert_eq!((any_time.read)(&Given::Untyped("120".to_owned())), Err("\"120\" has no unit".to_owned()));
        for given in ["", "KiB", "10 kB", "10 MB", "10K", "1.5 MiB", "-1 B"] {
            assert!((bytes(0..=usize::MAX).read)(&text(given)).is_err(), "{given}");
        }
    }

    #[test]
    fn origin_patterns_look_like_origins() {
        let good = [
            "*",
            "https://example.com",
            "https://*.example.com",
            "http://localhost:3000",
            "http://localhost:*",
            "*://example.com",
            "https://*",
            "http://[::1]:8080",
            "http://[::1]",
            "capacitor://localhost",
            "example.com",
            "*.example.com",
        ];
        for pattern in good {
            assert!(is_origin_pattern(pattern), "{pattern}");
        }
        let bad = [
            "",
            "example.com:443",
            "example.com/",
            "https://",
            "://example.com",
            "https://example.com/",
            "https://example.com/chat",
            "https://example.com:",
            "https://example.com:99999",
            "https://user@example.com",
            "https://a b",
            "http://[::1",
            "http://[x]",
        ];
        for pattern in bad {
            assert!(!is_origin_pattern(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_misspelt_log_level_is_no_target() {
        for level in ["info", "off", "debug,hyper=warn", "warn,fanfare::session=trace", "fanfare[session]=debug"] {
            assert!((log_level().read)(&text(level)).is_ok(), "{level}");
        }
        for level in ["", "inof", "fanfare", "info,", "fanfare=loud"] {
            assert!((log_level().read)(&text(level)).is_err(), "{level}");
        }
    }

    #[test]
    fn a_path_prefix_starts_with_a_slash_and_does_not_end_with_one() {
        for prefix in ["", "/realtime", "/a/b-c_d.e~f"] {
            assert!((path_prefix().read)(&text(prefix)).is_ok(), "{prefix}");
        }
        for prefix in ["/", "realtime", "/realtime/", "//", "/a//b", "/a b", "/a?b", "/a#b", "/a%20b"] {
            assert!((path_prefix().read)(&text(prefix)).is_err(), "{prefix}");
        }
    }

    #[test]
    fn quoted_text_is_a_toml_string_of_the_same_text() {
        let awkward = "a\"b\\c\nd\u{1}e\u{7f}é";
        let document = format!("x = {}", quote(awkward));
        let table = toml::de::DeTable::parse(&document).unwrap();
        assert_eq!(table.get_ref()["x"].get_ref().as_str(), Some(awkward));
    }
}
