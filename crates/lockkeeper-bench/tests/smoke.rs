//! The program itself, on its smallest scenario: it measures, and writes what it is asked for. No
//! figure is looked at for its size.

use std::{fs, process::Command};

#[test]
fn a_scenario_is_measured_printed_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (json, markdown, svg) = (path("it.json"), path("it.md"), path("it.svg"));
    let ran = Command::new(env!("CARGO_BIN_EXE_lockkeeper-bench"))
        .args(["in-process", "--short", "--rounds", "2", "--seconds", "0.05", "--clients", "1,4"])
        .args(["--only", "memory,mutex", "--json"])
        .arg(&json)
        .arg("--markdown")
        .arg(&markdown)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    assert!(out.contains("in-process: uncontended"), "{out}");
    assert!(!out.contains("lockable"), "it was not asked for: {out}");

    let all: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!((&all["about"]["rounds"], &all["about"]["short"]), (&2.into(), &true.into()));
    let sheets = &all["sheets"];
    assert_eq!(sheets[0]["scenario"], "in-process");
    let (first, rounds) =
        (&sheets[0]["rows"][0], |cell: usize| &sheets[0]["rows"][0]["cells"][cell]);
    assert_eq!((&first["name"], &first["ours"]), (&"LockManager, in memory".into(), &true.into()));
    for cell in [0, 1] {
        assert_eq!(rounds(cell).as_array().map(Vec::len), Some(2), "a figure each round: {first}");
        assert!(rounds(cell)[1]["figure"].is_number() && rounds(cell)[1]["round"] == 1, "{first}");
    }
    let tables = fs::read_to_string(markdown).unwrap();
    assert!(tables.starts_with("Taken on 20"), "{tables}");
    assert!(tables.contains("\n### in-process\n\n#### uncontended"), "{tables}");
    assert!(tables.contains("| **LockManager, in memory** |"), "{tables}");
    assert!(fs::read_to_string(svg).unwrap().starts_with("<svg"));
}

#[test]
fn what_cannot_be_written_is_said() {
    let ran = Command::new(env!("CARGO_BIN_EXE_lockkeeper-bench"))
        .args(["in-process", "--short", "--rounds", "1", "--seconds", "0.01", "--clients", "1"])
        .args(["--only", "nobody", "--json", "/nowhere/it.json"])
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(said.contains("/nowhere/it.json"), "{said}");
}
