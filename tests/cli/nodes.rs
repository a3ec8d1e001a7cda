//! `fanfare nodes`: the nodes of a cluster, or that one is cut off from it. What answers is a stand-in for a server.

use crate::support::{Backend, Folder, Output, fanfare};

const TWO: &str = r#"{"cluster":"shop","driver":"redis","state":"connected","nodes":[
    {"name":"web-1","id":"web-1-4f2a91","this":true,"version":"0.1.0","age_seconds":7300,"connections":1203,
     "lag_ms":0.214,"seen_ms":400},
    {"name":"web-20","id":"web-20-aa01bc","this":false,"version":"0.2.0","age_seconds":42,"connections":7,
     "lag_ms":12.5,"seen_ms":1960}]}"#;

fn nodes(server: &Backend, args: &[&str]) -> Output {
    let url = format!("http://{}", server.address);
    let output = fanfare(&[&["nodes", "--url", &url], args].concat()).run();
    let request = server.request();
    assert!(request.head.starts_with("GET /nodes HTTP/1.1\r\n"), "{}", request.head);
    output
}

fn answering(answer: &'static str) -> Backend {
    Backend::start("127.0.0.1:0", "200 OK", answer)
}

#[test]
fn the_nodes_of_a_cluster_are_a_table_with_a_total() {
    let expected = "
   NAME    VERSION  AGE    CONNECTIONS  LAG       LAST SEEN
*  web-1   0.1.0    2h 1m  1203         0.21 ms   0.4 s ago
   web-20  0.2.0    42s    7            12.50 ms  2.0 s ago

2 nodes in cluster shop, connections: 1210
";
    let output = nodes(&answering(TWO), &[]);
    assert_eq!((output.succeeded(), output.stderr.as_str()), (&expected[1..], ""));
}

#[test]
fn nodes_of_the_same_name_are_told_apart_by_their_ids() {
    let answer = r#"{"cluster":"c","driver":"redis","state":"connected","nodes":[
        {"name":"a","id":"a-1","this":false},{"name":"b","id":"b-1","this":true},{"name":"a","id":"a-2","this":false}]}"#;
    let output = nodes(&answering(answer), &[]);
    let names: Vec<_> = output.succeeded().lines().skip(1).take(3).map(|line| line[..6].trim_end()).collect();
    assert_eq!(names, ["   a-1", "*  b", "   a-2"]);
}

#[test]
fn a_node_without_a_cluster_is_alone_in_the_table() {
    let answer = r#"{"driver":"single","state":"connected","nodes":[
        {"name":"web-1","id":"web-1-4f2a91","this":true,"version":"0.1.0","age_seconds":3,"connections":0}]}"#;
    let expected = "
   NAME   VERSION  AGE  CONNECTIONS  LAG  LAST SEEN
*  web-1  0.1.0    3s   0            –    –

1 node without a cluster, connections: 0
";
    assert_eq!(nodes(&answering(answer), &[]).succeeded(), &expected[1..]);
}

#[test]
fn a_node_that_is_cut_off_says_so_and_why() {
    let answer = r#"{"cluster":"fanfare","driver":"redis","state":"isolated",
        "reason":"cannot connect to redis://redis:6379: Connection\nrefused","nodes":[
        {"name":"web-1","id":"web-1-4f2a91","this":true,"version":"0.1.0","age_seconds":3,"connections":5}]}"#;
    let server = answering(answer);
    let expected = "fanfare: ISOLATED, this node is cut off from the others: cannot connect to redis://redis:6379: \
                    Connection\\nrefused\n";
    for args in [&[][..], &["--json"]] {
        let output = nodes(&server, args);
        output.exited(1);
        assert!(output.stdout.contains("web-1"), "{output}");
        assert_eq!(output.stderr, expected);
    }
}

#[test]
fn the_answer_is_printed_as_it_is_on_request() {
    let output = nodes(&answering(TWO), &["--json"]);
    let printed: serde_json::Value = serde_json::from_str(output.succeeded()).unwrap();
    assert_eq!(printed, serde_json::from_str::<serde_json::Value>(TWO).unwrap());
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
}

#[test]
fn the_admin_listener_of_the_configuration_is_asked() {
    let (server, folder) = (answering(TWO), Folder::new());
    let file = folder.write("fanfare.toml", format!("[admin]\nlisten = \"{}\"\n", server.address));
    let output = fanfare(&["nodes", "--config", &file]).run();
    assert!(output.succeeded().contains("2 nodes in cluster shop"), "{output}");
}

#[test]
fn whatever_else_answers_is_no_list_of_nodes() {
    for (status, answer, expected) in
        [("404 Not Found", "Not found", "404 Not Found: Not found"), ("200 OK", "hello", "is --url right?")]
    {
        let output = nodes(&Backend::start("127.0.0.1:0", status, answer), &[]);
        assert!(output.failed(1).contains(expected), "{output}");
    }
}
