//! A command under a lock, as a shell would run it.

use crate::{
    args::Plan,
    peers::{
        house::House,
        redis::Keeps,
        server::{Missing, installed},
    },
    place,
    rounds::{Entry, Race},
    sheet::{Sheet, Unit},
    stats,
    trouble::{Result, Trouble, trouble},
};
use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// A shell line that takes a key, runs a command, and gives the key back.
const REDIS: &str = "redis-cli -s \"$0\" SET lock $$ NX PX 30000 >/dev/null && true; \
    redis-cli -s \"$0\" EVAL \"if redis.call('get',KEYS[1])==ARGV[1] then \
    return redis.call('del',KEYS[1]) else return 0 end\" 1 lock $$ >/dev/null";

/// What is typed.
struct Line(Vec<OsString>);

impl Line {
    fn of(words: impl IntoIterator<Item = impl Into<OsString>>) -> Line {
        Line(words.into_iter().map(Into::into).collect())
    }
}

pub(crate) async fn run(plan: &Plan, house: &House) -> Result<Vec<Sheet>> {
    let folder = place::folder()?;
    let times = plan.size(10, 3);
    let daemon = house.daemon().await?;
    let mut ours = Line::of([crate::peers::daemon::program()?]);
    ours.0.extend(["run", "--project", "bench", "--socket"].map(OsString::from));
    ours.0.extend([daemon.socket().into(), "--store".into(), daemon.store().into()]);
    ours.0.extend(["gpu:0", "--", "true"].map(OsString::from));
    let mut entries = vec![
        row(Entry::ours("lockkeeper run"), Ok(ours), times, folder.path()),
        row(
            Entry::new("the command alone: the floor"),
            Ok(Line::of(["true"])),
            times,
            folder.path(),
        ),
        row(Entry::new("flock"), flock(folder.path()), times, folder.path()),
    ];
    for (name, line) in
        [("sh with redis-cli", redis(house).await), ("etcdctl lock", etcd(house, plan).await)]
    {
        entries.push(row(Entry::new(name), line, times, folder.path()));
    }
    let race = Race {
        scenario: "command",
        sheets: vec![("a command under a lock, from the shell's view".to_owned(), Unit::Millis)],
        across: "",
        columns: vec!["`true`".to_owned()],
        entries,
    };
    plan.rounds.run(race).await
}

fn flock(folder: &Path) -> std::result::Result<Line, Missing> {
    let program = installed("flock")?;
    Ok(Line::of([program.into(), folder.join("lock").into(), OsString::from("true")]))
}

async fn redis(house: &House) -> std::result::Result<Line, Missing> {
    installed("redis-cli")?;
    let redis = house.redis(Keeps::EverySecond).await?;
    Ok(Line::of(["sh".into(), "-c".into(), OsString::from(REDIS), redis.socket().into()]))
}

async fn etcd(house: &House, plan: &Plan) -> std::result::Result<Line, Missing> {
    let program = installed("etcdctl")?;
    if !plan.rounds.takes("etcdctl lock") {
        return Err("not asked for".to_owned());
    }
    let url = format!("--endpoints={}", house.etcd().await?.url());
    Ok(Line::of([program.into(), OsString::from(url), "lock".into(), "l".into(), "true".into()]))
}

/// Runs a line so many times; the median.
fn row(
    entry: Entry,
    line: std::result::Result<Line, Missing>,
    times: usize,
    folder: &Path,
) -> Entry {
    let line = match line {
        Ok(line) => line.0,
        Err(why) => return entry.absent(why),
    };
    let folder = folder.to_owned();
    entry.job(move || {
        let (line, folder) = (line.clone(), folder.clone());
        async move {
            let measured = tokio::task::spawn_blocking(move || {
                (0..times).map(|_| once(&line, &folder)).collect::<Result<Vec<f64>>>()
            });
            let mut took = measured.await??;
            took.sort_by(f64::total_cmp);
            let median = stats::at(&took, 0.5);
            Ok(vec![median.ok_or_else(|| Trouble("measured no time".to_owned()))?])
        }
    })
}

fn once(line: &[OsString], folder: &Path) -> Result<f64> {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).current_dir(folder).env("ETCDCTL_API", "3").env("HOME", folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let ended = command.spawn()?.wait_with_output()?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    match ended.status.success() {
        true => Ok(took),
        false => trouble(format!(
            "{} ended with {}: {}",
            line[0].display(),
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim()
        )),
    }
}
