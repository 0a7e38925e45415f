//! The verbs that take locks, keep them and give them back; and Ctrl-C.

use crate::support::{House, kill};
use serde_json::Value;

#[test]
fn two_terminals_and_one_file() {
    let house = House::new();
    let one = house.run_as("ann", &["acquire", "src/main.rs", "--reason", "renaming the parser"]);
    assert_eq!(one.exits(0).out, "file:src/main.rs is locked by ann for 5 min\n");
    let two = house.run_as("bob", &["acquire", "./src/../src/main.rs"]).exits(75);
    for words in [
        "file:src/main.rs is locked by ann, taken ",
        " ago for 'renaming the parser'; its lease ends in 4 min 5",
        "unless renewed\nnext: stand in the queue with --wait 10m",
    ] {
        assert!(two.err.contains(words), "no {words:?}: {}", two.all());
    }
    let waiting =
        house.start(house.command_as("bob").args(["acquire", "src/main.rs", "-w", "50s"]));
    house.until_waiting("src/main.rs", 1);
    house.run_as("ann", &["release", "src/main.rs"]).exits(0);
    let served = house.finish(waiting).exits(0);
    assert!(served.out.starts_with("file:src/main.rs is locked by bob for 5 min"));
    assert!(house.run_as("ann", &["status"]).out.contains("bob"));
}

#[test]
fn a_refusal_is_one_object_for_a_program() {
    let house = House::new();
    house.run_as("ann", &["acquire", "gpu:0", "--reason", "training"]).exits(0);
    let refused = house.run_as("bob", &["acquire", "gpu:0", "--json"]).exits(75);
    assert_eq!(refused.err, "", "a program reads one stream");
    let object = refused.json();
    assert_eq!((&object["ok"], &object["exit"]), (&Value::from(false), &Value::from(75)));
    let error = &object["error"];
    assert_eq!((error["code"].as_str(), error["retryable"].as_bool()), (Some("busy"), Some(true)));
    let holder = &error["obstacles"][0]["holders"][0];
    assert_eq!(
        (holder["agent"].as_str(), holder["reason"].as_str()),
        (Some("ann"), Some("training"))
    );
    assert!(holder.get("token").is_none(), "a token is its holder's alone: {holder}");
    let timed_out = house.run_as("bob", &["acquire", "gpu:0", "-w", "20ms", "--json"]).exits(75);
    assert_eq!(timed_out.json()["error"]["code"], "timed_out");
}

/// The users of an earlier tool type these, and so they stay.
#[test]
fn the_lines_of_the_earlier_tool_work_as_they_are_typed() {
    let house = House::new();
    let taken = house.say("acquire src/example.js AH-011").exits(0);
    assert_eq!(taken.out, "file:src/example.js is locked by AH-011 for 5 min\n");
    let second = house.say("acquire src/example.js AH-012").exits(75);
    assert!(second.err.contains("is locked by AH-011"), "{}", second.all());
    assert!(house.say("status").exits(0).out.contains("file:src/example.js  AH-011"));
    let wrong = house.say("release src/example.js AH-012").exits(77);
    assert!(wrong.err.contains("is not yours: it is locked by AH-011"), "{}", wrong.all());
    house.say("release src/example.js AH-011").exits(0);
    let twice = house.say("release src/example.js AH-011").exits(76);
    assert!(twice.err.contains("is not locked, by AH-011 or anybody"), "{}", twice.all());
    house.say("release src/example.js AH-011 --if-held").exits(0);
    house.say("acquire src/a.js src/b.js AH-011").exits(0);
    let cleaned = house.say("cleanup AH-011 --json").exits(0).json();
    assert_eq!((&cleaned["released"], &cleaned["agent"]), (&2.into(), &"AH-011".into()));
    assert_eq!(house.say("status --json").exits(0).json()["held"], 0);
}

#[test]
fn a_last_word_that_is_a_file_too_is_not_guessed_at() {
    let house = House::new();
    std::fs::write(house.repo().join("Makefile"), "").unwrap();
    let doubt = house.say("acquire src/a.rs Makefile").exits(2);
    assert!(doubt.err.contains("an agent or the file"), "{}", doubt.all());
    assert!(house.daemon().is_none(), "nothing was begun");
    house.say("acquire src/a.rs ./Makefile").exits(0);
    house.say("acquire src/b.rs --as Makefile").exits(0);
    let held = house.say("status --json").json();
    let held: Vec<&str> = held["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["resource"].as_str().unwrap())
        .collect();
    assert_eq!(held, ["file:Makefile", "file:src/a.rs", "file:src/b.rs"]);
}

#[test]
fn several_are_had_together_or_not_at_all() {
    let house = House::new();
    house.run_as("ann", &["acquire", "b.rs"]).exits(0);
    let refused = house.run_as("bob", &["acquire", "a.rs", "b.rs", "c:d", "--json"]).exits(75);
    let obstacles = refused.json()["error"]["obstacles"].clone();
    assert_eq!(obstacles.as_array().map(Vec::len), Some(1));
    assert_eq!(obstacles[0]["resource"], "file:b.rs");
    assert_eq!(house.say("status --json").json()["held"], 1, "bob holds nothing of it");
    house.run_as("ann", &["release", "b.rs"]).exits(0);
    let granted = house.run_as("bob", &["acquire", "a.rs", "b.rs", "c:d", "--json"]).exits(0);
    let grants = granted.json()["grants"].as_array().unwrap().clone();
    assert_eq!(grants.len(), 3);
    assert!(grants.iter().all(|grant| grant["token"].is_u64() && grant["lock_id"].is_string()));
    // Some are released although others are not the caller's.
    house.run_as("bob", &["release", "a.rs"]).exits(0);
    let partly = house.run_as("bob", &["release", "a.rs", "b.rs", "--json"]).exits(76).json();
    assert_eq!(partly["error"]["released"][0]["resource"], "file:b.rs");
    assert_eq!(partly["error"]["failed"][0]["target"], "file:a.rs");
}

#[test]
fn readers_share_and_a_writer_waits_for_them() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs", "--shared"]).exits(0);
    house.run_as("bob", &["acquire", "a.rs", "-s"]).exits(0);
    house.run_as("cy", &["acquire", "a.rs"]).exits(75);
    house.run_as("cy", &["check", "a.rs", "--shared"]).exits(0);
    house.run_as("cy", &["check", "a.rs"]).exits(75);
}

#[test]
fn slots_are_shared_out() {
    let house = House::new();
    house.say("capacity llm:large 2").exits(0);
    let first = house.run_as("ann", &["acquire", "llm:large", "--permits", "1", "--json"]).exits(0);
    let grant = first.json()["grants"][0].clone();
    assert_eq!((&grant["mode"], &grant["permits"]), (&"permits".into(), &1.into()));
    assert_eq!(grant["slots"].as_array().map(Vec::len), Some(1));
    house.run_as("bob", &["acquire", "llm:large", "--permits", "1"]).exits(0);
    house.run_as("cy", &["acquire", "llm:large", "--permits", "1"]).exits(75);
    let wrong = house.run_as("cy", &["acquire", "llm:large"]).exits(2);
    assert!(wrong.err.contains("--permits 1"), "{}", wrong.all());
    let in_use = house.say("capacity llm:large 0").exits(75);
    assert!(in_use.err.contains("is in use"), "{}", in_use.all());
    let too_many = house.run_as("cy", &["acquire", "llm:large", "--permits", "3"]).exits(2);
    assert!(too_many.err.contains("ask for 2 at most"), "{}", too_many.all());
}

#[test]
fn a_ticket_keeps_the_place() {
    let house = House::new();
    house.run_as("ann", &["acquire", "browser:main"]).exits(0);
    let ask = ["acquire", "browser:main", "--wait", "10m", "--slice", "0", "--json"];
    let queued = house.run_as("bob", &ask).exits(75).json();
    let error = &queued["error"];
    assert_eq!((&error["code"], &error["place"]), (&"queued".into(), &1.into()));
    let ticket = error["ticket"].as_u64().unwrap().to_string();
    assert_eq!(error["next"], format!("lockkeeper wait {ticket}"));
    // Whoever comes later stands behind, also while nobody waits on the ticket.
    let later = house.run_as("cy", &ask).exits(75).json();
    assert_eq!(later["error"]["place"], 2);
    let again = house.run_as("bob", &["wait", &ticket, "--slice", "0", "--json"]).exits(75).json();
    assert_eq!(again["error"]["place"], 1);
    let not_his = house.run_as("cy", &["wait", &ticket, "--slice", "0"]).exits(76);
    assert!(not_his.err.contains("has no ticket"), "{}", not_his.all());
    let waiting = house.start(house.command_as("bob").args(["wait", &ticket, "--json"]));
    house.run_as("ann", &["release", "browser:main"]).exits(0);
    let granted = house.finish(waiting).exits(0).json();
    assert_eq!(granted["grants"][0]["resource"], "browser:main");
    let later = later["error"]["ticket"].as_u64().unwrap().to_string();
    let left = house.run_as("cy", &["cancel", &later, "--json"]).exits(0).json();
    assert_eq!(left["was_waiting"], true);
    house.run_as("cy", &["cancel", &later]).exits(76);
}

#[test]
fn a_lease_is_renewed_by_its_holder_alone() {
    let house = House::new();
    let taken =
        house.run_as("ann", &["acquire", "a.rs", "--lease", "1m", "--json"]).exits(0).json();
    let id = taken["grants"][0]["lock_id"].as_str().unwrap();
    let kept = house.run_as("ann", &["renew", "a.rs", "--lease", "1h", "--json"]).exits(0).json();
    assert!(kept["renewed"][0]["expires_in_ms"].as_u64() > Some(3_500_000), "{kept}");
    let shown = house.run_as("ann", &["renew", id, "-l", "2h"]).exits(0);
    assert!(shown.out.contains(&format!("{id} is yours for 2 h from now")), "{}", shown.all());
    house.run_as("ann", &["renew", "a.rs", "-l", "5m", "--shorten"]).exits(0);
    house.run_as("bob", &["renew", "a.rs"]).exits(77);
    house.run_as("bob", &["renew", "b.rs"]).exits(76);
    house.run_as("bob", &["release", id]).exits(77);
    house.run_as("ann", &["release", id]).exits(0);
    house.run_as("ann", &["renew", id]).exits(76);
}

#[test]
fn a_counted_lock_takes_as_many_releases() {
    let house = House::new();
    house.say("acquire a.rs").exits(0);
    let again = house.say("acquire a.rs").exits(75);
    assert!(again.err.contains("is yours already"), "{}", again.all());
    let counted = house.say("acquire a.rs --reentrant").exits(0);
    assert!(counted.out.contains("takes 2 releases now"), "{}", counted.all());
    assert!(house.say("release a.rs").exits(0).out.contains("it takes 1 more release"));
    assert!(house.say("release a.rs").exits(0).out.contains("is released"));
    house.say("release a.rs").exits(76);
}

/// Two shells, two files, opposite orders: one is told at once, the other goes on.
#[test]
fn a_deadlock_is_told_at_once_and_the_other_goes_on() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    house.run_as("bob", &["acquire", "b.rs"]).exits(0);
    let mut ask = house.command_as("ann");
    let ann = house.start(ask.args(["acquire", "b.rs", "--wait", "50s", "--json"]));
    house.until_waiting("b.rs", 1);
    let bob = house.run_as("bob", &["acquire", "a.rs", "--wait", "50s", "--json"]);
    let ann = house.finish(ann);
    let (loser, winner) = if bob.code == Some(79) { (bob, ann) } else { (ann, bob) };
    let object = loser.exits(79).json();
    assert_eq!(object["error"]["code"], "deadlock");
    let ring = object["error"]["deadlock"]["ring"].as_array().unwrap();
    assert_eq!(ring.len(), 2);
    assert_eq!(ring.iter().filter(|one| one["is_victim"] == true).count(), 1);
    winner.exits(0);
    let told = house.run(&["why", "a.rs"]).exits(0);
    for words in ["there was a deadlock:", "╭▸", "╰─", "✗ gives way"] {
        assert!(told.out.contains(words), "no {words:?}: {}", told.all());
    }
}

#[test]
fn ctrl_c_leaves_the_queue_at_once() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let waiting = house.start(house.command_as("bob").args(["acquire", "a.rs", "-w", "50s"]));
    house.until_waiting("a.rs", 1);
    kill(waiting.id(), "INT");
    let left = house.finish(waiting).exits(130);
    assert!(left.err.contains("interrupted; you have left the queue"), "{}", left.all());
    house.until_waiting("a.rs", 0);
    // Whoever is killed leaves it as well.
    let waiting = house.start(house.command_as("bob").args(["acquire", "a.rs", "-w", "50s"]));
    house.until_waiting("a.rs", 1);
    kill(waiting.id(), "KILL");
    assert_eq!(house.finish(waiting).code, None);
    house.until_waiting("a.rs", 0);
    house.run_as("ann", &["release", "a.rs"]).exits(0);
    assert_eq!(house.say("status --json").json()["held"], 0);
}

#[test]
fn a_log_is_told_once_what_is_waited_for() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs", "--reason", "a thing"]).exits(0);
    let waiting = house.start(house.command_as("bob").args(["acquire", "a.rs", "-w", "2s"]));
    let timed_out = house.finish(waiting).exits(75);
    let line = "waiting for file:a.rs, locked by ann for 'a thing'; number 1 of 1 in the queue, ";
    assert_eq!(timed_out.err.matches(line).count(), 1, "{}", timed_out.all());
    assert!(timed_out.err.contains("not obtained in 2 s:\nfile:a.rs is locked by ann"));
}

#[test]
fn breaking_a_lock_is_asked_for_twice_and_kept() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let unasked =
        house.run_as("bob", &["force-unlock", "a.rs", "--reason", "ann is gone"]).exits(77);
    assert!(unasked.err.contains("file:a.rs is locked\n  by ann"), "{}", unasked.all());
    house.run_as("ann", &["renew", "a.rs"]).exits(0);
    let args = ["force-unlock", "a.rs", "--reason", "ann is gone", "--yes"];
    let broken = house.run_as("bob", &args).exits(0);
    assert_eq!(broken.out, "file:a.rs was taken from ann\n");
    house.run_as("bob", &args).exits(76);
    house.run_as("ann", &["release", "a.rs"]).exits(76);
    let kept = house.run(&["why", "a.rs"]).exits(0);
    assert!(kept.out.contains("bob took it from ann for 'ann is gone'"), "{}", kept.all());
}

/// A command that runs under a lock and waits for it: it would wait for itself.
#[test]
fn a_wait_under_a_wait_is_seen() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let rows = house.say("audit --kind session_opened --json").json();
    let outer = rows["rows"][0]["details"]["session_opened"]["session"].to_string();
    let project = house.say("doctor --json").json()["project"].as_str().unwrap().to_owned();
    let inner = |project: &str, wait: &str| {
        let mut command = house.command_as("bob");
        command.env("LOCKKEEPER_SESSION", &outer).env("LOCKKEEPER_PROJECT", project);
        house.run_command(command.args(["acquire", "a.rs", "--wait", wait, "--json"]))
    };
    let told = inner(&project, "50s").exits(79).json();
    let ring = told["error"]["deadlock"]["ring"].as_array().unwrap();
    assert!(ring.iter().any(|one| one["kind"] == "declared"), "{told}");
    assert_eq!(house.say("graph").out, "nobody waits\n", "nothing is left of it");
    // A number of another project means nothing here.
    inner("elsewhere", "50s").exits(0);
}
