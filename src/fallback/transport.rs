//! The ways of receiving: what an answer looks like, and the packets in it (§7.3, §7.6).

use super::packet::{quote, units};

/// Bytes that make proxies and browsers pass on what follows at once.
const PRELUDE: usize = 2048;

/// UTF-16 units of one response after which pusher-js gives it up and asks for the next (§7.4).
const PUSHER_LIMIT: usize = 262_144;

/// Bytes of one response after which SockJS ends it, so that the browser need not keep more.
const SOCKJS_LIMIT: usize = 128 * 1024;

/// Bytes of a page for Internet Explorer to look at it before all is there.
const HTML_PADDING: usize = 1024;

/// A way of receiving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// One response without end, a packet in each line.
    XhrStreaming,
    /// A response for each packet; pusher-js takes several at once.
    Xhr,
    /// Server-sent events.
    EventSource,
    /// A page in an iframe, with a script for each packet, which calls this function.
    HtmlFile(String),
    /// A script for each packet, which calls this function.
    Jsonp(String),
}

impl Transport {
    /// Its name, as in URLs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::XhrStreaming => "xhr_streaming",
            Self::Xhr => "xhr",
            Self::EventSource => "eventsource",
            Self::HtmlFile(_) => "htmlfile",
            Self::Jsonp(_) => "jsonp",
        }
    }

    /// Whether one response goes on and on.
    pub(super) fn is_streaming(&self) -> bool {
        !matches!(self, Self::Xhr | Self::Jsonp(_))
    }

    /// The media type of a response.
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::XhrStreaming | Self::Xhr | Self::Jsonp(_) => "application/javascript; charset=UTF-8",
            Self::EventSource => "text/event-stream; charset=UTF-8",
            Self::HtmlFile(_) => "text/html; charset=UTF-8",
        }
    }

    /// What stands before the first packet.
    pub(super) fn prelude(&self) -> Vec<u8> {
        match self {
            Self::XhrStreaming => {
                let mut prelude = vec![b'h'; PRELUDE];
                prelude.push(b'\n');
                prelude
            }
            Self::EventSource => b"\r\n".to_vec(),
            Self::HtmlFile(callback) => page(callback).into_bytes(),
            Self::Xhr | Self::Jsonp(_) => Vec::new(),
        }
    }

    /// Appends a packet as this transport has it.
    pub(super) fn write(&self, response: &mut Vec<u8>, packet: &[u8]) {
        match self {
            Self::XhrStreaming | Self::Xhr => {
                response.extend_from_slice(packet);
                response.push(b'\n');
            }
            Self::EventSource => {
                response.extend_from_slice(b"data: ");
                for byte in packet {
                    // Line ends cannot be in a packet: it is JSON.
                    match byte {
                        b'%' => response.extend_from_slice(b"%25"),
                        byte => response.push(*byte),
                    }
                }
                response.extend_from_slice(b"\r\n\r\n");
            }
            Self::HtmlFile(_) => {
                response.extend_from_slice(b"<script>\np(");
                script_string(response, packet);
                response.extend_from_slice(b");\n</script>\r\n");
            }
            Self::Jsonp(callback) => {
                response.extend_from_slice(format!("/**/{callback}(").as_bytes());
                script_string(response, packet);
                response.extend_from_slice(b");\r\n");
            }
        }
    }

    /// How much of a response counts, and how much may be there at most before nothing more is written into it. The client
    /// of pusher-js counts for itself, and what comes after that would be lost.
    pub(super) fn is_full(&self, is_pusher: bool, response: &mut usize, written: &[u8]) -> bool {
        *response += if is_pusher { units(written) } else { written.len() };
        *response > if is_pusher { PUSHER_LIMIT } else { SOCKJS_LIMIT }
    }
}

/// Bytes of a callback's name. SockJS makes up names of about ten.
const MAX_CALLBACK: usize = 64;

/// The name of a function that somebody else's page may have called: identifiers of plain JavaScript, joined by dots.
/// Nothing else can be called by its name, and some of it could be taken for code.
pub(super) fn is_callback(name: &str) -> bool {
    let begins = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$');
    let is_identifier = |name: &str| match name.as_bytes() {
        [first, rest @ ..] => begins(*first) && rest.iter().all(|byte| begins(*byte) || byte.is_ascii_digit()),
        [] => false,
    };
    name.len() <= MAX_CALLBACK && name.split('.').all(is_identifier)
}

/// A packet as a string in a script, in a page.
fn script_string(response: &mut Vec<u8>, packet: &[u8]) {
    let text = std::str::from_utf8(packet).expect("a packet is text");
    let begin = response.len();
    quote(response, text);
    // Nothing in a script may look like its end, nor like the beginning of a comment in which its end is not seen.
    if response[begin..].contains(&b'<') {
        let quoted = String::from_utf8_lossy(&response[begin..]).replace('<', "\\u003c");
        response.truncate(begin);
        response.extend_from_slice(quoted.as_bytes());
    }
}

/// The beginning of the page in the iframe.
fn page(callback: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html><head><meta charset=\"UTF-8\"><meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\">\
         <title>Fanfare</title></head><body>\n<script>\ndocument.domain = document.domain;\nvar to = \
         parent.{callback};\nto.start();\nfunction p(packet) {{ to.message(packet); }}\nwindow.onload = to.stop;\n\
         </script>\n"
    );
    page.extend(std::iter::repeat_n(' ', HTML_PADDING.saturating_sub(page.len())));
    page.push_str("\r\n\r\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(transport: &Transport, packet: &[u8]) -> String {
        let mut response = Vec::new();
        transport.write(&mut response, packet);
        String::from_utf8(response).unwrap()
    }

    #[test]
    fn a_packet_looks_different_on_each_transport() {
        let packet = br#"a["100% </script>\\"]"#;
        let callback = || "_jp.a1".to_owned();
        let table = [
            (Transport::XhrStreaming, "a[\"100% </script>\\\\\"]\n"),
            (Transport::Xhr, "a[\"100% </script>\\\\\"]\n"),
            (Transport::EventSource, "data: a[\"100%25 </script>\\\\\"]\r\n\r\n"),
            (
                Transport::HtmlFile(callback()),
                "<script>\np(\"a[\\\"100% \\u003c/script>\\\\\\\\\\\"]\");\n</script>\r\n",
            ),
            (Transport::Jsonp(callback()), "/**/_jp.a1(\"a[\\\"100% \\u003c/script>\\\\\\\\\\\"]\");\r\n"),
        ];
        for (transport, expected) in table {
            assert_eq!(written(&transport, packet), expected, "{transport:?}");
        }
    }

    #[test]
    fn callbacks_are_names() {
        let longest = "a".repeat(MAX_CALLBACK);
        for name in ["_jp.a1", "cb", "$", "_", "a.$1._", &longest] {
            assert!(is_callback(name), "{name}");
        }
        let long = "a".repeat(MAX_CALLBACK + 1);
        for name in
            ["", ".", "a.", ".a", "a..b", "1a", "a.1", "a-b", "a b", "a(", "a[0]", "<script>", "ä", "a;b", "a\n", &long]
        {
            assert!(!is_callback(name), "{name}");
        }
    }

    #[test]
    fn pages_and_streams_begin_with_enough() {
        assert_eq!(Transport::XhrStreaming.prelude().len(), PRELUDE + 1);
        assert!(Transport::HtmlFile("c".to_owned()).prelude().len() > HTML_PADDING);
    }
}
