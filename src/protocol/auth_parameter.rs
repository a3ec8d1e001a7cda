//! The parameters of a request to the auth endpoint, and the names that others would take for them.
//!
//! Every framework has its own idea of what a parameter is called. PHP reads `channel.name`, `channel[name` and
//! ` channel_name` as `channel_name`, Rack and qs read `[channel_name]` so, all of them take `channel_name[x]` for a part of
//! it, old parsers split at `;`, and some binders ignore case. Two readers of one request who disagree about its channel
//! are a hole, so there is no list of tricks here: a name is reduced to its letters and digits, and is refused if a part of
//! it reads like one of ours then.

use percent_encoding::percent_decode_str;

/// The parameters that mean something to Fanfare itself.
pub const AUTH_PARAMETERS: [&str; 4] = ["socket_id", "channel_name", "app_key", "callback"];

/// Names with which a parser in JavaScript can be made to change all objects.
const PROTOTYPE: [&str; 3] = ["__proto__", "constructor", "prototype"];

/// How often a name is decoded. Nobody decodes more often by mistake.
const DECODINGS: usize = 4;

/// The name that some parser might take this one for: one of [`AUTH_PARAMETERS`], which look like themselves, or one that
/// JavaScript objects have.
pub fn reads_as(name: &str) -> Option<&'static str> {
    let name = decoded(name);
    let words = || name.split(|c: char| !is_in_word(c)).filter(|word| !word.is_empty());
    let prototype = PROTOTYPE.into_iter().find(|own| words().any(|word| word == *own));
    prototype.or_else(|| {
        // PHP joins words to one name, others take each for the name of something inside something.
        let words: Vec<String> = words().map(letters).filter(|word| !word.is_empty()).collect();
        AUTH_PARAMETERS.into_iter().find(|own| {
            let own = letters(own);
            (0..words.len()).any(|start| begins_with(&words[start..], &own))
        })
    })
}

/// Whether some of these words, from the first on, are the name together.
fn begins_with(words: &[String], name: &str) -> bool {
    let mut rest = name;
    for word in words {
        match rest.strip_prefix(word.as_str()) {
            Some("") => return true,
            Some(left) => rest = left,
            None => return false,
        }
    }
    false
}

/// The name as whoever decodes too often sees it, in small letters, with ASCII letters in place of those that look the same
/// or become the same when case is ignored.
fn decoded(name: &str) -> String {
    let mut name = name.to_owned();
    for _ in 0..DECODINGS {
        let decoded = percent_decode_str(&unescaped(&name)).decode_utf8_lossy().into_owned();
        if decoded == name {
            break;
        }
        name = decoded;
    }
    let ascii = name.chars().map(|c| match c {
        // Fullwidth forms.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        c => c,
    });
    ascii.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// With `%u005f`, which only IIS knows, as the character that it means.
fn unescaped(name: &str) -> String {
    let mut parts = name.split("%u");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        match code {
            Some(c) => text.extend([c].into_iter().chain(part[4..].chars())),
            None => text.extend(["%u", part]),
        }
    }
    text
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn letters(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_read_as_one_of_ours_is_recognized() {
        let spellings = [
            "channel_name",
            "channel.name",
            "channel name",
            "channel[name",
            "channel-name",
            "  channel_name",
            "\tchannel_name",
            "channel_name ",
            "channel_name\0",
            "channel_name\0junk",
            "channel\u{fffd}name",
            "[channel_name]",
            "[channel_name",
            "channel_name]",
            "[][channel_name]",
            "[[[channel_name]x",
            "channel_name[",
            "channel_name[]",
            "channel_name[x]",
            "channel_name[0][x]",
            "channel_name.x",
            "channel.name[x]",
            "a[channel_name]",
            "request.channel_name",
            "a;channel_name",
            "_channel_name",
            "!channel_name",
            "__channel__name__",
            "Channel_Name",
            "CHANNEL_NAME",
            "channelName",
            "channel%5Fname",
            "channel%255Fname",
            "channel%25255Fname",
            "channel%u005Fname",
            "channel_name%5B%5D",
            "%63hannel_name",
            "ｃhannel＿name",
            "\u{feff}channel_name",
            "channel\u{ad}_name",
        ];
        for spelling in spellings {
            assert_eq!(reads_as(spelling), Some("channel_name"), "{spelling:?}");
        }
        // What becomes an s, an i or a k when case is ignored.
        for (spelling, own) in [
            ("ſocket_id", "socket_id"),
            ("SOCKET.ID", "socket_id"),
            ("socket_ıd", "socket_id"),
            ("socket_İd", "socket_id"),
            ("soc\u{212a}et_id", "socket_id"),
            ("app.key", "app_key"),
            ("[callback]", "callback"),
            ("__proto__", "__proto__"),
            ("a[__proto__][b]", "__proto__"),
            ("constructor[prototype][x]", "constructor"),
        ] {
            assert_eq!(reads_as(spelling), Some(own), "{spelling:?}");
        }
    }

    #[test]
    fn the_names_of_others_are_left_alone() {
        let names = [
            "",
            "_",
            "%",
            "%u",
            "%uzzzz",
            "%u12é",
            "_token",
            "token",
            "user_id",
            "user[info][name]",
            "channel",
            "name",
            "channel_names",
            "channel_name_prefix",
            "my_channel_name",
            "socket",
            "id",
            "callback_url",
            "app_keys",
            "proto",
            "a b",
            "lang",
            "X-Tenant",
            "é",
        ];
        for name in names {
            assert_eq!(reads_as(name), None, "{name:?}");
        }
    }
}
