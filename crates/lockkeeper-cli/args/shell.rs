//! The verbs that help a shell to help you.

use clap::ValueEnum;
use std::path::PathBuf;

/// Print completions for a shell.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper completions bash      into ~/.local/share/bash-completion/completions/lockkeeper
  lockkeeper completions zsh       into _lockkeeper in a folder of your fpath
  lockkeeper completions fish      into ~/.config/fish/completions/lockkeeper.fish

Exit codes: 0 printed, 2 wrong usage.")]
pub(crate) struct Completions {
    /// For which
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// The shells there are completions for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shell {
    /// GNU bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// Print the manual page, or write all of them into a folder.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  lockkeeper man                   the page of the program; read it with `man -l -`
  lockkeeper man acquire           the page of a verb
  lockkeeper man --dir man1        one file a verb, for packages

Exit codes: 0 printed, 1 a file could not be written, 2 wrong usage.")]
pub(crate) struct Man {
    /// Of this verb
    #[arg(value_name = "VERB", conflicts_with = "dir")]
    pub(crate) verb: Option<String>,

    /// Write the page of each verb into this folder
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}
