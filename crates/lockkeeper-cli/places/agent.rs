//! Who asks.
//!
//! `--as`, else a last word (`acquire src/a.js AH-011`), else `$LOCKKEEPER_AGENT`. Without any of
//! them it is the user and the terminal, as in `ann@pts/3`: two terminals are two agents, and one
//! terminal is the same agent with every command. Where there is no terminal it is the user and the
//! machine, as in `ann@desk`.

use super::Surroundings;
use crate::{exit::Exit, trouble::Trouble};
use lockkeeper::LockId;
use rustix::{process::geteuid, system::uname};
use std::{fs, path::Path};

/// The name of somebody who gave none.
pub(crate) fn default_name(around: &Surroundings) -> String {
    let text = |name| around.var(name).and_then(|value| value.into_string().ok());
    let user = text("USER").or_else(|| text("LOGNAME"));
    let user = user.unwrap_or_else(|| format!("uid{}", geteuid().as_raw()));
    let place = terminal().unwrap_or_else(|| {
        let host = uname().nodename().to_string_lossy().into_owned();
        if host.is_empty() { "localhost".to_owned() } else { host }
    });
    format!("{user}@{place}")
}

/// The terminal this process belongs to, wherever its input and output go: `pts/3`.
fn terminal() -> Option<String> {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    if let Some(number) = stat.as_deref().and_then(terminal_number) {
        return terminal_name(number);
    }
    let name = rustix::termios::ttyname(std::io::stdin(), Vec::new())
        .or_else(|_| rustix::termios::ttyname(std::io::stderr(), Vec::new()))
        .or_else(|_| rustix::termios::ttyname(std::io::stdout(), Vec::new()));
    let name = name.ok()?.into_string().ok()?;
    Some(name.strip_prefix("/dev/").unwrap_or(&name).to_owned())
}

/// The seventh field of `/proc/self/stat`. The second one is a name in brackets and may hold
/// anything, so fields are counted from its end.
fn terminal_number(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let number = rest.split_whitespace().nth(4)?;
    number.parse::<i32>().ok().map(i32::cast_unsigned)
}

/// Linux packs the kind of a device and its number among its kind into one number.
fn terminal_name(number: u32) -> Option<String> {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        4 if minor < 64 => Some(format!("tty{minor}")),
        4 => Some(format!("ttyS{}", minor - 64)),
        136..=143 => Some(format!("pts/{}", minor + (major - 136) * 256)),
        0 => None,
        _ => Some(format!("tty{major}.{minor}")),
    }
}

/// Takes the last of several words for an agent, if it looks like one: no `.`, `/` or `:`, and no
/// lock id. What it names on the disk decides nothing; where both could be meant, it is refused.
pub(crate) fn last_word(
    words: &[String],
    named: Option<&str>,
    folder: &Path,
) -> Result<Option<String>, Trouble> {
    let [_, .., last] = words else { return Ok(None) };
    let is_word = !last.contains(['.', '/', ':']) && last.parse::<LockId>().is_err();
    if named.is_some() || !is_word || last.is_empty() {
        return Ok(None);
    }
    match folder.join(last).symlink_metadata() {
        Err(_) => Ok(Some(last.clone())),
        Ok(_) => Err(Trouble::new(
            Exit::Usage,
            "agent_or_file",
            format!("is {last:?} an agent or the file of that name?"),
        )
        .next(format!("write ./{last} for the file, or --as {last} for the agent"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(words: &[&str], named: Option<&str>) -> Result<Option<String>, Trouble> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Makefile"), "").unwrap();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        last_word(&words, named, folder.path())
    }

    #[test]
    fn the_last_word_is_an_agent_if_it_looks_like_one() {
        let agent = |words: &[&str]| last(words, None).unwrap();
        assert_eq!(agent(&["src/example.js", "AH-011"]), Some("AH-011".to_owned()));
        assert_eq!(agent(&["a.rs", "b.rs", "coder_2"]), Some("coder_2".to_owned()));
        assert_eq!(agent(&["AH-011"]), None, "alone it is what is asked for");
        assert_eq!(agent(&["a.rs", "b.rs"]), None);
        assert_eq!(agent(&["a.rs", "./Makefile"]), None);
        assert_eq!(agent(&["a.rs", "gpu:0"]), None);
        assert_eq!(agent(&["a.rs", "0190b5a2-7c1e-7d3a-8f00-1234567890ab"]), None);
        assert_eq!(last(&["a.rs", "Dockerfile"], Some("ann")).unwrap(), None, "--as settles it");
        let doubt = last(&["a.rs", "Makefile"], None).unwrap_err();
        assert_eq!((doubt.exit, &*doubt.code), (Exit::Usage, "agent_or_file"));
        assert!(doubt.next.unwrap().contains("--as Makefile"));
    }

    #[test]
    fn a_terminal_has_the_name_that_who_shows() {
        let stat = |number: u32| format!("7 (a) b) S 1 7 7 {number} 7 4194560 1");
        let name = |number| terminal_number(&stat(number)).and_then(terminal_name);
        assert_eq!(name(136 << 8 | 3).as_deref(), Some("pts/3"));
        assert_eq!(name(137 << 8 | 1).as_deref(), Some("pts/257"));
        assert_eq!(name(4 << 8 | 2).as_deref(), Some("tty2"));
        assert_eq!(name(0), None);
    }

    #[test]
    fn nobody_is_without_a_name() {
        let around =
            Surroundings { variable: Box::new(|_| None), folder: std::path::PathBuf::from("/") };
        let name = default_name(&around);
        assert!(name.starts_with("uid") && name.contains('@') && !name.ends_with('@'), "{name}");
    }
}
