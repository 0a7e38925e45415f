//! Which room of the house may lean on which: held by what the manifests really ask for.

use crate::{Problem, assert_one, assert_tidy, tree::root};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

/// One crate of the workspace and its walls.
pub(crate) struct Room {
    pub(crate) name: &'static str,
    /// Crates of the workspace it may use.
    may_use: &'static [&'static str],
    /// Crates it may never use.
    may_not: &'static [&'static [&'static str]],
    /// Whether that holds for what its dependencies bring in, too.
    deep: bool,
    /// Whether it stays at home when the others are published.
    private: bool,
}

const SQL: &[&str] = &["rusqlite", "libsqlite3-sys", "sqlx", "diesel"];
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "kameo"];
const DOORS: &[&str] = &["clap", "axum", "rmcp"];
const CLOCKS: &[&str] = &["chrono", "time", "rand", "getrandom"];

/// All rooms of the design, also those that are still to be built.
pub(crate) const ROOMS: &[Room] = &[
    // Decides. Pure and deterministic, so nothing that waits, stores, draws or tells the time.
    Room {
        name: "lockkeeper-core",
        may_use: &[],
        may_not: &[RUNTIMES, SQL, DOORS, CLOCKS, &["serde_json", "tracing"]],
        deep: true,
        private: false,
    },
    // Remembers. Takes no decision, so it needs neither actors nor graphs.
    Room {
        name: "lockkeeper-store",
        may_use: &["lockkeeper-core"],
        may_not: &[&["kameo", "petgraph", "axum"]],
        deep: false,
        private: false,
    },
    // Holds. Knows no SQL and no door, and has no lock rule of its own.
    Room {
        name: "lockkeeper",
        may_use: &["lockkeeper-core", "lockkeeper-store"],
        may_not: &[SQL, DOORS, &["petgraph"]],
        deep: false,
        private: false,
    },
    // Serves. Neither lock rules nor SQL.
    Room {
        name: "lockkeeper-server",
        may_use: &["lockkeeper-core", "lockkeeper"],
        may_not: &[SQL, &["petgraph"]],
        deep: false,
        private: false,
    },
    // Doubts. Drives time itself, so nothing that has a time of its own.
    Room {
        name: "lockkeeper-sim",
        may_use: &["lockkeeper-core", "lockkeeper-store"],
        may_not: &[RUNTIMES],
        deep: true,
        private: true,
    },
    // Breaks. A disk under SQLite; knows nothing of locks, and nothing but tests may lean on it.
    Room {
        name: "lockkeeper-disk",
        may_use: &[],
        may_not: &[RUNTIMES, DOORS, CLOCKS, &["petgraph"]],
        deep: true,
        private: true,
    },
    // Garbles. Feeds all the others, so it may use them all, and stays at home.
    Room {
        name: "lockkeeper-fuzz",
        may_use: &["lockkeeper-core", "lockkeeper", "lockkeeper-server", "lockkeeper-store"],
        may_not: &[SQL],
        deep: false,
        private: true,
    },
    // Races. Looks at the house from outside, and nobody inside leans on it.
    Room {
        name: "lockkeeper-bench",
        may_use: &["lockkeeper-core", "lockkeeper-store", "lockkeeper", "lockkeeper-server"],
        may_not: &[&["axum", "petgraph"]],
        deep: false,
        private: true,
    },
    // Opens the doors. Neither state nor lock rules.
    Room {
        name: "lockkeeper-cli",
        may_use: &["lockkeeper-core", "lockkeeper", "lockkeeper-server", "lockkeeper-sim"],
        may_not: &[SQL, &["petgraph"]],
        deep: false,
        private: false,
    },
];

/// What a crate of the workspace leans on when it runs.
struct Leaning {
    name: String,
    direct: BTreeSet<String>,
    /// `direct` and what that brings in.
    reached: BTreeSet<String>,
    publishable: bool,
}

fn breaks_walls(leaning: &Leaning, workspace: &BTreeSet<String>) -> Vec<Problem> {
    let path = &leaning.name;
    let Some(room) = ROOMS.iter().find(|room| room.name == leaning.name) else {
        return vec![Problem::new(path, 0, "a crate without a row in ROOMS: say what it may not")];
    };
    let mut problems = Vec::new();
    for name in leaning.direct.intersection(workspace) {
        if !room.may_use.contains(&name.as_str()) {
            problems.push(Problem::new(path, 0, format!("may not use the room `{name}`")));
        }
    }
    let (looked_at, how) = match room.deep {
        true => (&leaning.reached, "may not lean on, or bring in,"),
        false => (&leaning.direct, "may not depend on"),
    };
    for name in looked_at {
        if room.may_not.concat().contains(&name.as_str()) {
            problems.push(Problem::new(path, 0, format!("{how} `{name}`")));
        }
    }
    if room.private && leaning.publishable {
        problems.push(Problem::new(path, 0, "is not for publishing: set `publish = false`"));
    }
    problems
}

/// What cargo makes of the manifests. Only this machine's platform is resolved, because the
/// packages of others need not be there.
pub(crate) fn metadata() -> Metadata {
    let options = ["--locked".to_owned(), "--filter-platform".to_owned(), host()];
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(options)
        .exec()
        .expect("cargo metadata runs")
}

fn host() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("rustc speaks UTF-8");
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.expect("rustc names its host").to_owned()
}

fn leanings(metadata: &Metadata) -> Vec<Leaning> {
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let normal: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let runs = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            (&node.id, runs.map(|dep| &dep.pkg).collect())
        })
        .collect();
    let leaning = |package: &&cargo_metadata::Package| {
        let mut seen = BTreeSet::new();
        let mut open = vec![&package.id];
        while let Some(id) = open.pop() {
            let new = normal[id].iter().filter(|&&dep| seen.insert(dep));
            open.extend(new.copied().collect::<Vec<_>>());
        }
        // From the manifest, so that what is for other platforms or optional counts as well.
        let declared = package.dependencies.iter();
        let direct: BTreeSet<String> = declared
            .filter(|dep| dep.kind == DependencyKind::Normal)
            .map(|dep| dep.name.clone())
            .collect();
        let reached = seen.into_iter().map(|id| names[id].to_owned()).chain(direct.clone());
        Leaning {
            name: package.name.to_string(),
            reached: reached.collect(),
            direct,
            publishable: package.publish.as_ref().is_none_or(|registries| !registries.is_empty()),
        }
    };
    metadata.workspace_packages().iter().map(leaning).collect()
}

#[test]
fn each_room_keeps_to_its_walls() {
    let leanings = leanings(&metadata());
    let workspace = leanings.iter().map(|leaning| leaning.name.clone()).collect();
    assert_tidy(leanings.iter().flat_map(|leaning| breaks_walls(leaning, &workspace)));
}

#[test]
fn the_walls_are_looked_at_where_they_stand() {
    let leanings = leanings(&metadata());
    let core = leanings.iter().find(|leaning| leaning.name == "lockkeeper-core");
    let core = core.expect("the core is a crate of the workspace");
    assert!(core.direct.contains("petgraph"), "{:?}", core.direct);
    assert!(core.reached.contains("fixedbitset"), "it comes with petgraph: {:?}", core.reached);
    assert!(!core.reached.contains("proptest"), "what only tests need is not leaned on");
}

#[test]
fn red_when_a_wall_is_broken() {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let workspace =
        set(&["lockkeeper-bench", "lockkeeper-core", "lockkeeper-sim", "lockkeeper-store"]);
    let check = |name: &str, direct: &[&str], brought_in: &[&str]| {
        let reached = set(direct).union(&set(brought_in)).cloned().collect();
        let leaning =
            Leaning { name: name.to_owned(), direct: set(direct), reached, publishable: false };
        breaks_walls(&leaning, &workspace)
    };
    assert_eq!(check("lockkeeper-core", &["petgraph", "serde"], &["fixedbitset"]), []);
    assert_one(&check("lockkeeper-core", &["tokio"], &[]), "`tokio`");
    assert_one(&check("lockkeeper-core", &["harmless"], &["rand"]), "`rand`");
    assert_one(&check("lockkeeper-core", &["lockkeeper-sim"], &[]), "room `lockkeeper-sim`");
    assert_one(&check("lockkeeper-sim", &["harmless"], &["kameo"]), "`kameo`");
    assert_one(&check("lockkeeper-store", &["petgraph"], &[]), "`petgraph`");
    assert_eq!(check("lockkeeper-store", &["lockkeeper-core"], &["petgraph"]), []);
    assert_one(&check("lockkeeper", &["rusqlite"], &[]), "`rusqlite`");
    assert_one(&check("lockkeeper-server", &["rusqlite"], &[]), "`rusqlite`");
    assert_one(&check("lockkeeper-cli", &["petgraph"], &[]), "`petgraph`");
    assert_one(&check("lockkeeper-bench", &["lockkeeper-sim"], &[]), "room `lockkeeper-sim`");
    assert_one(&check("lockkeeper-cli", &["lockkeeper-bench"], &[]), "room `lockkeeper-bench`");
    assert_one(&check("lockkeeper-extra", &[], &[]), "without a row");
}

#[test]
fn red_when_the_simulator_could_be_published() {
    let leaning = Leaning {
        name: "lockkeeper-sim".to_owned(),
        direct: BTreeSet::new(),
        reached: BTreeSet::new(),
        publishable: true,
    };
    assert_one(&breaks_walls(&leaning, &BTreeSet::new()), "not for publishing");
}
