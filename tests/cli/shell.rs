//! The verbs `completions` and `man`.

use crate::support::{House, run};
use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

#[test]
fn each_shell_gets_its_script() {
    for (shell, words) in [
        ("bash", "complete -F _lockkeeper"),
        ("zsh", "#compdef lockkeeper"),
        ("fish", "complete -c lockkeeper"),
    ] {
        let ran = run(&["completions", shell]).exits(0);
        assert!(ran.out.contains(words), "{shell}: {}", ran.all());
        for word in ["simulate", "--project"] {
            assert!(ran.out.contains(word.trim_start_matches('-')), "{shell}: no {word}");
        }
        let object = run(&["completions", shell, "--json"]).exits(0).json();
        assert_eq!(object["script"].as_str().map(str::trim_end), Some(ran.out.trim_end()));
    }
    let ran = run(&["completions", "tcsh"]).exits(2);
    assert!(ran.err.contains("bash, zsh, fish"), "{}", ran.all());
}

/// bash itself, where it is there, must find nothing wrong with the script, and must complete.
#[test]
fn bash_completes_a_verb() {
    let script = run(&["completions", "bash"]).exits(0).out;
    let ask = "COMP_WORDS=(lockkeeper simu); COMP_CWORD=1; _lockkeeper lockkeeper simu lockkeeper; \
               echo \"${COMPREPLY[*]}\"";
    let bash = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut bash) = bash else { return };
    let mut stdin = bash.stdin.take().unwrap();
    stdin.write_all(format!("{script}\n{ask}\n").as_bytes()).unwrap();
    drop(stdin);
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "simulate");
}

#[test]
fn the_manual_has_a_page_for_each_verb() {
    let page = run(&["man"]).exits(0);
    assert!(page.out.contains(".TH lockkeeper 1"), "{}", page.all());
    let page = run(&["man", "simulate"]).exits(0);
    for words in [".TH lockkeeper-simulate 1", "EXTRA", "\\-\\-steps"] {
        assert!(page.out.contains(words), "no {words:?}: {}", page.all());
    }
    assert!(run(&["man", "simulat"]).exits(2).err.contains("there is no verb"));

    let house = House::new();
    let object = house.run(&["man", "--dir", "man1", "--json"]).exits(0).json();
    let files = object["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file == "lockkeeper-simulate.1"), "{object}");
    for file in files {
        let page = house.repo().join("man1").join(file.as_str().unwrap());
        assert!(fs::read_to_string(&page).unwrap().contains(".SH NAME"), "{page:?}");
    }
    fs::write(house.repo().join("file"), "").unwrap();
    let ran = house.run(&["man", "--dir", "file/man1"]).exits(1);
    assert!(ran.err.contains("cannot write into file/man1"), "{}", ran.all());
}
