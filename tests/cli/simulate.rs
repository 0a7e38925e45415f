//! The verb `simulate`: its table, its JSON, its exit codes.

use crate::support::{Ran, lockkeeper, run};
use serde_json::Value;
use std::{collections::BTreeMap, process::Stdio};

const SMALL: &[&str] = &["simulate", "--seed", "1", "--steps", "2000"];

/// The fields of the object, and the kind of value in each. Programs rely on them: one that goes
/// or changes its kind is a breaking change.
const FIELDS: &[(&str, Kind)] = &[
    ("agents", Kind::Number),
    ("cancels", Kind::Number),
    ("capacity_there", Kind::Number),
    ("checked", Kind::Flag),
    ("claims", Kind::Number),
    ("crashes", Kind::Number),
    ("deadlocks", Kind::Number),
    ("deadlocks_by_length", Kind::Counts),
    ("deadlocks_reduced", Kind::Number),
    ("digest", Kind::Text),
    ("elapsed_ms", Kind::Number),
    ("eras", Kind::Number),
    ("expiries", Kind::Number),
    ("grants", Kind::Number),
    ("longest_queue", Kind::Number),
    ("longest_wait_ms", Kind::Number),
    ("max_inside", Kind::Inside),
    ("max_inside_exclusive", Kind::Number),
    ("max_inside_shared", Kind::Number),
    ("max_permits_in_use", Kind::Number),
    ("ok", Kind::Flag),
    ("permit_cycles_cleared", Kind::Number),
    ("projects", Kind::Number),
    ("records", Kind::Number),
    ("seed", Kind::Number),
    ("steps", Kind::Number),
    ("steps_per_second", Kind::Number),
    ("tasks_done", Kind::Number),
    ("timeouts", Kind::Number),
    ("victims_by_policy", Kind::Counts),
    ("waits", Kind::Number),
    ("writes_accepted", Kind::Number),
    ("writes_rejected", Kind::Number),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Flag,
    Number,
    Text,
    /// An object of numbers, by names that differ from run to run.
    Counts,
    /// For each resource the most inside it, by kind.
    Inside,
}

fn is_inside(most: &Value) -> bool {
    let kinds = ["exclusive", "shared", "permits"];
    most.as_object().is_some_and(|most| most.len() == kinds.len())
        && kinds.iter().all(|kind| most[*kind].is_u64())
        && most["exclusive"].as_u64() <= Some(1)
}

fn kind(value: &Value) -> Option<Kind> {
    match value {
        Value::Bool(_) => Some(Kind::Flag),
        Value::Number(number) if number.is_u64() => Some(Kind::Number),
        Value::String(_) => Some(Kind::Text),
        Value::Object(counts) if counts.values().all(Value::is_u64) => Some(Kind::Counts),
        Value::Object(each) if each.values().all(is_inside) => Some(Kind::Inside),
        _ => None,
    }
}

fn with(more: &[&str]) -> Ran {
    run(&[SMALL, more].concat())
}

fn object(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    assert_eq!(ran.out.lines().count(), 1, "one object, one line: {}", ran.all());
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.all()))
}

/// The number in the row of the table that starts like this.
fn row(table: &str, title: &str) -> u64 {
    let line = table.lines().find(|line| line.starts_with(title));
    let line = line.unwrap_or_else(|| panic!("no row {title:?} in:\n{table}"));
    let digits = line[title.len()..].trim().replace(',', "");
    digits.parse().unwrap_or_else(|_| panic!("no number in {line:?}"))
}

#[test]
fn a_run_ends_with_its_table() {
    let ran = with(&["--quiet"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    assert_eq!(row(&ran.out, "max inside, exclusive"), 1, "I1 is what all this is for");
    assert!(row(&ran.out, "deadlocks") > 0, "a world without deadlocks proves little");
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("every promise held, 2,000 steps in "), "{}", ran.all());
    assert!(last.ends_with(" steps/s"), "{}", ran.all());
    assert_eq!(ran.err, "", "quiet");
}

#[test]
fn json_is_one_object_of_the_promised_shape() {
    let object = object(&with(&["--json"]));
    let promised: BTreeMap<&str, Option<Kind>> =
        FIELDS.iter().map(|&(name, kind)| (name, Some(kind))).collect();
    let found: BTreeMap<&str, Option<Kind>> = object
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), kind(value)))
        .collect();
    assert_eq!(found, promised);
    assert_eq!(object["ok"], true);
    assert_eq!((&object["seed"], &object["steps"]), (&Value::from(1), &Value::from(2000)));
    assert_eq!(object["max_inside_exclusive"], 1);
}

#[test]
fn several_seeds_are_one_object_with_a_run_for_each() {
    let object = object(&with(&["--json", "--seeds", "3", "--steps", "200"]));
    let runs = object["runs"].as_array().unwrap();
    let seeds: Vec<u64> = runs.iter().map(|run| run["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [1, 2, 3]);
    assert_eq!(object["ok"], true);
    let ran = with(&["--seeds", "3", "--steps", "200"]);
    assert_eq!(ran.out.lines().count(), 4, "a line for each and one for all: {}", ran.all());
}

/// I20, as far as a user can see it.
#[test]
fn the_same_seed_gives_the_same_report() {
    let report = |seed: &str| {
        let mut object = object(&with(&["--json", "--seed", seed]));
        let fields = object.as_object_mut().unwrap();
        assert!(fields.remove("elapsed_ms").is_some());
        assert!(fields.remove("steps_per_second").is_some());
        object
    };
    assert_eq!(report("7"), report("7"));
    assert_ne!(report("7"), report("8"), "the seed decides something");
}

#[test]
fn nobody_there_to_read_is_no_reason_to_panic() {
    for more in [&["--json"][..], &[], &["--seeds", "3"]] {
        let args = [SMALL, more].concat();
        let mut child =
            lockkeeper().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The reader leaves before anything is written.
        drop(child.stdout.take());
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.all());
        assert!(!ran.err.contains("panicked"), "{}", ran.all());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = lockkeeper().args(SMALL).stdout(full).output().unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, Some(1), "{}", ran.all());
    assert!(ran.err.contains("cannot write the answer"), "{}", ran.all());
}
