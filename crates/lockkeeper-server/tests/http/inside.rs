//! Exclusion, counted (I1, I2): sixteen clients over HTTP, each its own session, one resource.

use crate::live::Live;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

const CLIENTS: usize = 16;
const ROUNDS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_two_inside() {
    let live = Live::start().await;
    let inside = Arc::new(AtomicUsize::new(0));
    let entered = Arc::new(AtomicUsize::new(0));
    let last_token = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..CLIENTS {
        let (inside, entered, last_token) = (inside.clone(), entered.clone(), last_token.clone());
        let mut client = live.client().await;
        clients.spawn(async move {
            let session = client.open("p", &format!("agent-{n}")).await;
            for round in 0..ROUNDS {
                let mut ask = json!({"project": "p", "session": session, "resource": "file:a"});
                // Some poll their tickets instead of waiting in one call.
                if (n + round) % 3 == 0 {
                    ask["slice_ms"] = json!(1);
                }
                let mut answer = client.call("acquire", ask).await;
                while let Some(ticket) = answer["queued"]["ticket"].as_u64() {
                    let wait = json!({"project": "p", "session": session, "ticket": ticket,
                        "slice_ms": 20});
                    answer = client.call("wait", wait).await;
                }
                let grant = &answer["granted"][0];
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                let token = grant["token"].as_u64().unwrap();
                assert!(last_token.swap(token, Ordering::SeqCst) < token);
                entered.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                let back = json!({"project": "p", "session": session, "lock": grant["lock"]});
                client.call("release", back).await;
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert_eq!(entered.load(Ordering::SeqCst), CLIENTS * ROUNDS);
    live.stop().await;
}
