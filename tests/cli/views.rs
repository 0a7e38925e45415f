//! The verbs that show how things are, and what happened.

use crate::{
    schema::check_shape,
    support::{House, kill},
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::Command,
};

/// Ann has two things, bob waits for one, cy behind him; dan has slots.
fn busy_house() -> House {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs", "git:index", "--reason", "a release"]).exits(0);
    for agent in ["bob", "cy"] {
        let ask = ["acquire", "a.rs", "--wait", "1h", "--slice", "0", "--reason", "my turn"];
        house.run_as(agent, &ask).exits(75);
    }
    house.run_as("bob", &["acquire", "docs/b.md", "--shared", "--lease", "2h"]).exits(0);
    house.say("capacity llm:large 3").exits(0);
    house.run_as("dan", &["acquire", "llm:large", "--permits", "2"]).exits(0);
    house
}

#[test]
fn status_shows_who_has_what_and_how_many_wait() {
    let house = busy_house();
    let shown = house.say("status").exits(0);
    let lines: Vec<&str> = shown.out.lines().collect();
    assert!(lines[0].starts_with("RESOURCE"), "{}", shown.all());
    let row = |resource: &str| {
        let found = lines.iter().find(|line| line.starts_with(resource));
        let words = found.unwrap_or_else(|| panic!("no {resource}: {}", shown.all()));
        words.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(row("file:a.rs")[1], "ann");
    assert_eq!(row("file:a.rs")[4..], ["2", "a release"]);
    assert_eq!(row("file:docs/b.md")[1..3], ["bob", "shared"]);
    assert_eq!(row("llm:large")[1..3], ["dan", "2 permits"]);
    let last = lines.last().unwrap();
    assert!(last.starts_with("4 locks, 2 wait in /") && last.ends_with("/repo"), "{last}");

    let object = house.say("status --json").exits(0).json();
    assert_eq!((&object["held"], &object["waiting"]), (&4.into(), &2.into()));
    let mine = house.run_as("bob", &["status", "--mine", "--json"]).exits(0).json();
    assert_eq!(mine["held"], 1);
    let one = house.say("status a.rs llm:large --json").exits(0).json();
    assert_eq!(one["resources"][0]["queue"][1]["agent"], "cy");
    assert_eq!(one["resources"][1]["capacity"], 3);
    let one = house.say("status a.rs llm:large").exits(0);
    for words in [
        "file:a.rs is locked\n  by ann, taken ",
        "llm:large is locked, 2 of 3 slots used",
        "my turn",
    ] {
        assert!(one.out.contains(words), "no {words:?}: {}", one.all());
    }
    assert!(house.say("status no.rs").exits(0).out.contains("file:no.rs is free"));
    let other = house.say("status --project elsewhere").exits(0);
    assert_eq!(other.out, "nothing is locked in elsewhere\n");
    house.say("acquire x:y --project elsewhere").exits(0);
    let all = house.say("status --everywhere --json").exits(0).json();
    assert_eq!(all["projects"].as_array().map(Vec::len), Some(2), "{all}");
    assert!(house.say("status --everywhere").out.contains("1 lock, nobody waits in elsewhere"));
}

#[test]
fn check_says_whether_it_could_be_had() {
    let house = busy_house();
    let free = house.say("check no.rs").exits(0);
    assert_eq!(free.out, "file:no.rs is free\n");
    let yours = house.run_as("ann", &["check", "a.rs", "no.rs", "--json"]).exits(0).json();
    assert_eq!(yours["resources"][0]["state"], "yours");
    let taken = house.run_as("eve", &["check", "no.rs", "a.rs", "--json"]).exits(75).json();
    assert_eq!(taken["error"]["code"], "taken");
    assert_eq!(taken["error"]["resources"][0]["state"], "free");
    assert_eq!(taken["error"]["obstacles"][0]["waiting"], 2);
    house.run_as("eve", &["check", "docs/b.md", "--shared"]).exits(0);
    house.run_as("eve", &["check", "docs/b.md"]).exits(75);
    house.run_as("eve", &["check", "llm:large"]).exits(0);
    house.run_as("ann", &["acquire", "llm:large", "--permits", "1"]).exits(0);
    house.run_as("eve", &["check", "llm:large"]).exits(75);
}

#[test]
fn queue_why_and_graph_tell_who_waits_for_whom() {
    let house = busy_house();
    let queue = house.say("queue a.rs").exits(0);
    let places: Vec<&str> = queue.out.lines().skip(1).map(|line| line.trim()).collect();
    assert!(places[0].starts_with("1  bob") && places[1].starts_with("2  cy"), "{}", queue.all());
    assert_eq!(house.say("queue no.rs").exits(0).out, "nobody waits for file:no.rs\n");

    let why = house.run_as("cy", &["why", "a.rs"]).exits(0);
    for words in ["file:a.rs is locked\n  by ann", "you are number 2 in the queue"] {
        assert!(why.out.contains(words), "no {words:?}: {}", why.all());
    }
    // And whoever has it waits as well.
    house.run_as("dan", &["acquire", "gpu:0"]).exits(0);
    house.run_as("ann", &["acquire", "gpu:0", "-w", "1h", "--slice", "0"]).exits(75);
    let why = house.run_as("cy", &["why", "a.rs"]).exits(0);
    let chain = "ann itself waits for gpu:0, behind dan";
    assert!(why.out.contains(chain), "{}", why.all());
    house.run_as("cy", &["why", "a.rs", "--json"]).exits(0);

    let graph = house.say("graph").exits(0);
    let drawing = "\
dan
└─ ann  waits for gpu:0
   └─ bob  waits for file:a.rs
      └─ cy  waits for file:a.rs, behind bob
";
    assert_eq!(graph.out, drawing);
    assert!(house.say("graph --format dot").exits(0).out.starts_with("digraph waits {"));
    assert!(house.say("graph --format mermaid").exits(0).out.starts_with("flowchart LR"));
    let as_json = house.say("graph --format json").exits(0);
    let nodes: Value = serde_json::from_str(&as_json.out).unwrap();
    assert!(nodes["nodes"].as_array().is_some_and(|nodes| nodes.len() >= 2), "{nodes}");
    house.say("graph --json").exits(0);
    house.say("graph --json --format mermaid").exits(0);
    assert_eq!(house.say("graph --project elsewhere").exits(0).out, "nobody waits\n");
}

#[test]
fn audit_and_stats_tell_what_happened_and_how_much() {
    let house = busy_house();
    let audit = house.say("audit --kind lock_granted --json").exits(0).json();
    let rows = audit["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "{audit}");
    assert!(rows.windows(2).all(|pair| pair[0]["id"].as_i64() < pair[1]["id"].as_i64()));
    let of_bob = house.say("audit --agent bob a.rs --json").exits(0).json();
    assert!(of_bob["rows"].as_array().unwrap().iter().all(|row| row["agent"] == "bob"));
    assert_eq!(house.say("audit -n 1 --json").json()["rows"].as_array().map(Vec::len), Some(1));
    let shown = house.say("audit git:index").exits(0);
    assert!(shown.out.contains("lock_granted") && shown.out.starts_with("WHEN"), "{}", shown.all());
    let none = house.say("audit --since 0 --kind lease_expired").exits(0);
    assert_eq!(none.out, "nothing like that is on record\n");

    let stats = house.say("stats --json").exits(0).json();
    assert_eq!((&stats["locks"], &stats["waits"]), (&4.into(), &2.into()));
    assert_eq!(stats["contended"][0]["resource"], "file:a.rs");
    assert!(stats["daemon"]["pid"].is_u64(), "{stats}");
    let shown = house.say("stats").exits(0);
    for words in ["locks held                  4", "MOST WAITED FOR", "daemon 0."] {
        assert!(shown.out.contains(words), "no {words:?}: {}", shown.all());
    }
    house.say("stats --everywhere --json").exits(0);
}

#[test]
fn watch_shows_what_happens_and_goes_on_where_it_was() {
    let house = House::new();
    // It waits for a daemon, and hears all of it from the first moment on.
    let ask = ["watch", "a.rs", "--json", "--count", "3"];
    let mut watch = house.start(house.command().args(ask));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    house.run_as("ann", &["acquire", "b.rs"]).exits(0);
    house.run_as("ann", &["acquire", "a.rs", "--reason", "mine"]).exits(0);
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let locked = next();
    check_shape("event", &locked);
    assert_eq!(locked["event"], "resource.locked");
    assert_eq!(locked["resource_id"], "file:a.rs");
    let seq = locked["seq"].as_u64().unwrap();
    let daemon = house.daemon().unwrap();
    kill(daemon, "KILL");
    house.until("it is gone", || house.daemon().is_none());
    house.run_as("bob", &["acquire", "a.rs", "-w", "1m", "--slice", "0"]).exits(75);
    let waiting = next();
    check_shape("event", &waiting);
    assert_eq!(waiting["event"], "resource.waiting");
    assert!(waiting["seq"].as_u64() > Some(seq));
    house.run_as("ann", &["release", "a.rs"]).exits(0);
    let unlocked = next();
    check_shape("event", &unlocked);
    assert_eq!(unlocked["event"], "resource.unlocked");
    house.finish(watch).exits(0);

    // From a number on, once more, for people.
    let since = waiting["seq"].as_u64().unwrap().to_string();
    let again = house.run(&["watch", "--since", &since, "--count", "1"]).exits(0);
    assert!(again.out.contains("unlocked  file:a.rs  ann after "), "{}", again.all());
    let watch = house.start(house.command().args(["watch", "c.rs"]));
    // It must hear signals before it is sent one.
    house.until("it is connected", || {
        house.say("stats --json").json()["daemon"]["connections"].as_u64() > Some(1)
    });
    kill(watch.id(), "INT");
    house.finish(watch).exits(130);
}

#[test]
fn a_deadlock_is_news() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let mut watch = house.start(house.command().args(["watch", "--json"]));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    house.until("it is connected", || {
        house.say("stats --json").json()["daemon"]["connections"].as_u64() > Some(1)
    });
    house.run_as("bob", &["acquire", "b.rs"]).exits(0);
    house.run_as("ann", &["acquire", "b.rs", "-w", "1m", "--slice", "0"]).exits(75);
    let bob = house.run_as("bob", &["acquire", "a.rs", "-w", "1m", "--slice", "0"]);
    assert!(bob.code == Some(79) || bob.code == Some(0), "{}", bob.all());
    let news = loop {
        let line = lines.next().unwrap().unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        check_shape("event", &event);
        if event["event"] == "deadlock.detected" {
            break event;
        }
    };
    assert_eq!(news["report"]["ring"].as_array().map(Vec::len), Some(2));
    let _ = watch.kill();
    house.finish(watch);
}

#[test]
fn one_repository_is_one_space_from_wherever_it_is_asked() {
    let house = House::new();
    let git = |folder: &str, args: &[&str]| {
        let mut command = Command::new("git");
        house.furnish(&mut command);
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]).current_dir(house.path(folder));
        house.run_command(command.args(args)).exits(0);
    };
    std::fs::create_dir(house.path("main")).unwrap();
    git("main", &["init", "-q"]);
    git("main", &["commit", "-q", "--allow-empty", "-m", "first"]);
    git("main", &["worktree", "add", "-q", "../side"]);
    std::fs::create_dir_all(house.path("side/src")).unwrap();
    let run = |folder: &str, agent: &str, args: &[&str]| {
        let mut command = house.command_as(agent);
        house.run_command(command.current_dir(house.path(folder)).args(args))
    };
    run("main", "ann", &["acquire", "src/a.rs"]).exits(0);
    let refused = run("side/src", "bob", &["acquire", "a.rs"]).exits(75);
    assert!(refused.err.contains("file:src/a.rs is locked by ann"), "{}", refused.all());
    let absolute = house.path("side/src/a.rs");
    run("side", "bob", &["check", absolute.to_str().unwrap()]).exits(75);
    run("home", "bob", &["check", "src/a.rs"]).exits(0);
    run("home", "bob", &["check", "src/a.rs", "--project", "../main"]).exits(75);
    let outside = run("side", "bob", &["acquire", "../main/src/a.rs"]).exits(2);
    assert!(outside.err.contains("is outside of the project"), "{}", outside.all());
    std::fs::write(house.path("side/.git"), "gitdir: /nowhere\n").unwrap();
    let broken = run("side", "bob", &["status"]).exits(78);
    assert!(broken.err.contains("git worktree repair"), "{}", broken.all());
    let told = run("side", "bob", &["doctor"]).exits(78);
    assert!(told.out.contains("trouble project   "), "{}", told.all());
    run("side", "bob", &["stop"]).exits(0);
}

#[test]
fn wrong_usage_is_told_to_a_program_in_its_own_words() {
    let house = House::new();
    for line in ["acquire --json", "status --jsn --json", "acquire a.rs --lease soon --json"] {
        let object = house.say(line).exits(2).json();
        assert_eq!(object["error"]["code"], "usage", "{object}");
    }
    let object = house.say("acquire src/main.rs:12 --json").exits(2).json();
    assert_eq!(object["error"]["code"], "invalid_resource");
    // What follows `--` is somebody else's.
    assert_eq!(house.say("acquire --lease soon -- --json").exits(2).out, "");
}
