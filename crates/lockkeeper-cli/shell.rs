//! The verbs `completions` and `man`: both are made from the definition of the command line.

use crate::{
    args::{
        help,
        shell::{Completions, Man, Shell},
    },
    exit::Exit,
    output::Answer,
    trouble::Trouble,
};
use clap::Command;
use serde_json::json;
use std::{fs, io, path::Path};

pub(crate) fn completions(wanted: &Completions) -> Result<Answer, Trouble> {
    use clap_complete::{generate, shells};
    let mut command = help::command();
    let mut bytes = Vec::new();
    let name = "lockkeeper";
    match wanted.shell {
        Shell::Bash => generate(shells::Bash, &mut command, name, &mut bytes),
        Shell::Zsh => generate(shells::Zsh, &mut command, name, &mut bytes),
        Shell::Fish => generate(shells::Fish, &mut command, name, &mut bytes),
    }
    Ok(printed(bytes, "script"))
}

pub(crate) fn man(wanted: &Man) -> Result<Answer, Trouble> {
    let command = manual();
    if let Some(folder) = &wanted.dir {
        return write_all(&command, folder);
    }
    let verb = match &wanted.verb {
        None => &command,
        Some(name) => command.find_subcommand(name).ok_or_else(|| {
            Trouble::new(Exit::Usage, "usage", format!("there is no verb {name:?}"))
                .next("`lockkeeper --help` lists them")
        })?,
    };
    Ok(printed(page(verb).map_err(|error| Trouble::unwritten(&error))?, "page"))
}

fn printed(bytes: Vec<u8>, field: &str) -> Answer {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer::done(text.clone(), json!({ field: text }))
}

/// The definition as a manual shows it: each verb by its full name, and the verbs that are not
/// shown left out.
fn manual() -> Command {
    let mut command = help::command();
    command.build();
    command
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut bytes)?;
    Ok(bytes)
}

fn write_all(command: &Command, folder: &Path) -> Result<Answer, Trouble> {
    let mut files = Vec::new();
    let write = |files: &mut Vec<String>| -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut open = vec![command];
        while let Some(next) = open.pop() {
            open.extend(next.get_subcommands().filter(|verb| !verb.is_hide_set()));
            let name = next.get_display_name().unwrap_or(next.get_name());
            let file = format!("{name}.1");
            fs::write(folder.join(&file), page(next)?)?;
            files.push(file);
        }
        Ok(())
    };
    write(&mut files).map_err(|error| {
        let what = format!("cannot write into {}: {error}", folder.display());
        Trouble::new(Exit::Failed, "unwritten", what)
    })?;
    files.sort();
    let text = format!("{} pages written into {}", files.len(), folder.display());
    Ok(Answer::done(text, json!({ "folder": folder.display().to_string(), "files": files })))
}
