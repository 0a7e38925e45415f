//! Projects nobody has ever been in: whoever looks, listens or mistypes a name makes none.

use crate::support::*;
use serde_json::json;

const LOCK: &str = "0190b5a2-7c1e-7000-8000-000000000001";

#[tokio::test]
async fn only_sessions_and_capacities_make_a_project() {
    let daemon = Place::new().start().await;
    let mut wire = daemon.connect().await;
    let word = |outcome: Outcome| outcome.unwrap_err()["data"]["code"].clone();
    let of = |more: serde_json::Value| {
        let mut params = json!({"project": "nowhere"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    assert_eq!(wire.call("list", of(json!({}))).await.unwrap(), json!([]));
    assert_eq!(wire.call("subscribe", of(json!({}))).await.unwrap(), json!({"missed": 0}));
    let ask = of(json!({"session": 7, "resource": "file:x"}));
    assert_eq!(word(wire.call("acquire", ask).await), "session_ended");
    let attach = of(json!({"session": 7}));
    assert_eq!(word(wire.call("session.attach", attach).await), "session_ended");
    let release = of(json!({"session": 7, "lock": LOCK}));
    assert_eq!(word(wire.call("release", release).await), "session_ended");
    let all = wire.call("release_all", of(json!({"agent": "a"}))).await.unwrap();
    assert_eq!(all, json!({"all_released": {"released": 0, "left": 0}}));
    assert_eq!(wire.call("projects", json!({})).await.unwrap(), json!([]));
    // Once somebody comes, whoever listened before hears it from the first event on.
    let opened = wire.call("session.open", of(json!({"agent": "a"}))).await.unwrap();
    let ask = of(json!({
        "session": opened["session_opened"]["session"],
        "resource": "file:x",
    }));
    wire.call("acquire", ask).await.unwrap();
    let note = wire.note().await;
    assert_eq!((&note["method"], &note["params"]["seq"]), (&json!("event"), &json!(1)), "{note}");
    assert_eq!(wire.call("projects", json!({})).await.unwrap(), json!(["nowhere"]));
    let capacity = json!({"project": "elsewhere", "resource": "llm:x", "capacity": 2});
    wire.call("capacity", capacity).await.unwrap();
    let both = json!(["elsewhere", "nowhere"]);
    assert_eq!(wire.call("projects", json!({})).await.unwrap(), both);
    daemon.stop().await;
}
