//! Protocol §7.6, and the tests of the SockJS protocol 0.3.3: what SockJS clients ask for before they have a session.

use serde_json::{Value, json};

use crate::support::{Http, Response, TestServer, Wire};

const SCRIPT: &str = "https://cdn.example.com/sockjs-0.3.4.min.js";

async fn get(server: &TestServer, path: &str, headers: &str) -> Response {
    ask(server, "GET", path, headers).await
}

async fn ask(server: &TestServer, method: &str, path: &str, headers: &str) -> Response {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    Http::new(Wire::connect(server.addr).await).send(request.as_bytes()).await
}

/// The content type without spaces.
fn kind(response: &Response) -> String {
    response.header("content-type").unwrap_or_default().replace(' ', "")
}

fn assert_not_cached(response: &Response) {
    let cache = response.header("cache-control").unwrap_or_default();
    for word in ["no-store", "no-cache", "must-revalidate", "max-age=0"] {
        assert!(cache.contains(word), "{}", response.head);
    }
    assert_eq!(response.header("expires"), None, "{}", response.head);
    assert_eq!(response.header("last-modified"), None, "{}", response.head);
}

fn assert_cached(response: &Response) {
    let cache = response.header("cache-control").unwrap_or_default();
    let age = cache.split("max-age=").nth(1).and_then(|age| age.parse::<u64>().ok());
    assert!(cache.contains("public") && age.is_some_and(|age| age >= 1_000_000), "{}", response.head);
    assert!(response.header("expires").is_some(), "{}", response.head);
}

/// Requests of SockJS come with credentials: the origin has to be named, if there is one.
fn assert_readable(response: &Response, origin: Option<&str>) {
    let named = origin.filter(|origin| *origin != "null").unwrap_or("*");
    assert_eq!(response.header("access-control-allow-origin"), Some(named), "{}", response.head);
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"), "{}", response.head);
}

fn origin_header(origin: Option<&str>) -> String {
    origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default()
}

#[tokio::test]
async fn who_asks_what_this_is_is_greeted() {
    let server = TestServer::start().await;
    for path in ["/pusher", "/pusher/"] {
        let response = get(&server, path, "").await;
        assert_eq!((response.status, response.body.as_str()), (200, "Welcome to SockJS!\n"), "{}", response.head);
        assert_eq!(kind(&response), "text/plain;charset=UTF-8");
        assert_eq!(response.header("set-cookie"), None);
    }
}

#[tokio::test]
async fn the_greeting_is_understood_by_http_1_0_and_keeps_a_connection_of_1_1() {
    let server = TestServer::start().await;
    let request = b"GET /pusher HTTP/1.0\r\nHost: test\r\nConnection: Keep-Alive\r\n\r\n";
    let response = Http::new(Wire::connect(server.addr).await).send(request).await;
    assert_eq!((response.status, response.body.as_str()), (200, "Welcome to SockJS!\n"));
    assert_eq!(response.header("transfer-encoding"), None, "{}", response.head);
    let mut http = Http::new(Wire::connect(server.addr).await);
    for _ in 0..3 {
        assert_eq!(http.get("/pusher").await.body, "Welcome to SockJS!\n");
    }
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let server = TestServer::start().await;
    for suffix in ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/info/", "/a/a/a/a", "/a/a/xhr/"] {
        assert_eq!(get(&server, &format!("/pusher{suffix}"), "").await.status, 404, "{suffix}");
    }
    for suffix in ["//", "/a./a", "/a/a.", "/./.", "/", "///", "/a.b/c", "/a/b.c"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let path = format!("/pusher{suffix}/xhr");
            let response = ask(&server, method, &path, "Content-Length: 0\r\n").await;
            assert_eq!(response.status, 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_client_is_told_what_there_is_and_something_random() {
    let server = TestServer::start().await;
    let mut numbers = std::collections::HashSet::new();
    for origin in [None, Some("https://app.example.com"), Some("null")] {
        let response = get(&server, "/pusher/info", &origin_header(origin)).await;
        assert_eq!(response.status, 200);
        assert_eq!(kind(&response), "application/json;charset=UTF-8");
        assert_not_cached(&response);
        assert_readable(&response, origin);
        assert_eq!(response.header("set-cookie"), None);
        let info: Value = serde_json::from_str(&response.body).unwrap();
        assert!(info["websocket"].is_boolean(), "{info}");
        assert_eq!(info["origins"], json!(["*:*"]));
        assert_eq!(info["cookie_needed"], false);
        let entropy = info["entropy"].as_u64().unwrap_or_else(|| panic!("{info}"));
        assert!(u32::try_from(entropy).is_ok(), "{info}");
        assert!(numbers.insert(entropy), "{entropy} twice");
    }
}

#[tokio::test]
async fn a_browser_may_remember_what_it_may_ask() {
    let server = TestServer::start().await;
    let rows = [
        ("info", "GET"),
        ("abc/abc/xhr", "POST"),
        ("abc/abc/xhr_send", "POST"),
        ("abc/abc/xhr_streaming", "POST"),
        ("abc/abc/jsonp_send", "POST"),
        ("abc/abc/eventsource", "GET"),
    ];
    for (path, method) in rows {
        for origin in [None, Some("https://app.example.com"), Some("null")] {
            let headers = origin_header(origin) + "Access-Control-Request-Headers: a, b, c\r\n";
            let response = ask(&server, "OPTIONS", &format!("/pusher/{path}"), &headers).await;
            assert_eq!((response.status, response.body.as_str()), (204, ""), "{path}: {}", response.head);
            assert_cached(&response);
            assert_readable(&response, origin);
            let age: u64 = response.header("access-control-max-age").unwrap().parse().unwrap();
            assert!(age > 1_000_000, "{age}");
            let methods = response.header("access-control-allow-methods").unwrap_or_default();
            assert!(methods.contains("OPTIONS") && methods.contains(method), "{path}: {methods}");
            assert_eq!(response.header("access-control-allow-headers"), Some("a, b, c"));
        }
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_there_are() {
    let server = TestServer::start().await;
    let rows = [
        ("/pusher/info", "POST", "GET"),
        ("/pusher", "POST", "GET"),
        ("/pusher/a/a/xhr", "GET", "POST"),
        ("/pusher/a/a/xhr_streaming", "GET", "POST"),
        ("/pusher/a/a/xhr_send", "GET", "POST"),
        ("/pusher/a/a/jsonp_send", "GET", "POST"),
        ("/pusher/a/a/eventsource", "POST", "GET"),
        ("/pusher/a/a/jsonp?c=x", "POST", "GET"),
        ("/pusher/a/a/htmlfile?c=x", "POST", "GET"),
    ];
    for (path, method, allowed) in rows {
        let response = ask(&server, method, path, "Content-Length: 0\r\n").await;
        assert_eq!((response.status, response.body.as_str()), (405, ""), "{method} {path}: {}", response.head);
        assert_eq!(response.header("content-type"), None, "{path}: {}", response.head);
        assert!(response.header("allow").is_some_and(|allow| allow.contains(allowed)), "{path}: {}", response.head);
    }
}

async fn with_scripts(scripts: &[&str]) -> TestServer {
    let scripts: Vec<_> = scripts.iter().map(|&script| script.to_owned()).collect();
    TestServer::with(|config| config.fallbacks.client_scripts = scripts).await
}

/// The page for iframes, after checking what holds for all of them.
async fn page(server: &TestServer, path: &str, script: &str) -> Response {
    let response = get(server, &format!("/pusher/{path}"), "").await;
    assert_eq!(response.status, 200, "{path}: {}\n\n{}", response.head, response.body);
    assert_eq!(kind(&response), "text/html;charset=UTF-8");
    assert_cached(&response);
    assert!(response.header("etag").is_some(), "{}", response.head);
    assert_eq!(response.header("last-modified"), None, "{}", response.head);
    assert_eq!(response.header("set-cookie"), None, "{}", response.head);
    let body = &response.body;
    assert!(body.to_lowercase().starts_with("<!doctype html>"), "{body}");
    assert_eq!(body.matches(&format!("<script src=\"{script}\"></script>")).count(), 1, "{body}");
    assert!(body.contains("SockJS.bootstrap_iframe()") && body.contains("document.domain = document.domain"), "{body}");
    response
}

#[tokio::test]
async fn the_page_for_iframes_loads_the_configured_client_whatever_its_version() {
    let server = with_scripts(&["https://js.pusher.com/*", SCRIPT, "https://other.example.com/sockjs.js"]).await;
    for path in [
        "iframe.html",
        "iframe-a.html",
        "iframe-.html",
        "iframe-0.1.2.html",
        "iframe-0.1.2abc-dirty.2144.html",
        "iframe-a.html?t=1234",
        "iframe-0.1.2abc-dirty.2144.html?t=qweqweq123",
    ] {
        page(&server, path, SCRIPT).await;
    }
    let wrong = ["iframe.htm", "iframe", "IFRAME.HTML", "IFRAME", "iframe.HTML", "iframe.xml", "iframe-/.html"];
    for path in wrong {
        assert_eq!(get(&server, &format!("/pusher/{path}"), "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_page_for_iframes_is_asked_for_once() {
    let server = with_scripts(&[SCRIPT]).await;
    let first = page(&server, "iframe.html", SCRIPT).await;
    let second = page(&server, "iframe-2.html", SCRIPT).await;
    let tag = first.header("etag").unwrap();
    assert_eq!(second.header("etag"), Some(tag));
    let known = get(&server, "/pusher/iframe.html", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((known.status, known.body.as_str()), (304, ""), "{}", known.head);
    assert_eq!(known.header("content-type"), None, "{}", known.head);
    let other = get(&server, "/pusher/iframe.html", "If-None-Match: \"x\"\r\n").await;
    assert_eq!(other.status, 200, "{}", other.head);
}

#[tokio::test]
async fn one_tag_of_several_is_enough() {
    let server = with_scripts(&[SCRIPT]).await;
    let first = page(&server, "iframe.html", SCRIPT).await;
    let tag = first.header("etag").unwrap();
    // What a proxy that compresses makes of it is among them.
    for tags in [format!("\"x\", {tag}"), format!("W/{tag}"), "*".to_owned()] {
        let known = get(&server, "/pusher/iframe.html", &format!("If-None-Match: {tags}\r\n")).await;
        assert_eq!((known.status, known.body.as_str()), (304, ""), "{tags}: {}", known.head);
    }
}

#[tokio::test]
async fn the_page_for_iframes_loads_no_script_that_is_not_listed() {
    let server = TestServer::start().await;
    let encoded =
        |url: &str| percent_encoding::utf8_percent_encode(url, percent_encoding::NON_ALPHANUMERIC).to_string();
    for url in ["https://js.pusher.com/8.6/sockjs.min.js", "http://js.pusher.com/8.6.0/sockjs.js"] {
        let one = page(&server, &format!("iframe-8.6.html?js_path={}", encoded(url)), url).await;
        let two = page(&server, &format!("iframe-8.6.html?t=1&js_path={}", encoded(url)), url).await;
        assert_eq!(one.header("etag"), two.header("etag"));
    }
    let strangers = [
        "https://evil.example.com/sockjs.min.js",
        "https://js.pusher.com.evil.example.com/sockjs.min.js",
        "https://js.pusher.com@evil.example.com/sockjs.min.js",
        "https://js.pusher.com:8443/sockjs.min.js",
        "ftp://js.pusher.com/sockjs.min.js",
        "//js.pusher.com/sockjs.min.js",
        "javascript:alert(1)//https://js.pusher.com/",
        "data:text/javascript,alert(1)",
        "https://js.pusher.com/\"></script><script>alert(1)</script>",
        "https://js.pusher.com/x\" onload=\"alert(1)",
        "https://js.pusher.com/x\nhttps://evil.example.com",
        "/sockjs.min.js",
        "",
    ];
    for url in strangers {
        let response = get(&server, &format!("/pusher/iframe.html?js_path={}", encoded(url)), "").await;
        assert_eq!(response.status, 404, "{url}: {}", response.body);
        assert!(!response.body.contains("<script"), "{}", response.body);
    }
    // Nothing is said about which of them it would be.
    assert_eq!(get(&server, "/pusher/iframe.html", "").await.status, 404);
}
