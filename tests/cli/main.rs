//! The command line as a user meets it: through the built binary.
//!
//! | file | its part |
//! |---|---|
//! | `simulate.rs` | the verb `simulate`: its table, its JSON, its exit codes |
//! | `usage.rs` | help, version, and what is said to wrong usage |
//! | `documents.rs` | every command the documents and the help show is run |

mod documents;
mod simulate;
mod usage;

use std::process::{Command, Output, Stdio};

/// What a run of the binary left behind.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The exit code and both outputs, for when a test fails.
    fn all(&self) -> String {
        format!("exit {:?}\nstdout:\n{}\nstderr:\n{}", self.code, self.out, self.err)
    }
}

fn lockkeeper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockkeeper"));
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Ran {
    Ran::of(lockkeeper().args(args).output().expect("the binary starts"))
}
