//! Who is let in.

use crate::{client::Client, live::Live};
use lockkeeper::{Config, LockManager};
use lockkeeper_server::{ServeError, Server, ServerConfig, Token, http::HttpConfig};
use serde_json::json;

const SECRET: &str = "a secret of some length";

async fn secret() -> Live {
    Live::with(|_, _, http| http.token = Some(Token::new(SECRET).unwrap())).await
}

#[tokio::test]
async fn with_a_token_nothing_but_health_is_open() {
    let live = secret().await;
    let paths = ["/metrics", "/v1/projects", "/v1/events", "/openapi.json", "/", "/v1/nothing"];
    let near = format!("Bearer {SECRET}!");
    let shorter = format!("Bearer {}", &SECRET[1..]);
    let basic = format!("Basic {SECRET}");
    for shown in ["", "Bearer", "Bearer ", &near, &shorter, &basic, SECRET] {
        let mut client = live.client().await.with("authorization", shown);
        for path in paths {
            let reply = client.get(path).await;
            assert_eq!((reply.status, reply.word().as_str()), (401, "token"), "{path} {shown:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            assert!(!reply.body.contains(SECRET));
        }
        let reply = client.post("daemon.stop", json!({})).await;
        assert_eq!(reply.status, 401, "{shown:?}");
        assert_eq!(client.get("/healthz").await.status, 200);
    }
    for scheme in ["Bearer", "bearer"] {
        let shown = format!("{scheme} {SECRET}");
        let mut client = live.client().await.with("authorization", &shown);
        assert_eq!(client.get("/metrics").await.status, 200);
        client.open("p", "a").await;
        // Behind a name: the token says enough.
        let mut client = client.with("host", "locks.example");
        assert_eq!(client.get("/v1/projects").await.status, 200);
    }
    live.stop().await;
}

#[tokio::test]
async fn without_a_token_only_this_machine_may_ask_and_no_page_in_its_browsers() {
    let live = Live::start().await;
    let port = live.addr.port();
    let get = async |name: &str, value: &str| {
        let mut client = live.client().await.with(name, value);
        let reply = client.get("/v1/projects").await;
        assert!(reply.headers.iter().all(|(name, _)| !name.contains("access-control")));
        (reply.status, if reply.status == 200 { String::new() } else { reply.word() })
    };
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(get("host", &format!("{host}:{port}")).await.0, 200, "{host}");
        assert_eq!(get("host", host).await.0, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.7", "127.0.0.1.evil.example"] {
        assert_eq!(get("host", host).await, (403, "host".to_owned()), "{host}");
    }
    let own = format!("http://127.0.0.1:{port}");
    assert_eq!(get("origin", &own).await.0, 200, "a page of its own");
    let other_port = format!("http://127.0.0.1:{}", port ^ 1);
    let longer = format!("{own}.evil.example");
    for origin in ["null", "http://evil.example", "file://", &other_port, &longer] {
        assert_eq!(get("origin", origin).await, (403, "origin".to_owned()), "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(get("sec-fetch-site", site).await, (403, "origin".to_owned()), "{site}");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(get("sec-fetch-site", site).await.0, 200, "{site}");
    }
    live.stop().await;
}

#[tokio::test]
async fn a_page_cannot_send_a_command_without_asking_first_and_is_never_told_yes() {
    let live = Live::start().await;
    let body = json!({"project": "p", "agent": "a", "kind": "detached"});
    // What a form, or a script without leave, can send.
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let mut client = live.client().await.with("content-type", kind);
        let reply = client.post("session.open", body.clone()).await;
        assert_eq!((reply.status, reply.word().as_str()), (415, "content_type"), "{kind:?}");
    }
    let mut client = live.client().await.with("content-type", "application/json; charset=utf-8");
    client.call("session.open", body).await;
    let mut client = live
        .client()
        .await
        .with("origin", "http://evil.example")
        .with("access-control-request-method", "POST");
    let reply = client.ask("OPTIONS", "/v1/acquire", None).await;
    assert_eq!(reply.status, 403);
    assert!(reply.headers.iter().all(|(name, _)| !name.contains("access-control")));
    assert_eq!(live.client().await.get("/v1/projects").await.json(), json!(["p"]));
    live.stop().await;
}

#[tokio::test]
async fn a_head_that_says_two_things_is_refused() {
    let live = Live::start().await;
    let mut client = live.client().await;
    client.raw("GET /v1/projects HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n").await;
    assert!(matches!(client.reply().await.status, 400 | 403));
    let mut client = live.client().await;
    client.raw("GET /v1/projects HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 403, "no Host at all");
    let mut client = live.client().await;
    client.raw("GET http://evil.example/v1/projects HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 403, "the address goes before the Host");
    let live_secret = secret().await;
    let mut client = Client::new(live_secret.addr).await;
    let shown = format!("authorization: Bearer {SECRET}\r\n");
    let head = format!("GET /v1/projects HTTP/1.1\r\nhost: x\r\n{shown}{shown}\r\n");
    client.raw(head).await;
    assert_eq!(client.reply().await.status, 401, "which of the two?");
    live.stop().await;
    live_secret.stop().await;
}

#[tokio::test]
async fn beyond_this_machine_it_needs_a_token() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let http = vec![HttpConfig::at(addr.parse().unwrap())];
        let config = ServerConfig { http, ..ServerConfig::default() };
        let manager = LockManager::in_memory(Config::default());
        let error = Server::start(manager, config).await.unwrap_err();
        assert!(matches!(error, ServeError::NeedsToken { .. }), "{addr}: {error}");
        assert!(error.to_string().contains("token"), "{error}");
    }
    let live = Live::with(|_, _, http| {
        http.addr = "0.0.0.0:0".parse().unwrap();
        http.token = Some(Token::new(SECRET).unwrap());
    })
    .await;
    let addr = ([127, 0, 0, 1], live.addr.port()).into();
    assert_eq!(Client::new(addr).await.get("/v1/projects").await.status, 401);
    live.stop().await;
}

/// Two who disagree where a request ends would let one hide in the body of another.
#[tokio::test]
async fn no_request_hides_in_the_body_of_another() {
    let live = Live::start().await;
    let hidden = json!({"project": "p", "agent": "a", "kind": "detached"}).to_string();
    let hidden = format!(
        "POST /v1/session.open HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let whole = format!("0\r\n\r\n{hidden}");
    let length = whole.len();
    for (what, head, body) in [
        // One of the two lengths hides the rest.
        (
            "two lengths",
            format!("content-length: 2\r\ncontent-length: {length}"),
            format!("{{}}{hidden}"),
        ),
        ("a length twice", format!("content-length: 2, {length}"), format!("{{}}{hidden}")),
        ("a signed length", "content-length: +2".to_owned(), format!("{{}}{hidden}")),
        ("an odd coding", "transfer-encoding: chunked, identity".to_owned(), whole.clone()),
        ("a coding with a space", "transfer-encoding : chunked".to_owned(), whole.clone()),
        ("a folded head", "content-length:\r\n 2".to_owned(), format!("{{}}{hidden}")),
        ("a bare line feed", "x: y\ncontent-length: 2\nx: z".to_owned() + "\r", whole.clone()),
        (
            "a size out of bounds",
            "transfer-encoding: chunked".to_owned(),
            format!("ffffffffffffffff1\r\n{{}}\r\n{whole}"),
        ),
    ] {
        let mut client = live.client().await;
        let post = "POST /v1/ping HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
        client.raw(format!("{post}\r\n{head}\r\n\r\n{body}")).await;
        client.end_of_writing().await;
        client.end().await;
        assert_eq!(live.client().await.get("/v1/projects").await.json(), json!([]), "{what}");
    }
    // Where both are said, the coding counts, as the standard has it, and that is all of it.
    let mut client = live.client().await;
    client
        .raw(format!(
            "POST /v1/ping HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        ))
        .await;
    let first = client.reply().await.status;
    assert!(matches!(first, 200 | 400), "{first}");
    live.stop().await;
}
