//! The daemon nobody starts: races, remains of dead ones, troubles, older and newer ones, its end.

use crate::support::{House, Ran, is_ours, kill};
use lockkeeper::wire::PROTOCOL;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// The processes of the binary under test that were started for this house.
fn daemons(house: &House) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("a healthy system").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if is_ours(pid)
            && line.contains("serve")
            && line.contains(house.store().to_str().expect("a healthy system"))
        {
            found.push(pid);
        }
    }
    found
}

#[test]
fn twenty_first_verbs_start_one_daemon() {
    let house = House::new();
    let all: Vec<Child> = (0..20)
        .map(|nth| house.start(house.command().args(["acquire", &format!("f{nth}.rs"), "--json"])))
        .collect();
    for child in all {
        house.finish(child).exits(0);
    }
    assert_eq!(daemons(&house), [house.daemon().unwrap()]);
    let object = house.say("status --json").json();
    assert_eq!(object["held"], 20, "{object}");
    // Nobody took the project over from anybody.
    let rows = house.say("audit --kind resumed --json").json();
    assert_eq!(rows["rows"].as_array().map(Vec::len), Some(1), "{rows}");
}

#[test]
fn the_remains_of_a_dead_daemon_are_in_nobody_s_way() {
    let house = House::new();
    house.say("acquire a.rs").exits(0);
    let first = house.daemon().unwrap();
    let bystander = Command::new("sleep").arg("600").spawn().unwrap();
    kill_and_wait(&house, first);
    assert!(house.socket().exists(), "a killed daemon leaves its socket");
    // A number may belong to somebody else by now.
    let card = format!(r#"{{"pid":{},"reach":"{}"}}"#, bystander.id(), house.socket().display());
    fs::write(beside(&house.store(), ".owner"), card).unwrap();
    let shown = house.say("status").exits(0);
    assert!(shown.out.contains("file:a.rs") && shown.out.contains("no daemon runs"));
    assert_eq!(house.daemon(), None, "to look starts nothing");
    house.say("release a.rs").exits(0);
    assert!(house.daemon().is_some_and(|second| second != first));
    assert!(Path::new(&format!("/proc/{}", bystander.id())).exists());
    end(bystander);
}

fn kill_and_wait(house: &House, pid: u32) {
    kill(pid, "KILL");
    house.until("the daemon is gone", || !is_ours(pid));
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Whoever waits does not even notice.
#[test]
fn a_wait_outlives_the_daemon() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let ask = ["acquire", "a.rs", "--wait", "50s", "--json"];
    let bob = house.start(house.command_as("bob").args(ask));
    house.until_waiting("a.rs", 1);
    let cy = house.start(house.command_as("cy").args(ask));
    house.until_waiting("a.rs", 2);
    kill_and_wait(&house, house.daemon().unwrap());
    // Whoever comes now stands behind those who were there before.
    house.run_as("dan", &["acquire", "a.rs", "--wait", "1m", "--slice", "0"]).exits(75);
    house.until_waiting("a.rs", 3);
    house.run_as("ann", &["release", "a.rs"]).exits(0);
    let granted = house.finish(bob).exits(0).json();
    assert!(granted["grants"][0]["waited_ms"].as_u64() > Some(0), "{granted}");
    house.run_as("bob", &["release", "a.rs"]).exits(0);
    house.finish(cy).exits(0);
}

/// `stop` ends it in order; those who wait start the next one, and keep their places.
#[test]
fn a_wait_outlives_an_orderly_end_too() {
    let house = House::new();
    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    let bob = house.start(house.command_as("bob").args(["acquire", "a.rs", "--wait", "50s"]));
    house.until_waiting("a.rs", 1);
    let ended = house.say("stop --json").exits(0).json();
    assert_eq!((&ended["was_running"], &ended["locks"]), (&true.into(), &1.into()));
    house.run_as("ann", &["release", "a.rs"]).exits(0);
    house.finish(bob).exits(0);
    house.say("stop").exits(0);
    let again = house.say("stop --json").exits(0).json();
    // Nobody waits any more, so nobody has started it again.
    assert_eq!(again["was_running"], false);
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let house = House::new();
    let folder = house.store().parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    fs::write(house.store(), "this is no database, and long enough not to be taken for one")
        .unwrap();
    let refused = house.say("acquire a.rs --json").exits(74).json();
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("is not a lock store, or is damaged"), "{message}");
    let shown = house.say("status").exits(74);
    assert!(shown.err.contains("is not a lock store"), "{}", shown.all());
    fs::remove_file(house.store()).unwrap();
    // A socket where it cannot be.
    let odd = house.path("run/file");
    fs::write(&odd, "").unwrap();
    let refused = house.run(&["acquire", "a.rs", "--socket", odd.to_str().unwrap()]).exits(78);
    assert!(refused.err.contains("is there and is not a socket"), "{}", refused.all());
    let mut ask = house.command();
    ask.args(["acquire", "a.rs"]).env("LOCKKEEPER_IDLE_EXIT", "soon");
    let refused = house.run_command(&mut ask).exits(78);
    assert!(refused.err.contains("LOCKKEEPER_IDLE_EXIT is \"soon\""), "{}", refused.all());
    let mut ask = house.command();
    ask.args(["acquire", "a.rs"]).env("LOCKKEEPER_STORE", house.path("run/file/locks.db"));
    house.run_command(&mut ask).exits(74);
    house.say("acquire a.rs").exits(0);
}

/// Whatever the script had open that started it: a pipe would never end, a lock never be free.
#[test]
fn a_daemon_keeps_nothing_of_what_started_it() {
    let house = House::new();
    let program = env!("CARGO_BIN_EXE_lockkeeper");
    let script = format!("exec 3>&1 9>lock 27>&1; flock 9; {program} acquire a.rs >&2; echo done");
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).stdin(Stdio::null());
    house.furnish(&mut shell);
    // This ends only when nobody has the pipe any more.
    let ran = house.run_command(&mut shell).exits(0);
    assert_eq!(ran.out, "done\n", "{}", ran.all());
    let daemon = house.daemon().expect("it runs on");
    let mut flock = Command::new("flock");
    flock.args(["--nonblock", "lock", "true"]);
    house.furnish(&mut flock);
    house.run_command(&mut flock).exits(0);
    let folder = fs::read_link(format!("/proc/{daemon}/cwd")).unwrap();
    assert_eq!(folder, Path::new("/"), "the folder can be removed");
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(fields[3], daemon.to_string(), "it leads a session of its own");
    assert_eq!(fields[4], "0", "it has no terminal");
}

#[test]
fn it_ends_when_nobody_needs_it() {
    let house = House::new();
    let mut ask = house.command();
    ask.args(["acquire", "a.rs"]).env("LOCKKEEPER_IDLE_EXIT", "30ms");
    house.run_command(&mut ask).exits(0);
    let daemon = house.daemon().unwrap();
    // What is held needs it, however long that takes.
    thread::sleep(std::time::Duration::from_millis(200));
    assert!(is_ours(daemon), "something is held");
    house.say("release a.rs").exits(0);
    house.until("the daemon has ended", || !is_ours(daemon));
    assert!(!house.socket().exists(), "and has taken its socket along");
    house.say("status").exits(0);
    assert_eq!(daemons(&house), [0u32; 0]);
}

/// Every file of the store, and what is in it.
fn bytes(house: &House) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = house.store().parent().expect("a healthy system").to_owned();
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a healthy system")
        .map(|entry| entry.expect("a healthy system").path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).expect("a healthy system")))
        .collect()
}

const LOOKS: &[&str] = &[
    "status",
    "status a.rs",
    "status --everywhere",
    "check b.rs",
    "queue a.rs",
    "why a.rs",
    "graph",
    "audit",
    "stats",
    "task list",
    "doctor",
];

#[test]
fn to_look_starts_nothing_and_changes_not_a_byte() {
    let house = House::new();
    for look in LOOKS {
        house.say(look).exits(0);
    }
    assert!(!house.store().parent().unwrap().exists(), "not even a folder was made");
    assert!(!house.path("run/lockkeeper").exists());

    house.run_as("ann", &["acquire", "a.rs"]).exits(0);
    house.run_as("bob", &["acquire", "a.rs", "-w", "1m", "--slice", "0"]).exits(75);
    // Killed, it leaves everything as it was in the middle of its work.
    kill_and_wait(&house, house.daemon().unwrap());
    let before = bytes(&house);
    assert!(before.iter().any(|(path, bytes)| path.ends_with("locks.db-wal") && !bytes.is_empty()));
    for look in LOOKS {
        house.say(look).exits(0);
        house.say(&format!("{look} --json")).exits(0).json();
    }
    assert!(house.say("status").out.contains("file:a.rs"));
    assert!(house.say("queue a.rs").out.contains("bob"));
    let after = bytes(&house);
    assert!(before == after, "{:?}", after.iter().map(|(path, _)| path).collect::<Vec<_>>());
    assert_eq!(daemons(&house), [0u32; 0]);

    // And with a daemon there are no writes because of them.
    house.run_as("ann", &["renew", "a.rs"]).exits(0);
    let rows = || house.say("audit --limit 1000 --json").json()["rows"].as_array().unwrap().len();
    let before = rows();
    for look in LOOKS {
        house.say(look).exits(0);
    }
    assert_eq!(rows(), before);
}

#[test]
fn another_user_is_not_let_in() {
    use std::os::unix::process::CommandExt;
    // Only root can become somebody else; elsewhere the server's own tests have to do.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let house = House::new();
    house.say("acquire a.rs").exits(0);
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(house.path("."), open.clone()).unwrap();
    // A copy, for the build folder need not be open to others.
    let program = house.path("lockkeeper");
    fs::copy(env!("CARGO_BIN_EXE_lockkeeper"), &program).unwrap();
    fs::set_permissions(&program, open).unwrap();
    let mut ask = Command::new(&program);
    house.furnish(&mut ask);
    ask.args(["status", "--socket", house.socket().to_str().unwrap()]).uid(65_534).gid(65_534);
    let refused = house.run_command(&mut ask).exits(77);
    assert!(!refused.err.contains("a.rs"), "{}", refused.all());
}

/// Stands before a daemon and makes it look older; its socket is gone when the daemon is.
fn pretend_older(socket: &Path, real: &Path) {
    let listener = UnixListener::bind(socket).expect("a healthy system");
    let (socket, real) = (socket.to_owned(), real.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(daemon) = UnixStream::connect(&real) else { continue };
            let (socket, from_client) =
                (socket.clone(), client.try_clone().expect("a healthy system"));
            let mut to_daemon = daemon.try_clone().expect("a healthy system");
            thread::spawn(move || {
                let _ = std::io::copy(&mut &from_client, &mut to_daemon);
                let _ = to_daemon.shutdown(Shutdown::Write);
            });
            thread::spawn(move || older_answers(daemon, client, &socket));
        }
    });
}

fn older_answers(daemon: UnixStream, mut client: UnixStream, socket: &Path) {
    let ours = format!(r#""version":"{}""#, env!("CARGO_PKG_VERSION"));
    let mut was_stopped = false;
    for line in BufReader::new(daemon).lines().map_while(Result::ok) {
        was_stopped |= line.contains("idle_exit_ms");
        let _ = writeln!(client, "{}", line.replace(&ours, r#""version":"0.0.1""#));
    }
    if was_stopped {
        let _ = fs::remove_file(socket);
    }
    let _ = client.shutdown(Shutdown::Both);
}

#[test]
fn an_older_daemon_hands_over_and_what_is_held_stays_held() {
    let house = House::new();
    let real = house.path("run/real.sock");
    let real = real.to_str().unwrap();
    house.run_as("ann", &["acquire", "a.rs", "--socket", real]).exits(0);
    let ask = ["acquire", "a.rs", "--socket", real, "--wait", "50s"];
    let bob = house.start(house.command_as("bob").args(ask));
    house.until_waiting("a.rs", 1);
    let first = house.daemon().unwrap();
    let older = house.path("run/older.sock");
    pretend_older(&older, Path::new(real));
    let older = older.to_str().unwrap();
    let asked = house.run_as("cy", &["acquire", "a.rs", "--socket", older]).exits(75);
    assert!(asked.err.contains("the daemon is version 0.0.1"), "{}", asked.all());
    assert!(asked.err.contains("file:a.rs is locked by ann"), "{}", asked.all());
    assert!(house.daemon().is_some_and(|second| second != first), "another one serves");
    house.run_as("ann", &["release", "a.rs"]).exits(0);
    house.finish(bob).exits(0);
}

/// Says hello as somebody else, and ends when asked to.
fn stranger(socket: &Path, version: &'static str) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).expect("a healthy system");
    let socket = socket.to_owned();
    thread::spawn(move || {
        let mut asked = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut answers = stream.try_clone().expect("a healthy system");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let request: Value = serde_json::from_str(&line).expect("a healthy system");
                let method = request["method"].as_str().expect("a healthy system").to_owned();
                let result = serde_json::json!({ "version": version, "protocol": 0 });
                let answer = serde_json::json!({ "id": request["id"], "result": result });
                let _ = writeln!(answers, "{answer}");
                asked.push(method.clone());
                if method == "daemon.stop" {
                    fs::remove_file(&socket).expect("a healthy system");
                    return asked;
                }
            }
        }
        asked
    })
}

#[test]
fn a_daemon_that_speaks_otherwise_is_replaced_if_it_is_older() {
    let house = House::new();
    let socket = house.path("run/other.sock");
    let path = socket.to_str().unwrap().to_owned();
    let older = stranger(&socket, "0.0.1");
    let asked = house.run(&["acquire", "a.rs", "--socket", &path]).exits(0);
    assert!(asked.err.contains("the daemon is version 0.0.1"), "{}", asked.all());
    assert_eq!(older.join().unwrap().last().map(String::as_str), Some("daemon.stop"));
    house.run(&["stop", "--socket", &path]).exits(0);

    let newer = stranger(&socket, "99.0.0");
    let asked = house.run(&["acquire", "b.rs", "--socket", &path, "--json"]).exits(69).json();
    assert_eq!(asked["error"]["code"], "other_version");
    assert_eq!(asked["error"]["daemon_version"], "99.0.0");
    // What is on record can be read all the same.
    let shown = house.run(&["status", "--socket", &path]).exits(0);
    assert!(shown.out.contains("file:a.rs"), "{}", shown.all());
    // Whoever wants it gone may say so.
    house.run(&["stop", "--socket", &path]).exits(0);
    assert_eq!(newer.join().unwrap().last().map(String::as_str), Some("daemon.stop"));
}

#[test]
fn in_the_foreground_it_says_where_it_is_and_ends_with_ctrl_c() {
    let house = House::new();
    let mut serve = house.command();
    serve.args(["serve", "--json", "--http", "127.0.0.1:0"]);
    let mut serving = house.start(&mut serve);
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&said["ok"], &said["pid"]), (&true.into(), &serving.id().into()));
    assert!(said["http"][0].as_str().is_some_and(|addr| addr.starts_with("127.0.0.1:")), "{said}");
    house.say("acquire a.rs").exits(0);
    let second = house.say("serve").exits(69);
    assert!(second.err.contains("already"), "{}", second.all());
    kill(serving.id(), "INT");
    let ended: Ran = house.finish(serving);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    // What was taken is kept.
    assert_eq!(house.say("status --json").json()["held"], 1);
    let open = house.say("serve --http 0.0.0.0:0").exits(78);
    assert!(open.err.contains("set a token"), "{}", open.all());
}

#[test]
fn a_store_is_migrated_only_when_nobody_has_it() {
    let house = House::new();
    let none = house.say("migrate").exits(74);
    assert!(none.err.contains("there is no lock store at"), "{}", none.all());
    house.say("acquire a.rs").exits(0);
    let busy = house.say("migrate --backup").exits(69);
    assert!(busy.err.contains("lockkeeper stop"), "{}", busy.all());
    house.say("stop").exits(0);
    let object = house.say("migrate --backup --json").exits(0).json();
    assert_eq!(object["from"], object["to"]);
    let copy = object["backup"].as_str().map(Path::new);
    assert!(copy.is_none_or(Path::exists), "{object}");
}

/// Whoever comes when a daemon has the store and does not listen yet waits for it to listen, not
/// for its end.
#[test]
fn a_daemon_that_is_about_to_serve_is_waited_for() {
    let house = House::new();
    house.say("acquire a.rs").exits(0);
    house.say("stop").exits(0);
    // We are that daemon: we own the store, and then we listen.
    let card = fs::File::options().write(true).open(beside(&house.store(), ".owner")).unwrap();
    card.lock().unwrap();
    let said = json!({ "pid": null, "reach": house.socket(), "since": null });
    fs::write(beside(&house.store(), ".owner"), said.to_string()).unwrap();
    let early = house.start(house.command().args(["acquire", "b.rs"]));
    let starts = fs::File::options().write(true).open(beside(&house.store(), ".start")).unwrap();
    house.until("it wants to start one", || {
        let is_taken = starts.try_lock().is_err();
        is_taken || starts.unlock().is_err()
    });
    // So that it has looked, and found nobody.
    thread::sleep(Duration::from_millis(200));
    let listener = UnixListener::bind(house.socket()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                let asked: Value = serde_json::from_str(&line).unwrap();
                let mut answer = match asked["method"].as_str() {
                    Some("hello") => json!({ "result": {
                        "version": env!("CARGO_PKG_VERSION"), "protocol": PROTOCOL, "pid": 1,
                        "store": null, "started_at": 1, "now": 2, "now_for_us": 0
                    } }),
                    _ => json!({ "error": { "code": -32_603, "message": "we are here" } }),
                };
                answer["id"] = asked["id"].clone();
                let _ = writeln!(stream, "{answer}");
            }
        }
    });
    let told = house.finish(early);
    assert!(told.all().contains("we are here"), "{}", told.all());
}

#[test]
fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let house = House::new();
    house.say("doctor").exits(0);
    house.say("acquire a.rs").exits(0);
    let well = house.say("doctor").exits(0);
    for words in ["ok      daemon    version", "ok      store", "ok      disk", "ok      clock"] {
        assert!(well.out.contains(words), "no {words:?}: {}", well.all());
    }
    fs::set_permissions(house.store(), fs::Permissions::from_mode(0o644)).unwrap();
    let open = house.say("doctor --json").exits(78).json();
    assert_eq!((&open["ok"], &open["exit"]), (&false.into(), &78.into()));
    let trouble = open["checks"].as_array().unwrap().iter().find(|one| one["state"] == "trouble");
    let trouble = trouble.unwrap();
    assert!(trouble["remedy"].as_str().unwrap().contains("chmod 600"), "{trouble}");
    fs::set_permissions(house.store(), fs::Permissions::from_mode(0o600)).unwrap();
    // Whoever can write its folder can put another store in its place, unless the folder is sticky.
    let folder = house.store().parent().unwrap().to_owned();
    let so = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    so(0o777);
    let open = house.say("doctor").exits(78);
    assert!(open.out.contains("can be written by everybody"), "{}", open.all());
    assert!(open.out.contains("chmod go-w"), "{}", open.all());
    so(0o1777);
    assert!(!house.say("doctor").exits(0).out.contains("can be written"));
    so(0o770);
    let group = house.say("doctor").exits(0);
    assert!(group.out.contains("can be written by its group"), "{}", group.all());
    so(0o700);
    assert!(!house.say("doctor").exits(0).out.contains("can be written"));

    let long = house.path(&"d".repeat(120));
    let mut ask = house.command();
    ask.arg("doctor").env("LOCKKEEPER_SOCKET", &long);
    let told = house.run_command(&mut ask).exits(78);
    assert!(told.err.contains("the path of a socket can have"), "{}", told.all());
    fs::set_permissions(house.path("run/lockkeeper"), fs::Permissions::from_mode(0o777)).unwrap();
    let told = house.say("doctor").exits(78);
    assert!(told.out.contains("can be written by other users"), "{}", told.all());
    house.say("status").exits(78);
    fs::set_permissions(house.path("run/lockkeeper"), fs::Permissions::from_mode(0o700)).unwrap();
}
