//! What hostile names, files and numbers come to, through the built binary and its daemon.
//!
//! The line in docs/security.md that a test holds says what the attack is.

use crate::support::{House, kill};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

/// A name that clears the screen, begins a line that looks like one of ours, and turns the
/// direction of what follows.
const NAME: &str = "eve\x1b[2J\u{9b}1m\r\nFORGED all is well\u{202e}\u{2028}x";

/// Speaks to the daemon without the program in between, as anybody of this user can.
struct Wire {
    said: BufReader<UnixStream>,
    last: u64,
    answers: HashMap<u64, Value>,
}

impl Wire {
    fn to(house: &House) -> Wire {
        let stream = UnixStream::connect(house.socket()).expect("the daemon is there");
        Wire { said: BufReader::new(stream), last: 0, answers: HashMap::new() }
    }

    fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.last += 1;
        let line = json!({ "id": self.last, "method": method, "params": params });
        writeln!(self.said.get_mut(), "{line}").expect("the daemon listens");
        self.last
    }

    fn answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).expect("a line") > 0, "the daemon went");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if let Some(id) = answer["id"].as_u64() {
                self.answers.insert(id, answer);
            }
        }
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params);
        let mut answer = self.answer(id);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    #[track_caller]
    fn open(&mut self, project: &str, agent: &str) -> u64 {
        let params = json!({ "project": project, "agent": agent, "kind": "detached" });
        let opened = self.call("session.open", &params);
        opened["session_opened"]["session"].as_u64().expect("its number")
    }
}

/// The lock space that commands in the house are about.
fn project(house: &House) -> String {
    house.repo().display().to_string()
}

#[track_caller]
fn is_harmless(what: &str, said: &str) {
    let obeyed = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{202e}');
    assert!(!said.contains(obeyed), "{what}: {said:?}");
    assert!(!said.lines().any(|line| line.starts_with("FORGED")), "{what}: {said}");
}

#[test]
fn a_name_cannot_write_over_a_terminal_or_forge_a_line() {
    let house = House::new();
    house.say("acquire own.rs").exits(0);
    let project = project(&house);
    let mut wire = Wire::to(&house);
    let (eve, mallory) = (wire.open(&project, NAME), wire.open(&project, NAME));
    let ask = |session: u64, key: &str, wait: u64| {
        json!({ "project": project, "session": session, "resource": key, "reason": NAME,
            "metadata": NAME, "wait_ms": wait })
    };
    wire.call("acquire", &ask(eve, "file:a.rs", 0));
    wire.call("acquire", &ask(mallory, "file:b\u{202e}.rs", 0));
    // A deadlock of the two: its story has their names in it.
    let waits = wire.send("acquire", &ask(eve, "file:b\u{202e}.rs", 50_000));
    house.until_waiting("./b\u{202e}.rs", 1);
    let lost = wire.send("acquire", &ask(mallory, "file:a.rs", 50_000));
    let one = [waits, lost].map(|id| wire.answer(id));
    assert!(one.iter().any(|answer| answer["error"]["data"]["code"] == "deadlock"), "{one:?}");
    // And a space of that name, with one who waits in it.
    let (holder, waiter) = (wire.open(NAME, NAME), wire.open(NAME, NAME));
    let mut there = json!({ "project": NAME, "resource": "file:a.rs", "wait_ms": 50_000 });
    there["session"] = holder.into();
    wire.call("acquire", &there);
    there["session"] = waiter.into();
    wire.send("acquire", &there);

    let shows = |args: &[&str], code: i32| {
        let ran = house.run(args).exits(code);
        is_harmless(&args.join(" "), &format!("{}{}", ran.out, ran.err));
        ran
    };
    let refused = shows(&["acquire", "a.rs"], 75);
    assert!(refused.err.contains("file:a.rs is locked by eve [2J"), "{}", refused.all());
    let held = shows(&["status", "a.rs"], 0);
    assert!(held.out.contains("by eve [2J"), "{}", held.all());
    shows(&["acquire", "a.rs", "--wait", "10ms"], 75);
    shows(&["run", "-n", "a.rs", "--", "true"], 75);
    shows(&["check", "a.rs"], 75);
    shows(&["release", "a.rs"], 77);
    for look in ["status", "queue", "why", "graph", "audit"] {
        shows(&[look], if matches!(look, "queue" | "why") { 2 } else { 0 });
    }
    for look in [["queue", "a.rs"], ["why", "a.rs"], ["why", "./b\u{202e}.rs"]] {
        shows(&look, 0);
    }
    for format in ["text", "dot", "mermaid"] {
        shows(&["graph", "--format", format, "--project", NAME], 0);
    }
    for look in ["status", "stats", "audit"] {
        shows(&[look, "--everywhere"], 0);
    }
    shows(&["watch", "--since", "0", "--count", "4"], 0);
    let taken = shows(&["force-unlock", "a.rs", "--reason", NAME, "--yes"], 0);
    assert!(taken.out.contains("was taken from eve [2J"), "{}", taken.all());
    shows(&["why", "a.rs"], 0);
    // Programs get the names as they are.
    let rows = house.say("audit --json").exits(0).json();
    assert!(rows["rows"].as_array().unwrap().iter().any(|row| row["agent"] == NAME), "{rows}");
}

#[test]
fn a_name_cannot_forge_a_line_of_the_log() {
    let house = House::new();
    house.say("acquire own.rs").exits(0);
    let mut wire = Wire::to(&house);
    let eve = wire.open(NAME, NAME);
    let ask = json!({ "project": NAME, "session": eve, "resource": "file:a.rs", "reason": NAME,
        "wait_ms": 0, "lease_ms": 50 });
    wire.call("acquire", &ask);
    let log = house.store().with_extension("db.log");
    let told = || String::from_utf8(fs::read(&log).unwrap()).unwrap();
    house.until("the end of the lease is logged", || told().contains("a lease ended"));
    let told = told();
    is_harmless("the log", &told);
    assert!(told.contains("agent=eve"), "{told}");
}

/// Starts `serve` with these words, and what it said about itself.
fn serve(house: &House, words: &[&str]) -> (Child, Value) {
    let mut serving = house.start(house.command().args(["serve", "--json"]).args(words));
    let mut line = String::new();
    let out = serving.stdout.take().expect("it is collected");
    BufReader::new(out).read_line(&mut line).expect("it speaks");
    (serving, serde_json::from_str(&line).expect("it says it in JSON"))
}

/// What HTTP at an address says to a request, to its end.
fn http(addr: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let close = "connection: close\r\n\r\n";
    write!(stream, "{head} HTTP/1.1\r\nhost: localhost\r\n{close}").expect("it reads");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it answers");
    said
}

#[test]
fn a_name_cannot_forge_an_event_or_a_number() {
    const FORGED: &str = "eve\r\n\r\nevent: FORGED\nid: 9\ndata: {}\n\n\"} 1\nFORGED{a=\"\\";
    let house = House::new();
    let (serving, said) = serve(&house, &["--http", "127.0.0.1:0"]);
    let addr = said["http"][0].as_str().unwrap();
    let mut wire = Wire::to(&house);
    let mut events = TcpStream::connect(addr).unwrap();
    write!(events, "GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut events = BufReader::new(events).lines().map(|line| line.unwrap());
    events.find(String::is_empty).expect("the end of the head");
    let eve = wire.open(FORGED, FORGED);
    let ask = json!({ "project": FORGED, "session": eve, "resource": "file:a.rs",
        "reason": FORGED, "wait_ms": 0 });
    wire.call("acquire", &ask);
    let close = json!({ "project": FORGED, "session": eve });
    wire.call("session.close", &close);
    // Each event is a name and one line of JSON, in which the name is what it is.
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "session.ended") {
        let line = events.next().expect("it goes on");
        match line.split_once(": ") {
            Some(("event", name)) => names.push(name.to_owned()),
            Some(("data", data)) => {
                let data: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(data["agent_id"], FORGED, "{data}");
            }
            _ => assert!(!line.contains(':') && !line.contains("FORGED"), "{line:?}"),
        }
    }
    assert_eq!(names, ["resource.locked", "resource.unlocked", "session.ended"]);
    let page = http(addr, "GET /metrics");
    let acquired = |line: &&str| line.starts_with("resource_lock_acquisitions_total{");
    assert_eq!(page.lines().filter(acquired).count(), 1, "{page}");
    assert!(!page.lines().any(|line| line.starts_with("FORGED")), "{page}");
    drop(wire);
    kill(serving.id(), "INT");
    house.finish(serving).exits(0);
}

#[test]
fn the_token_is_in_nobodys_sight() {
    const SECRET: &str = "f2c1-a-secret-nobody-guesses";
    let house = House::new();
    let file = house.path("token");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let path = file.to_str().unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let mut serve = house.command();
        let refused = house
            .run_command(serve.args(["serve", "--http", "127.0.0.1:0", "--token-file", path]))
            .exits(78);
        assert!(refused.err.contains("other users can read or change it"), "{}", refused.all());
        assert!(refused.err.contains("chmod 600"), "{}", refused.all());
        assert!(!refused.err.contains(SECRET), "{}", refused.all());
    }
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let doors = ["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--token-file", path];
    let (serving, said) = serve(&house, &doors);
    assert!(!said.to_string().contains(SECRET));
    for name in ["cmdline", "environ"] {
        let seen = fs::read(format!("/proc/{}/{name}", serving.id())).unwrap();
        assert!(!String::from_utf8_lossy(&seen).contains(SECRET), "{name}");
    }
    let addr = said["http"][0].as_str().unwrap();
    let wrong = http(addr, &format!("GET /v1/projects?token={SECRET}"));
    assert!(wrong.starts_with("HTTP/1.1 401") && !wrong.contains(SECRET), "{wrong}");
    let mut door = TcpStream::connect(said["tcp"][0].as_str().unwrap()).unwrap();
    let guess = &SECRET[1..];
    writeln!(door, r#"{{"id":1,"method":"hello","params":{{"token":"{guess}"}}}}"#).unwrap();
    let mut told = String::new();
    door.read_to_string(&mut told).unwrap();
    assert!(told.contains("error") && !told.contains(guess), "{told}");
    house.say("acquire a.rs").exits(0);
    for look in ["status --json", "audit --json", "stats --json", "doctor --json"] {
        assert!(!house.say(look).out.contains(SECRET), "{look}");
    }
    kill(serving.id(), "INT");
    let ended = house.finish(serving).exits(0);
    assert!(!ended.err.contains(SECRET) && !ended.err.contains(guess), "{}", ended.all());
    let folder = house.store().parent().unwrap().to_owned();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{}", path.display());
    }
}

#[test]
fn what_is_kept_is_for_its_user_alone() {
    let house = House::new();
    // Whatever the user lets others see of his files, as with a umask of 000.
    let mut ask = Command::new("sh");
    house.furnish(&mut ask);
    let program = env!("CARGO_BIN_EXE_lockkeeper");
    ask.args(["-c", "umask 000; \"$0\" acquire a.rs && \"$0\" migrate --backup; \"$0\" stop"]);
    house.run_command(ask.arg(program)).exits(0);
    let (serving, _) = {
        let mut serve = Command::new("sh");
        house.furnish(&mut serve);
        serve.args(["-c", "umask 000; exec \"$0\" serve --json"]).arg(program);
        let mut serving = house.start(&mut serve);
        let mut line = String::new();
        BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (serving, line)
    };
    house.say("acquire b.rs").exits(0);
    let mut open = vec![house.store().parent().unwrap().to_owned(), house.path("run/lockkeeper")];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o077, 0, "{folder:?}");
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.symlink_metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
    kill(serving.id(), "INT");
    house.finish(serving).exits(0);
}

#[test]
fn a_link_beside_the_store_leads_nowhere() {
    for end in [".owner", ".start", ".log", ".log.old"] {
        let house = House::new();
        let folder = house.store().parent().unwrap().to_owned();
        fs::create_dir_all(&folder).unwrap();
        let precious = house.path("precious");
        fs::write(&precious, "do not lose this").unwrap();
        let mut link = house.store().into_os_string();
        link.push(end);
        symlink(&precious, &link).unwrap();
        if end == ".log.old" {
            // It is written when the log is full.
            fs::write(folder.join("locks.db.log"), "x".repeat(1 << 20)).unwrap();
            house.say("acquire a.rs").exits(0);
            house.until("the log began anew", || !Path::new(&link).is_symlink());
        } else {
            let refused = house.say("acquire a.rs");
            assert!(matches!(refused.code, Some(69 | 74)), "{end}: {}", refused.all());
        }
        assert_eq!(fs::read(&precious).unwrap(), b"do not lose this", "{end}");
    }
}

#[test]
fn a_number_in_a_file_is_sent_no_signal() {
    let house = House::new();
    house.say("acquire a.rs").exits(0);
    house.say("stop").exits(0);
    let mut bystander = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let mut card = house.store().into_os_string();
    card.push(".owner");
    // Somebody owns the store and says that it is the bystander.
    let file = File::options().write(true).open(&card).unwrap();
    file.lock().unwrap();
    let said = json!({ "pid": bystander.id(), "reach": null, "since": null });
    fs::write(&card, said.to_string()).unwrap();
    house.say("stop").exits(0);
    house.say("doctor").exits(78);
    house.say("acquire b.rs").exits(69);
    house.say("status").exits(0);
    assert!(bystander.try_wait().unwrap().is_none(), "nobody touched it");
    let _ = bystander.kill();
    let _ = bystander.wait();
}

#[test]
fn what_stands_in_a_name_is_never_a_command_to_the_store() {
    const NAME: &str = "x'); DROP TABLE resource_locks; --";
    let house = House::new();
    house.say("acquire a.rs").exits(0);
    let mut wire = Wire::to(&house);
    let session = wire.open(NAME, NAME);
    let ask = json!({ "project": NAME, "session": session, "resource": format!("file:{NAME}"),
        "reason": NAME, "metadata": NAME, "wait_ms": 0 });
    wire.call("acquire", &ask);
    let count = |args: &[&str]| {
        let rows = house.run(&[&["audit", "--json"], args].concat()).exits(0).json();
        rows["rows"].as_array().unwrap().len()
    };
    let own = count(&["--project", NAME, "--agent", NAME]);
    assert!(own >= 2, "{own}");
    for filter in ["ann' OR '1'='1", "%", "_nn", "ann\" --", "ann\0"] {
        let filter = filter.replace('\0', "");
        let found = count(&["--agent", &filter]);
        assert_eq!(found, if filter == "ann" { count(&["--agent", "ann"]) } else { 0 }, "{filter}");
    }
    let filter = json!({ "project": NAME, "agent": "ann\0' OR 1=1", "event_type": "%' --" });
    assert_eq!(wire.call("audit", &filter), json!([]));
    // Everything is still there, also after a restart.
    house.say("stop").exits(0);
    house.say("acquire b.rs").exits(0);
    let all = house.say("status --everywhere --json").exits(0).json();
    let held = all["projects"].as_array().unwrap().iter().map(|one| one["held"].as_u64().unwrap());
    assert_eq!(held.sum::<u64>(), 3, "{all}");
    house.say("doctor").exits(0);
}

#[test]
fn a_path_that_is_no_text_or_leaves_the_root_is_refused() {
    let house = House::new();
    symlink("/etc", house.repo().join("etc")).unwrap();
    symlink("..", house.repo().join("up")).unwrap();
    for path in ["../x", "/etc/passwd", "etc/passwd", "up/home", "src/../../x", "file:../x"] {
        let refused = house.run(&["acquire", path]).exits(2);
        assert!(refused.err.contains("outside of the project"), "{path}: {}", refused.all());
    }
    let mut ask = house.command();
    let refused = house.run_command(ask.arg("acquire").arg(OsStr::from_bytes(b"src/\xff.rs")));
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    // A case is part of a name; two files that differ by it are two resources.
    house.run_as("ann", &["acquire", "src/A.rs"]).exits(0);
    house.run_as("bob", &["acquire", "src/a.rs"]).exits(0);
    assert!(!house.store().with_file_name("x").exists());
}

/// In a folder where everybody may make files, somebody else was there first.
#[test]
fn a_folder_of_another_user_is_not_used_for_the_socket() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a folder away.
        return;
    }
    let house = House::new();
    let folder = house.path("run/lockkeeper");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(65_534), Some(65_534)).unwrap();
    let refused = house.say("acquire a.rs").exits(77);
    assert!(refused.err.contains("belongs to another user"), "{}", refused.all());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    fs::remove_dir(&folder).unwrap();
    let elsewhere = house.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    let refused = house.say("acquire a.rs").exits(78);
    assert!(refused.err.contains("is a link"), "{}", refused.all());
}
