//! The verbs for whoever looks after things: `force-unlock`, `capacity`.

use super::{acquire::strange, views};
use crate::{
    args::locks::{Capacity, ForceUnlock},
    daemon::desk::Desk,
    exit::Exit,
    output::{self, Answer, shape, style::Style, words},
    trouble::{Trouble, Wanted},
};
use lockkeeper::{DeclareCapacity, Resource};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Write};

pub(super) async fn force_unlock(
    desk: &mut Desk,
    wanted: &ForceUnlock,
    resource: Resource,
) -> Result<Answer, Trouble> {
    let found = views::inspected(&mut desk.look(), &resource).await?;
    if found.holders.is_empty() {
        let what = format!("nobody holds {resource}, so there is nothing to break");
        return Err(Trouble::new(Exit::Lost, "unknown", what));
    }
    if !wanted.yes {
        output::remark(&views::told(&found, desk.now(), Style::of_stderr()));
        if !agreed(&resource)? {
            return Err(Trouble::new(Exit::NotPermitted, "declined", "nothing was broken"));
        }
    }
    let unlock = lockkeeper::ForceUnlock {
        resource: resource.clone(),
        admin: desk.here.agent.as_str().into(),
        reason: wanted.reason.as_str().into(),
    };
    let answer = desk.command(unlock).await?;
    match answer.map_err(|error| desk.told(&error, Wanted::Admin))? {
        lockkeeper::Answer::ForceUnlocked { previous } => {
            let agents: Vec<String> = previous.iter().map(|one| words::plain(&one.agent)).collect();
            let now = desk.now();
            let holders: Vec<Value> =
                previous.iter().map(|holder| shape::holder(holder, now)).collect();
            let text = format!("{resource} was taken from {}", words::listed(&agents));
            Ok(Answer::done(text, json!({ "resource": resource.as_str(), "broken": holders })))
        }
        other => Err(strange(&other)),
    }
}

/// Asks, if there is somebody to ask.
fn agreed(resource: &Resource) -> Result<bool, Trouble> {
    let (stdin, stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        let what = "nobody is there to ask whether this may be broken";
        return Err(Trouble::new(Exit::NotPermitted, "not_confirmed", what)
            .next("ask the holder; whoever is sure says --yes"));
    }
    let question = format!("Take {resource} away from whoever holds it? [y/N] ");
    let mut answer = String::new();
    let asked = write!(stderr.lock(), "{question}")
        .and_then(|()| stderr.lock().flush())
        .and_then(|()| stdin.lock().read_line(&mut answer));
    Ok(asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

pub(super) async fn capacity(
    desk: &mut Desk,
    wanted: &Capacity,
    resource: Resource,
) -> Result<Answer, Trouble> {
    // The parser bounds it far below any u32.
    let capacity = (wanted.slots > 0).then_some(wanted.slots as u32);
    let declare = DeclareCapacity { resource: resource.clone(), capacity };
    let answer = desk.command(declare).await?;
    match answer.map_err(|error| desk.told(&error, Wanted::Admin))? {
        lockkeeper::Answer::CapacityDeclared { capacity } => {
            let text = match capacity {
                Some(slots) => {
                    format!("{resource} has {}", words::count(slots as usize, "slot"))
                }
                None => format!("{resource} has no slots any more: it is locked as a whole"),
            };
            let fields = json!({ "resource": resource.as_str(), "capacity": capacity });
            Ok(Answer::done(text, fields))
        }
        other => Err(strange(&other)),
    }
}
