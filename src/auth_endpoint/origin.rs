//! Pages of which origins may ask, and whose cookies count. A browser attaches cookies to whatever request a page makes,
//! also a stranger's: they say who the user is, and nothing about who asks in the user's name.

use hyper::HeaderMap;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderValue, ORIGIN,
    REFERER, VARY,
};

use crate::config::origin_allowed;

/// Seconds for which a browser need not ask again.
const MAX_AGE: &str = "3600";

/// What a page of this origin may do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Access {
    /// No browser sent the request, or one that sees no other origin in it.
    Direct,
    /// Everybody may ask, and read the answer if the request has no cookies.
    Anybody,
    /// `allowed_origins` names this origin: it may ask with cookies, and read the answer.
    Listed(HeaderValue),
    /// It may not ask.
    Refused,
}

impl Access {
    /// What all these lists of `allowed_origins` together allow: those of one app, or of all that a request may be for.
    pub(super) fn of(headers: &HeaderMap, lists: &[&[String]]) -> Self {
        let Some(value) = headers.get(ORIGIN) else { return Self::Direct };
        let origin = value.to_str().unwrap_or_default();
        if lists.iter().any(|list| is_listed(list, origin)) {
            return Self::Listed(value.clone());
        }
        match lists.iter().any(|list| origin_allowed(list, Some(origin))) {
            true => Self::Anybody,
            false => Self::Refused,
        }
    }

    /// What lets the page read the answer.
    pub(super) fn allow(&self, headers: &mut HeaderMap) {
        match self {
            Self::Direct | Self::Refused => {}
            Self::Anybody => drop(headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))),
            Self::Listed(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }

    /// The answer to a browser that asks before it asks.
    pub(super) fn allow_request(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        self.allow(headers);
        if matches!(self, Self::Anybody | Self::Listed(_)) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
            let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
            headers.extend(wanted.map(|wanted| (ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone())));
        }
    }

    /// Whether cookies, and what else a browser adds by itself, say that the user wants this. They do if the origin is
    /// listed, or if the page comes from here itself.
    pub(super) fn counts_cookies(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Listed(_) => true,
            Self::Refused => false,
            Self::Direct | Self::Anybody => match headers.get("sec-fetch-site") {
                Some(site) => site == "same-origin" || site == "none",
                None => headers.get(ORIGIN).is_none_or(|origin| is_own(origin, headers)),
            },
        }
    }
}

/// The same for a script, which is loaded without an `Origin`, by any page, and is readable for it: only the `Referer` says
/// for which. Without one, nothing that a browser adds by itself counts.
pub(super) fn of_script(headers: &HeaderMap, list: &[String]) -> (Access, bool) {
    let Some(origin) = headers.get(REFERER).and_then(|referer| origin(referer.to_str().ok()?)) else {
        return (Access::Direct, false);
    };
    let listed = is_listed(list, origin);
    let access = if origin_allowed(list, Some(origin)) { Access::Direct } else { Access::Refused };
    (access, listed)
}

/// Whether the list names this origin. A pattern for everybody, such as `*`, names nobody: with it, every page on the
/// internet could ask in the name of the user that looks at it.
fn is_listed(list: &[String], origin: &str) -> bool {
    let names = |pattern: &String| {
        let authority = pattern.split_once("://").map_or(pattern.as_str(), |(_, authority)| authority);
        let port = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        authority[..port.unwrap_or(authority.len())].contains(|c: char| c.is_ascii_alphanumeric())
    };
    list.iter().any(|pattern| names(pattern) && origin_allowed(std::slice::from_ref(pattern), Some(origin)))
}

/// The origin in a URL: scheme and authority.
fn origin(url: &str) -> Option<&str> {
    let host = url.find("://")? + 3;
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    Some(&url[..end])
}

/// Whether the origin is the host that was asked.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    host.is_some() && headers.get(HOST).and_then(|host| host.to_str().ok()) == host
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    #[test]
    fn an_origin_is_listed_by_a_pattern_that_does_not_let_everybody_in() {
        let table = [
            (&["https://a.example"][..], "https://a.example", true),
            (&["https://*.example"], "https://a.example", true),
            (&["a.example"], "https://a.example:8443", true),
            (&["https://a.example"], "https://b.example", false),
            (&["https://a.example"], "null", false),
            (&["*"], "https://a.example", false),
            (&["*"], "null", false),
            (&["https://*"], "https://a.example", false),
            (&["*://*"], "https://a.example", false),
            (&["https://*:8443"], "https://a.example:8443", false),
            (&["http://[::1]"], "http://[::1]", true),
            (&["http://localhost:*"], "http://localhost:3000", true),
            (&["*", "https://a.example"], "https://a.example", true),
            (&[], "https://a.example", false),
        ];
        for (patterns, origin, expected) in table {
            assert_eq!(is_listed(&list(patterns), origin), expected, "{patterns:?} {origin}");
        }
    }

    #[test]
    fn cookies_count_for_listed_origins_and_for_our_own() {
        let listed = list(&["https://a.example"]);
        let table = [
            // Listed.
            (&listed, &[("origin", "https://a.example"), ("sec-fetch-site", "cross-site")][..], true),
            (&listed, &[("origin", "https://b.example")], false),
            // No browser.
            (&listed, &[], true),
            (&listed, &[("sec-fetch-site", "cross-site")], false),
            // Nobody is listed.
            (&list(&[]), &[("origin", "https://a.example")], false),
            (&list(&[]), &[("origin", "https://a.example"), ("sec-fetch-site", "same-site")], false),
            (&list(&[]), &[("origin", "https://a.example"), ("sec-fetch-site", "same-origin")], true),
            (&list(&[]), &[("origin", "https://a.example"), ("host", "a.example")], true),
            (&list(&[]), &[("origin", "https://a.example"), ("host", "b.example")], false),
            (&list(&["*"]), &[("origin", "https://a.example"), ("sec-fetch-site", "cross-site")], false),
        ];
        for (list, pairs, expected) in table {
            let headers = headers(pairs);
            let access = Access::of(&headers, &[list]);
            assert_eq!(access.counts_cookies(&headers), expected, "{list:?} {pairs:?}");
        }
    }

    #[test]
    fn a_script_is_trusted_by_the_page_that_loads_it() {
        let listed = list(&["https://a.example"]);
        let table = [
            (&listed, &[("referer", "https://a.example/page?x=1")][..], (Access::Direct, true)),
            (&listed, &[("referer", "https://a.example")], (Access::Direct, true)),
            (&listed, &[("referer", "https://a.example.evil/")], (Access::Refused, false)),
            (&listed, &[("referer", "https://evil/https://a.example/")], (Access::Refused, false)),
            (&listed, &[], (Access::Direct, false)),
            (&list(&[]), &[("referer", "https://a.example/")], (Access::Direct, false)),
            (&list(&["*"]), &[("referer", "https://a.example/")], (Access::Direct, false)),
        ];
        for (list, pairs, expected) in table {
            assert_eq!(of_script(&headers(pairs), list), expected, "{list:?} {pairs:?}");
        }
    }
}
