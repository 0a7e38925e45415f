//! What is built in: licences, sources and bans of `deny.toml`, without its program.

use crate::{Problem, assert_one, assert_tidy, tree::read, walls::metadata};
use cargo_metadata::Metadata;
use std::collections::BTreeSet;

/// The part of `deny.toml` that needs neither a program nor the network.
#[derive(Debug, Default)]
struct Rules {
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
    banned: BTreeSet<String>,
}

impl Rules {
    fn read(text: &str) -> Rules {
        let mut rules = Rules::default();
        let (mut section, mut list) = ("", "");
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                (section, list) = (name, "");
            } else if let Some((name, _)) = line.split_once(" = [") {
                list = name;
            }
            let words = line.split('"').skip(1).step_by(2).map(str::to_owned);
            match (section, list) {
                ("licenses", "allow") => rules.licences.extend(words),
                ("sources", "allow-registry") => rules.registries.extend(words),
                // What follows the name is the reason.
                ("bans", "deny") => rules.banned.extend(words.take(1)),
                _ => {}
            }
            if line.ends_with(']') {
                list = "";
            }
        }
        rules
    }
}

/// One package that is built in, or only helps to build.
struct Built {
    name: String,
    licence: Option<String>,
    /// None for what is our own.
    source: Option<String>,
}

fn breaks_rules(built: &Built, rules: &Rules) -> Vec<Problem> {
    let problem = |what: String| Problem::new(&built.name, 0, what);
    let mut problems = Vec::new();
    match &built.licence {
        None => problems.push(problem("names no licence".to_owned())),
        Some(licence) if !is_allowed(licence, &rules.licences) => {
            problems.push(problem(format!("its licence is not one of ours: {licence}")));
        }
        Some(_) => {}
    }
    if let Some(source) = &built.source
        && !rules.registries.iter().any(|url| source.strip_prefix("registry+") == Some(url))
    {
        problems.push(problem(format!("comes from elsewhere: {source}")));
    }
    if rules.banned.contains(&built.name) {
        problems.push(problem("is banned".to_owned()));
    }
    problems
}

/// Whether a licence, written as SPDX has it, can be had under those that are allowed. Without
/// brackets `AND` binds more tightly than `OR`; an old way to write `OR` is a slash.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = licence.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    // The values that are open, with the word before each; innermost brackets last.
    let mut levels: Vec<(bool, bool)> = vec![(false, true)];
    let mut at = 0;
    while at < words.len() {
        let mut value = None;
        match words[at] {
            "(" => levels.push((false, true)),
            ")" => {
                let Some((any, all)) = levels.pop() else { return false };
                value = Some(any || all);
            }
            "AND" => {}
            "OR" => {
                let Some((any, all)) = levels.last_mut() else { return false };
                (*any, *all) = (*any || *all, true);
            }
            name => {
                let with = words.get(at + 1) == Some(&"WITH");
                let name = match words.get(at + 2).filter(|_| with) {
                    Some(exception) => format!("{name} WITH {exception}"),
                    None => name.to_owned(),
                };
                at += if with { 2 } else { 0 };
                value = Some(allowed.contains(&name));
            }
        }
        if let Some(value) = value {
            let Some((_, all)) = levels.last_mut() else { return false };
            *all &= value;
        }
        at += 1;
    }
    matches!(levels[..], [(any, all)] if (any || all) && !words.is_empty())
}

fn built(metadata: &Metadata) -> Vec<Built> {
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let used: BTreeSet<_> = resolve.nodes.iter().map(|node| &node.id).collect();
    let packages = metadata.packages.iter().filter(|package| used.contains(&package.id));
    let one = |package: &cargo_metadata::Package| Built {
        name: package.name.to_string(),
        licence: package.license.clone(),
        source: package.source.as_ref().map(|source| source.repr.clone()),
    };
    packages.map(one).collect()
}

#[test]
fn only_what_is_allowed_is_built_in() {
    let rules = Rules::read(&read("deny.toml").text);
    assert!(rules.licences.contains("MIT") && rules.licences.len() > 5, "{rules:?}");
    assert_eq!(rules.registries.len(), 1, "{rules:?}");
    assert!(rules.banned.contains("openssl-sys"), "{rules:?}");
    let built = built(&metadata());
    assert!(built.len() > 100, "the packages were not found");
    assert_tidy(built.iter().flat_map(|one| breaks_rules(one, &rules)));
}

#[test]
fn a_licence_is_read_as_it_is_written() {
    let allowed: BTreeSet<String> =
        ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(MIT OR GPL-3.0) AND Zlib",
        "GPL-3.0 AND X OR MIT AND Zlib",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND X",
        "MIT AND (X OR Y)",
        "Apache-2.0",
        "(MIT",
        "MIT)",
    ] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn red_when_something_else_is_built_in() {
    let text = r#"
[licenses]
allow = [
    "MIT", # what it is called
]
[bans]
deny = [
    { crate = "bad", reason = "so" },
]
[sources]
allow-registry = ["https://one"]
allow-git = ["x"]
"#;
    let rules = Rules::read(text);
    let check = |name: &str, licence: Option<&str>, source: Option<&str>| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        breaks_rules(
            &Built { name: name.to_owned(), licence: own(licence), source: own(source) },
            &rules,
        )
    };
    assert_eq!(check("good", Some("MIT"), Some("registry+https://one")), []);
    assert_eq!(check("ours", Some("MIT"), None), []);
    assert_eq!(check("so", Some("MIT"), None), [], "a reason is no name");
    assert_one(&check("a", None, None), "no licence");
    assert_one(&check("a", Some("GPL-3.0"), None), "GPL-3.0");
    assert_one(&check("a", Some("MIT"), Some("registry+https://two")), "https://two");
    assert_one(&check("a", Some("MIT"), Some("git+https://one")), "elsewhere");
    assert_one(&check("a", Some("MIT"), Some("git+x")), "elsewhere");
    assert_one(&check("bad", Some("MIT"), None), "banned");
}
