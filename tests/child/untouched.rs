//! What a command inherits, and the codes it ends with.

use crate::{supervisor, supervisor_word};
use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    process::{Command, Output, Stdio},
    thread,
};

fn output(command: &mut Command) -> Output {
    command.output().expect("it starts")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("UTF-8")
}

pub(crate) fn an_exit_code_is_passed_on() {
    for code in [0, 1, 42, 126, 127, 128, 255] {
        let status = supervisor().args(["sh", "-c", &format!("exit {code}")]).status();
        assert_eq!(status.expect("it starts").code(), Some(code));
    }
}

pub(crate) fn a_deadly_signal_becomes_a_code() {
    for (name, code) in [("KILL", 137), ("TERM", 143), ("INT", 130), ("USR1", 138)] {
        let status = supervisor().args(["sh", "-c", &format!("kill -{name} $$")]).status();
        assert_eq!(status.expect("it starts").code(), Some(code), "{name}");
    }
}

pub(crate) fn what_cannot_be_run_is_told_as_a_shell_tells_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("no-program");
    fs::write(&file, "#!/bin/sh\n").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let told = |command: &OsStr, code, words: &str| {
        let output = output(supervisor().arg(command).arg("argument"));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let wanted = format!("lockkeeper: cannot run `{}`: {words}\n", command.display());
        assert_eq!(text(&output.stderr), wanted);
    };
    told("no-such-program-anywhere".as_ref(), 127, "not found");
    told(folder.path().join("none").as_os_str(), 127, "not found");
    told(file.as_os_str(), 126, "not executable (permission denied)");
    told(folder.path().as_os_str(), 126, "not executable (permission denied)");
}

pub(crate) fn ours_wins_in_the_environment() {
    let mut command = supervisor();
    command.env("SUPERVISED", "theirs").env("KEPT", "kept");
    let output = output(command.args(["sh", "-c", "echo $SUPERVISED $KEPT"]));
    assert_eq!(text(&output.stdout), "ours kept\n");
}

pub(crate) fn arguments_are_bytes() {
    for argument in [&b"\xff\xfe\n'\"$x"[..], b"", b"--help", b"__become", b" a  b "] {
        let argument = OsStr::from_bytes(argument);
        let mut command = supervisor();
        command.args(["sh", "-c", "printf '<%s>' \"$0\" \"$@\"", "zero"]);
        let output = output(command.arg(argument).arg("last"));
        let wanted = [b"<zero><", argument.as_bytes(), b"><last>"].concat();
        assert_eq!(output.stdout, wanted, "{argument:?}");
    }
}

pub(crate) fn stdin_goes_straight_to_the_command() {
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (input, output) = (Stdio::piped(), Stdio::piped());
    let mut process =
        supervisor().arg("cat").stdin(input).stdout(output).spawn().expect("it starts");
    let mut input = process.stdin.take().expect("it is a pipe");
    let written = data.clone();
    let writer = thread::spawn(move || input.write_all(&written));
    let output = process.wait_with_output().expect("it is ours");
    writer.join().expect("no panic").expect("all of it was read");
    assert!(output.stdout == data, "{} bytes arrived", output.stdout.len());

    // The file itself, not a copy of what is in it: who reads next goes on where it stopped.
    let script = format!("{} sh -c 'read a; echo got $a'; read b; echo then $b", supervisor_word());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("lines");
    fs::write(&file, "one\ntwo\n").expect("a file");
    let input = fs::File::open(file).expect("it is there");
    let output = output_of_shell(&script, input.into());
    assert_eq!(output, "got one\nthen two\n");
}

fn output_of_shell(script: &str, input: Stdio) -> String {
    let output = output(Command::new("sh").args(["-c", script]).stdin(input));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout).to_owned()
}

/// A script run by itself and run under supervision, in a shell that was prepared in one way.
fn with_and_without(prepared: &str, script: &str) -> [String; 2] {
    ["", &supervisor_word()].map(|before| {
        let script = format!("{prepared}; {before} {script}");
        output_of_shell(&script, Stdio::null())
    })
}

pub(crate) fn open_files_are_inherited_and_none_is_added() {
    let [without, with] = with_and_without("exec 7</dev/zero 5>/dev/null", "ls /proc/self/fd");
    assert!(without.contains('7') && without.contains('5'), "{without}");
    assert_eq!(with, without);
    // A closed stdin is opened by every Rust program, lest the next file take its number.
    let [without, with] = with_and_without("exec 7</dev/zero 0<&-", "readlink /proc/self/fd/7");
    assert_eq!(with, without);
}

pub(crate) fn ignored_signals_stay_ignored() {
    let look = "grep -E '^(SigIgn|SigBlk|SigCgt)' /proc/self/status";
    for prepared in ["trap '' HUP INT QUIT", "trap '' TERM USR1 CHLD TSTP TTOU", ":"] {
        let [without, with] = with_and_without(prepared, look);
        assert_eq!(with, without, "{prepared}");
    }
}

pub(crate) fn the_command_leads_a_group_of_its_own() {
    let output = output(supervisor().args(["sh", "-c", "echo $$; cut -d' ' -f5 /proc/$$/stat"]));
    let numbers: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(numbers.len(), 2);
    assert_eq!(numbers[0], numbers[1]);
}
