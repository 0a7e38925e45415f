//! The readable specification: transcripts of two or more agents, one line a step, the expected
//! outcome beside it. `tests/table/scripts/*.txt` are the scripts; with `UPDATE_EXPECT=1` set
//! `cargo test --test table` writes what the table really does into them, for a person to read in
//! the diff.

mod script;

use std::{fs, path::PathBuf};

fn scripts() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/table/scripts");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect(folder).map(|entry| entry.expect(folder).path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_script_tells_the_truth() {
    let mut wrong = Vec::new();
    let paths = scripts();
    assert!(paths.len() >= 15, "where are the scripts?");
    for path in paths {
        let written = fs::read_to_string(&path).unwrap();
        let played = script::play(&written);
        if played == written {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, played).unwrap();
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("--- {name}\n{}", script::difference(&written, &played)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_script_is_noticed() {
    let lie = "ann acquire file:a                      granted file:a #1\n\
               bob acquire file:a --wait 0             granted file:a #2\n";
    let played = script::play(lie);
    assert_ne!(played, lie);
    assert!(played.contains("bob acquire file:a --wait 0             refused"), "{played}");
}
