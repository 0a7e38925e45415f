//! The verb `task`.

use crate::support::House;
use serde_json::Value;

#[test]
fn one_agent_claims_a_task_and_the_others_learn_who() {
    let house = House::new();
    let all: Vec<_> = (0..8)
        .map(|nth| {
            let mut command = house.command_as(&format!("coder-{nth}"));
            house.start(command.args(["task", "claim", "TASK-7", "--json"]))
        })
        .collect();
    let ran: Vec<_> = all.into_iter().map(|child| house.finish(child)).collect();
    let winners: Vec<Value> =
        ran.iter().filter(|ran| ran.code == Some(0)).map(|ran| ran.json()).collect();
    assert_eq!(winners.len(), 1, "{ran:?}");
    let winner = winners[0]["agent"].as_str().unwrap();
    let claimed = &winners[0]["claimed"][0];
    assert_eq!((&claimed["task"], &claimed["version"]), (&"TASK-7".into(), &1.into()));
    assert!(claimed["grant"]["expires_in_ms"].as_u64() > Some(29 * 60_000), "half an hour");
    for lost in ran.iter().filter(|ran| ran.code != Some(0)) {
        assert_eq!(lost.code, Some(75), "{}", lost.all());
        let object = lost.json();
        let failed = &object["error"]["failed"][0];
        assert_eq!(failed["why"], "held");
        assert_eq!(failed["obstacle"]["holders"][0]["agent"], winner);
    }
    let told = house.run_as("late", &["task", "claim", "TASK-7"]).exits(75);
    let words = format!("nothing was claimed:\ntask:TASK-7 is locked by {winner}");
    assert!(told.err.contains(&words), "{}", told.all());
}

#[test]
fn several_are_claimed_together_or_not_at_all() {
    let house = House::new();
    house.run_as("ann", &["task", "claim", "2"]).exits(0);
    let refused = house.run_as("bob", &["task", "claim", "1", "2", "3", "--json"]).exits(75).json();
    assert_eq!(refused["error"]["failed"].as_array().map(Vec::len), Some(1));
    assert_eq!(house.say("task list --state claimed --json").json()["tasks"][0]["task"], "2");
    house.run_as("ann", &["task", "release", "2"]).exits(0);
    let claimed = house.run_as("bob", &["task", "claim", "1", "2", "3"]).exits(0);
    assert_eq!(claimed.out.lines().count(), 3, "{}", claimed.all());
    let words = "task:2 is claimed by bob for 30 min, version 3";
    assert!(claimed.out.contains(words), "{}", claimed.all());
}

#[test]
fn a_claim_is_renewed_given_back_or_completed_by_its_owner_alone() {
    let house = House::new();
    house
        .run_as("ann", &["task", "claim", "task:7", "--lease", "1m", "--reason", "parser"])
        .exits(0);
    let kept = house.run_as("ann", &["task", "renew", "7", "--lease", "1h", "--json"]).exits(0);
    assert!(kept.json()["renewed"][0]["expires_in_ms"].as_u64() > Some(3_500_000));
    for verb in ["renew", "release", "complete"] {
        let other = house.run_as("bob", &["task", verb, "7"]).exits(77);
        assert!(other.err.contains("is locked by ann"), "{verb}: {}", other.all());
        house.run_as("bob", &["task", verb, "8"]).exits(76);
    }
    let listed = house.say("task list").exits(0);
    let row = listed.out.lines().nth(1).unwrap();
    for words in ["7", "claimed", "ann", "parser"] {
        assert!(row.contains(words), "no {words:?}: {}", listed.all());
    }
    let stale = house.run_as("ann", &["task", "complete", "7", "--expect-version", "9"]).exits(75);
    assert!(stale.err.contains("is at version 1, not 9"), "{}", stale.all());
    let done = house.run_as("ann", &["task", "complete", "7", "--json"]).exits(0).json();
    assert_eq!(
        (&done["tasks"][0]["state"], &done["tasks"][0]["version"]),
        (&"done".into(), &2.into())
    );
    let again = house.run_as("bob", &["task", "claim", "7", "--json"]).exits(75).json();
    assert_eq!(again["error"]["failed"][0]["why"], "done");
    house.run_as("ann", &["task", "release", "7"]).exits(76);
    let moved = house.run_as("bob", &["task", "claim", "9", "--expect-version", "4", "--json"]);
    assert_eq!(moved.exits(75).json()["error"]["failed"][0]["why"], "version_mismatch");
    assert_eq!(house.say("task list --state open --json").json()["tasks"], serde_json::json!([]));
}
