//! The verb `task`: claims of tasks.

use super::{
    acquire::strange,
    holds::{Target, own, renew_one},
};
use crate::{
    args::tasks::{Claim, ListTasks, TaskState, TaskVerb},
    daemon::{
        desk::{self, Desk},
        look::Look,
    },
    exit::Exit,
    output::{Answer, shape, style::Style, table::Table, words},
    places::Here,
    trouble::{Trouble, Wanted},
};
use lockkeeper::{
    AskOptions, ClaimTasks, FinishTask, Holder, List, Resource, Task, TaskClaim, TaskStatus, Tasks,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Work takes longer than an edit.
const LEASE: Duration = Duration::from_secs(30 * 60);

/// A task by its name; `task:7` and `7` are the same one.
fn resource(name: &str) -> Result<Resource, Trouble> {
    let resource = Resource::task(name.strip_prefix("task:").unwrap_or(name));
    match resource.problem(lockkeeper::Limits::default().key_bytes_max) {
        None => Ok(resource),
        Some(problem) => {
            let what = format!("{name:?} is no task: {problem}");
            Err(Trouble::new(Exit::Usage, "invalid_resource", what)
                .next("name it by any word, such as TASK-7"))
        }
    }
}

fn resources(names: &[String]) -> Result<Vec<Resource>, Trouble> {
    names.iter().map(|name| resource(name)).collect()
}

pub(super) async fn change(desk: &mut Desk, verb: &TaskVerb) -> Result<Answer, Trouble> {
    match verb {
        TaskVerb::Claim(wanted) => claim(desk, wanted).await,
        TaskVerb::Renew(wanted) => {
            let (mut lines, mut renewed) = (Vec::new(), Vec::new());
            for task in resources(&wanted.tasks)? {
                let (line, fields) =
                    renew_one(desk, &Target::Resource(task), wanted.lease, false).await?;
                lines.push(line);
                renewed.push(fields);
            }
            Ok(Answer::done(lines.join("\n"), json!({ "renewed": renewed })))
        }
        TaskVerb::Release(wanted) => {
            finish(desk, &wanted.tasks, false, wanted.expect_version).await
        }
        TaskVerb::Complete(wanted) => {
            finish(desk, &wanted.tasks, true, wanted.expect_version).await
        }
        TaskVerb::List(_) => unreachable!("listing needs no desk"),
    }
}

async fn claim(desk: &mut Desk, wanted: &Claim) -> Result<Answer, Trouble> {
    let claims: Vec<TaskClaim> = resources(&wanted.tasks)?
        .into_iter()
        .map(|task| TaskClaim { task, expect_version: wanted.expect_version })
        .collect();
    let options = AskOptions {
        lease: Some(wanted.lease.unwrap_or(LEASE)),
        reason: wanted.reason.as_deref().map(Arc::from),
        request_id: Some(desk::request_id()),
        ..AskOptions::default()
    };
    let session = desk.session().await?;
    let answer = desk.command(ClaimTasks { session, claims, options }).await?;
    match answer.map_err(|error| desk.told(&error, Wanted::Task))? {
        lockkeeper::Answer::TasksClaimed(claimed) => {
            let now = desk.now();
            let mut lines = Vec::new();
            let mut fields = Vec::new();
            for one in claimed {
                let left = one.grant.expires_at.since(now).div_ceil(1000) * 1000;
                lines.push(format!(
                    "{} is claimed by {} for {}, version {}",
                    one.task.resource,
                    desk.here.agent,
                    words::span(left),
                    one.task.version
                ));
                let mut object = shape::task(&one.task);
                object["grant"] = shape::grant(&one.grant, now);
                fields.push(object);
            }
            let fields = json!({ "agent": desk.here.agent, "claimed": fields });
            Ok(Answer::done(lines.join("\n"), fields))
        }
        other => Err(strange(&other)),
    }
}

async fn finish(
    desk: &mut Desk,
    names: &[String],
    done: bool,
    expect_version: Option<u64>,
) -> Result<Answer, Trouble> {
    let (mut lines, mut fields) = (Vec::new(), Vec::new());
    for task in resources(names)? {
        let (lock, by) = own(desk, &Target::Resource(task)).await?;
        let request_id = Some(desk::request_id());
        let finish = FinishTask { by, lock, done, expect_version, request_id };
        let answer = desk.command(finish).await?;
        match answer.map_err(|error| desk.told(&error, Wanted::Task))? {
            lockkeeper::Answer::TaskMoved(task) => {
                let (resource, version) = (&task.resource, task.version);
                lines.push(format!("{resource} is {}, version {version}", task.status));
                fields.push(shape::task(&task));
            }
            other => return Err(strange(&other)),
        }
    }
    Ok(Answer::done(lines.join("\n"), json!({ "tasks": fields })))
}

pub(super) async fn list(
    look: &mut Look,
    here: &Here,
    wanted: &ListTasks,
) -> Result<Answer, Trouble> {
    let mut tasks = look.see(Tasks {}).await?;
    let holders = look.see(List {}).await?;
    let now = look.now();
    let holders: BTreeMap<Resource, Holder> =
        holders.into_iter().map(|holder| (holder.resource.clone(), holder)).collect();
    if let Some(state) = wanted.state {
        tasks.retain(|task| task.status == status(state));
    }
    let mut table = Table::new(&["TASK", "STATE", "VERSION", "CLAIMED BY", "ENDS", "WHY"]);
    let mut fields = Vec::new();
    for task in &tasks {
        let Task { resource, version, status } = task;
        let holder = holders.get(resource);
        let text = |of: &dyn Fn(&Holder) -> String| holder.map(of).unwrap_or_default();
        table.row([
            resource.key().to_owned(),
            status.to_string(),
            version.to_string(),
            text(&|holder| holder.agent.to_string()),
            text(&|holder| words::ahead(now, holder.expires_at)),
            text(&|holder| holder.reason.as_deref().unwrap_or_default().to_owned()),
        ]);
        let mut object = shape::task(task);
        if let Some(holder) = holder {
            object["holder"] = shape::holder(holder, now);
        }
        fields.push(object);
    }
    let text = match tasks.is_empty() {
        true => "no such task has ever been claimed".to_owned(),
        false => table.text(Style::of_stdout()),
    };
    let fields: Value = json!({ "project": here.project, "tasks": fields });
    Ok(Answer::done(text, fields))
}

fn status(state: TaskState) -> TaskStatus {
    match state {
        TaskState::Open => TaskStatus::Open,
        TaskState::Claimed => TaskStatus::Claimed,
        TaskState::Done => TaskStatus::Done,
    }
}
