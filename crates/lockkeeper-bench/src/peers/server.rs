//! Servers in processes of their own: started, waited for, and ended whatever happens.

use crate::{
    place,
    trouble::{Result, Trouble, trouble},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a server may take to serve, and to end when it is asked to.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });

/// A server and its folder; both end with this.
pub(crate) struct Server {
    process: Child,
    /// What it is asked to end with.
    end: Signal,
    said: File,
    pub(crate) folder: TempDir,
}

/// Why somebody does not take part.
pub(crate) type Missing = String;

/// Whoever is not installed is told apart from whoever is and fails.
pub(crate) fn installed(name: &str) -> std::result::Result<std::path::PathBuf, Missing> {
    place::program(name).ok_or_else(|| "not installed".to_owned())
}

/// Says why an installed one does not take part.
pub(crate) fn failed(why: &Trouble) -> Missing {
    format!("did not start: {why}")
}

impl Server {
    /// Starts a program. What it says is kept, to be told should it fail.
    pub(crate) fn start(mut command: Command, folder: TempDir, end: Signal) -> Result<Server> {
        let said = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(folder.path().join("said"))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
        let process = command.spawn()?;
        Ok(Server { process, end, said, folder })
    }

    /// Waits until somebody gets through to it.
    pub(crate) async fn ready<T, F>(&mut self, mut connect: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begun = Instant::now();
        loop {
            match connect().await {
                Ok(connected) => return Ok(connected),
                Err(why) if begun.elapsed() > STARTS_WITHIN => return Err(why),
                Err(_) => {}
            }
            if let Some(ended) = self.process.try_wait()? {
                return trouble(format!("it ended ({ended}): {}", self.last_words()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn last_words(&mut self) -> String {
        let mut said = String::new();
        let _ = self.said.seek(SeekFrom::Start(0));
        let _ = self.said.read_to_string(&mut said);
        said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
            && matches!(self.process.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, self.end);
            let begun = Instant::now();
            while begun.elapsed() < ENDS_WITHIN {
                if !matches!(self.process.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Server {
        shell_with(line, Signal::TERM)
    }

    fn shell_with(line: &str, end: Signal) -> Server {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        Server::start(command, place::folder().unwrap(), end).unwrap()
    }

    #[test]
    fn a_server_ends_with_its_owner() {
        let server = shell("exec sleep 600");
        let there = std::path::PathBuf::from(format!("/proc/{}", server.pid()));
        assert!(there.exists());
        drop(server);
        assert!(!there.exists());
    }

    #[test]
    fn a_server_that_does_not_care_is_killed() {
        let server = shell_with("exec sleep 600", Signal::CONT);
        let there = std::path::PathBuf::from(format!("/proc/{}", server.pid()));
        drop(server);
        assert!(!there.exists());
    }

    #[tokio::test]
    async fn a_server_that_fails_is_quoted() {
        let mut server = shell("echo 'the port is taken'; exit 3");
        let never = || async { trouble::<()>("nobody there") };
        let failed = server.ready(never).await.unwrap_err().to_string();
        assert!(
            failed.contains("exit status: 3") && failed.ends_with("the port is taken"),
            "{failed}"
        );
    }
}
