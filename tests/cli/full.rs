//! A disk with no room left, as whoever types meets it.

use crate::support::House;
use std::process::Command;

/// The words, the exit code, and, with a new daemon where there is room again, everything that was
/// acknowledged.
#[test]
fn a_full_disk_is_told_and_what_was_acknowledged_is_kept() {
    let house = House::new();
    // A limit on how long files may be stands for the full disk: it needs no rights. The system
    // calls that an error of the disk.
    let mut serve = Command::new("sh");
    house.furnish(&mut serve);
    let limited = r#"trap '' XFSZ; ulimit -f 600; exec "$0" serve"#;
    let serve = house.start(serve.args(["-c", limited, env!("CARGO_BIN_EXE_lockkeeper")]));
    house.until("it serves", || house.daemon().is_some());
    let mut acknowledged = Vec::new();
    let refused = loop {
        let key = format!("db:{:03}", acknowledged.len());
        let ran = house.run(&["acquire", &key]);
        if ran.code != Some(0) {
            break ran;
        }
        acknowledged.push(key);
        assert!(acknowledged.len() < 300, "it was never full");
    };
    let said = refused.exits(74).err;
    assert!(said.contains("locks.db") && said.contains("look after the disk"), "{said}");
    assert!(!acknowledged.is_empty());
    house.run(&["stop"]).exits(0);
    assert_eq!(house.finish(serve).code, Some(0));
    house.run(&["acquire", "db:more"]).exits(0);
    acknowledged.push("db:more".to_owned());
    let status = house.say("status --json").exits(0).json();
    let held: Vec<&str> = status["resources"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["resource"].as_str().expect("a name"))
        .collect();
    assert_eq!(held, acknowledged);
}
