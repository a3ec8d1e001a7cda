//! Protocol §7.7: statistics are taken, and thrown away.

use crate::support::TestServer;

const QUERY: &str = "session=MTIz&bundle=MQ%3D%3D&key=ImFwcC1rZXktMSI%3D&lib=ImpzIg%3D%3D&version=IjguNi4wIg%3D%3D";

#[tokio::test]
async fn a_script_calls_back_the_receiver_that_asked() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    for number in ["1", "3", "1234567"] {
        let response = http.get(&format!("/timeline/v2/jsonp/{number}?{QUERY}")).await;
        assert_eq!(response.status, 200, "{}", response.head);
        assert_eq!(response.body.trim_end(), format!("Pusher.ScriptReceivers[{number}](null,{{}});"));
        let kind = response.header("content-type").unwrap();
        assert!(kind.starts_with("application/javascript") || kind.starts_with("text/javascript"), "{kind}");
        let cached = response.header("cache-control").unwrap_or_default();
        assert!(cached.contains("no-store"), "{}", response.head);
    }
}

#[tokio::test]
async fn whoever_reads_the_answer_itself_gets_an_empty_object() {
    let server = TestServer::start().await;
    let response = server.http().await.get(&format!("/timeline/v2/xhr/2?{QUERY}")).await;
    assert_eq!((response.status, response.body.trim_end()), (200, "{}"), "{}", response.head);
    assert!(response.header("content-type").unwrap().starts_with("application/json"), "{}", response.head);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{}", response.head);
}

#[tokio::test]
async fn nobody_has_a_script_of_their_own_made_here() {
    let server = TestServer::start().await;
    let mut http = server.http().await;
    for path in
        ["jsonp/alert(1)", "jsonp/1](x);evil[", "jsonp/", "jsonp/-1", "jsonp/x", "jsonp", "jsonp/1/2", "other/1"]
    {
        let response = http.get(&format!("/timeline/v2/{path}?{QUERY}")).await;
        assert_eq!(response.status, 404, "{path}: {}", response.body);
    }
}
