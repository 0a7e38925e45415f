//! Events as a stream, taken up again after a cut.

use crate::{
    client::{Client, PATIENCE},
    live::Live,
};
use lockkeeper_server::http::HttpLimits;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// What an `EventSource` would make of it.
struct Source {
    client: Client,
    text: String,
}

#[derive(Debug)]
struct Event {
    id: Option<u64>,
    name: String,
    data: Value,
}

impl Source {
    async fn open(live: &Live, path: &str, last: Option<u64>) -> Source {
        let mut client = live.client().await;
        if let Some(last) = last {
            client = client.with("last-event-id", &last.to_string());
        }
        client.send("GET", path, None).await;
        let head = timeout(PATIENCE, client.head()).await.unwrap().unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("cache-control"), Some("no-store"));
        Source { client, text: String::new() }
    }

    /// The next event, or the end.
    async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.read()).await.expect("an event")
    }

    async fn read(&mut self) -> Option<Event> {
        let mut event = Event { id: None, name: String::new(), data: json!(null) };
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                for line in block.trim_end().lines() {
                    match line.split_once(": ").or(line.split_once(':')) {
                        Some(("id", id)) => event.id = Some(id.parse().unwrap()),
                        Some(("event", name)) => event.name = name.to_owned(),
                        Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                        Some(("", _)) => {}
                        other => panic!("{other:?}"),
                    }
                }
                if !event.name.is_empty() {
                    return Some(event);
                }
            }
            self.text += &self.client.chunk().await?;
        }
    }
}

/// Takes a lock and gives it back: two events.
async fn in_and_out(client: &mut Client, project: &str, session: u64, resource: &str) {
    let ask = json!({"project": project, "session": session, "resource": resource});
    let lock = client.call("acquire", ask).await["granted"][0]["lock"].clone();
    client.call("release", json!({"project": project, "session": session, "lock": lock})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_out_and_nothing_comes_twice_however_often_it_is_cut() {
    const ROUNDS: u64 = 150;
    let live = Live::start().await;
    let mut client = live.client().await;
    let session = client.open("p", "a").await;
    let work = tokio::spawn(async move {
        for n in 0..ROUNDS {
            in_and_out(&mut client, "p", session, &format!("file:{n}")).await;
        }
        client.call("session.close", json!({"project": "p", "session": session})).await;
    });
    let mut heard: Vec<u64> = Vec::new();
    let mut cuts = 0;
    'all: loop {
        // The first one says it in the address, the others as an EventSource does.
        let last = heard.last().copied();
        let mut source = Source::open(&live, "/v1/events?project=p&since=0", last).await;
        for _ in 0..7 {
            let event = source.next().await.unwrap();
            assert_eq!(event.data["event"], event.name.as_str());
            assert_eq!(event.data["project_id"], "p");
            assert_eq!(event.data["seq"].as_u64(), event.id);
            assert_eq!(event.id, Some(heard.len() as u64 + 1));
            heard.extend(event.id);
            if event.name == "session.ended" {
                break 'all;
            }
        }
        cuts += 1;
    }
    work.await.unwrap();
    assert!(cuts > 20, "{cuts}");
    assert_eq!(heard.len() as u64, 2 * ROUNDS + 1);
    live.stop().await;
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_counted() {
    let live = Live::with(|_, server, _| server.limits.events_kept = 4).await;
    let mut client = live.client().await;
    let session = client.open("p", "a").await;
    for n in 0..10 {
        in_and_out(&mut client, "p", session, &format!("file:{n}")).await;
    }
    let mut source = Source::open(&live, "/v1/events?project=p", Some(3)).await;
    let missed = source.next().await.unwrap();
    assert_eq!((missed.name.as_str(), missed.id), ("missed", None));
    assert_eq!(missed.data, json!({"project_id": "p", "missed": 13}));
    for seq in 17..=20 {
        assert_eq!(source.next().await.unwrap().id, Some(seq));
    }
    live.stop().await;
}

#[tokio::test]
async fn without_since_it_begins_now_and_without_a_project_it_hears_all() {
    let live = Live::start().await;
    let mut client = live.client().await;
    let (in_p, in_q) = (client.open("p", "a").await, client.open("q", "b").await);
    in_and_out(&mut client, "p", in_p, "file:before").await;
    // An answer may be faster than the news of what it is about.
    let mut of_p = Source::open(&live, "/v1/events?project=p&since=0", None).await;
    for seq in 1..=2 {
        assert_eq!(of_p.next().await.unwrap().id, Some(seq));
    }
    let mut all = Source::open(&live, "/v1/events", None).await;
    let mut of_q = Source::open(&live, "/v1/events?project=q", None).await;
    in_and_out(&mut client, "p", in_p, "file:1").await;
    in_and_out(&mut client, "q", in_q, "file:2").await;
    for (project, name) in [
        ("p", "resource.locked"),
        ("p", "resource.unlocked"),
        ("q", "resource.locked"),
        ("q", "resource.unlocked"),
    ] {
        let event = all.next().await.unwrap();
        assert_eq!((event.data["project_id"].as_str(), &*event.name), (Some(project), name));
        assert_eq!(event.id, None, "numbers of several projects would be mixed up");
    }
    let event = of_q.next().await.unwrap();
    assert_eq!((event.data["resource_id"].as_str(), event.id), (Some("file:2"), Some(1)));
    live.stop().await;
}

#[tokio::test]
async fn a_number_needs_its_project_and_must_be_one() {
    let live = Live::start().await;
    let mut client = live.client().await;
    for path in ["/v1/events?since=3", "/v1/events?project=p&since=x", "/v1/events?proj=p"] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.word().as_str()), (400, "invalid_params"), "{path}");
    }
    let mut client = live.client().await.with("last-event-id", "three");
    assert_eq!(client.get("/v1/events?project=p").await.status, 400);
    live.stop().await;
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_there_and_ends_with_the_server() {
    let keep_alive = Duration::from_millis(20);
    let live = Live::limited(HttpLimits { keep_alive, ..HttpLimits::default() }).await;
    let mut client = live.client().await;
    let mut source = Source::open(&live, "/v1/events", None).await;
    let comment = timeout(PATIENCE, source.client.chunk()).await.unwrap().unwrap();
    assert!(comment.starts_with(": "), "{comment:?}");
    client.call("daemon.stop", json!({})).await;
    assert!(source.next().await.is_none());
    assert!(source.client.is_whole, "it ends in order");
    live.stopped().await;
}
