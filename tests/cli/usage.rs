//! Help, version, and what is said to wrong usage.

use crate::support::run;

#[test]
fn the_version_is_the_package_s() {
    let ran = run(&["--version"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    assert_eq!(ran.out, format!("lockkeeper {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_says_what_it_is_and_shows_examples() {
    let ran = run(&["--help"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    for words in ["fleets of software agents", "deadlock", "simulate", "Examples:", "Exit codes"] {
        assert!(ran.out.contains(words), "no {words:?}: {}", ran.all());
    }
    let ran = run(&["simulate", "--help"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    for words in ["--seed", "--seeds", "--steps", "--projects", "--agents", "--json", "--quiet"] {
        assert!(ran.out.contains(words), "no {words:?}: {}", ran.all());
    }
}

#[test]
fn help_is_found_where_people_look_for_it() {
    let page = run(&["acquire", "--help"]).out;
    assert_eq!(run(&["help", "acquire"]).exits(0).out, page);
    assert_eq!(run(&["help"]).exits(0).out, run(&["--help"]).out);
}

#[test]
fn help_fits_a_narrow_terminal() {
    for args in [&["--help"][..], &["simulate", "--help"], &["-h"], &["simulate", "-h"]] {
        let ran = run(args);
        let long = ran.out.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{args:?}");
    }
}

#[test]
fn without_a_verb_it_shows_its_help() {
    let ran = run(&[]);
    assert_eq!(ran.code, Some(2), "{}", ran.all());
    assert!(ran.err.contains("Usage: lockkeeper") && ran.err.contains("Examples:"));
    assert_eq!(ran.out, "", "help nobody asked for is not an answer");
}

#[test]
fn wrong_usage_exits_2_and_names_the_fix() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["simulat"], &["unrecognized subcommand 'simulat'", "exists: 'simulate'"]),
        (&["simulate", "--sed", "1"], &["unexpected argument '--sed'", "'--seed'"]),
        (&["simulate", "7"], &["unexpected argument '7'"]),
        (&["simulate", "--projects", "0"], &["at least 1 project", "leave --projects out"]),
        (&["simulate", "--agents", "0"], &["at least 1 agent", "leave --agents out"]),
        (&["simulate", "--steps", "0"], &["at least 1 step", "leave --steps out"]),
        (&["simulate", "--seeds", "0"], &["at least 1 run", "leave --seeds out"]),
        (&["simulate", "--projects", "1001"], &["at most 1000 projects", "--seeds"]),
        (&["simulate", "--agents", "4000000000"], &["at most 1000 agents", "--projects"]),
        (&["simulate", "--steps", "99999999999999999999999"], &["at most", "--seeds"]),
        (
            &["simulate", "--seed", "18446744073709551616"],
            &["largest seed is 18446744073709551615"],
        ),
        (&["simulate", "--seed", "many"], &["invalid value 'many'", "whole number"]),
        (&["simulate", "--seed=-1"], &["invalid value '-1'", "whole number"]),
        (&["simulate", "--steps", ""], &["whole number"]),
        (&["simulate", "--agents"], &["value is required for '--agents"]),
    ];
    for (args, words) in cases {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.all());
        assert_eq!(ran.out, "", "{args:?}");
        for word in *words {
            assert!(ran.err.contains(word), "{args:?}, no {word:?}: {}", ran.all());
        }
    }
}
