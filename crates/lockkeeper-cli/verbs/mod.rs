//! The verbs.
//!
//! | file | its verbs |
//! |---|---|
//! | `admin.rs` | `force-unlock`, `capacity` |
//! | `acquire.rs` | `acquire`, `wait`, `cancel` |
//! | `history.rs` | `audit`, `stats` |
//! | `holds.rs` | `renew`, `release`, `cleanup` |
//! | `run/` | `run` |
//! | `tasks.rs` | `task …` |
//! | `views.rs` | `check`, `status`, `queue`, `graph` |
//! | `waiting.rs` | what is shown during a wait, and Ctrl-C |
//! | `watch.rs` | `watch` |
//! | `why.rs` | `why` |

pub(crate) mod acquire;
pub(crate) mod admin;
pub(crate) mod history;
pub(crate) mod holds;
pub(crate) mod run;
pub(crate) mod tasks;
pub(crate) mod views;
pub(crate) mod waiting;
pub(crate) mod watch;
pub(crate) mod why;

use crate::{
    args::{Args, Verb, tasks::TaskVerb},
    child::Prepared,
    daemon::{care, desk::Desk, doctor, look::Look},
    exit::Exit,
    output::Answer,
    places::Here,
    trouble::Trouble,
};

/// Does what a verb asks for, as far as it is about a project.
pub(crate) async fn run(args: &Args, prepared: Option<Prepared>) -> Result<Exit, Trouble> {
    let here = match &args.verb {
        Verb::Stop(_) | Verb::Doctor(_) => Here::anywhere(&args.global)?,
        _ => Here::find(&args.global)?,
    };
    if let Verb::Run(wanted) = &args.verb {
        return run::run(here, &args.global, wanted, prepared).await;
    }
    if let Verb::Watch(wanted) = &args.verb {
        let resources = here.resources(&wanted.resources)?;
        return watch::watch(here, wanted, resources).await;
    }
    answer(args, here).await?.write(args.global.json)
}

async fn answer(args: &Args, here: Here) -> Result<Answer, Trouble> {
    match &args.verb {
        Verb::Acquire(wanted) => {
            let (here, words) = here.last_word(wanted.resources.clone(), &args.global)?;
            let resources = here.resources(&words)?;
            acquire::remark_names(&here, &words);
            acquire::acquire(&mut Desk::open(here).await?, wanted, resources).await
        }
        Verb::Wait(wanted) => acquire::wait(&mut Desk::open(here).await?, wanted).await,
        Verb::Cancel(wanted) => acquire::cancel(&mut Desk::open(here).await?, wanted).await,
        Verb::Renew(wanted) => {
            let targets = holds::targets(&here, &wanted.resources)?;
            holds::renew(&mut Desk::open(here).await?, wanted, targets).await
        }
        Verb::Release(wanted) => {
            let (here, words) = here.last_word(wanted.resources.clone(), &args.global)?;
            let targets = holds::targets(&here, &words)?;
            holds::release(&mut Desk::open(here).await?, wanted, targets).await
        }
        Verb::Cleanup(wanted) => holds::cleanup(&mut Desk::open(here).await?, wanted).await,
        Verb::Check(wanted) => {
            let resources = here.resources(&wanted.resources)?;
            views::check(&mut Look::at(&here).await?, &here, wanted, resources).await
        }
        Verb::Status(wanted) => {
            let resources = here.resources(&wanted.resources)?;
            views::status(&mut Look::at(&here).await?, &here, wanted, resources).await
        }
        Verb::Queue(wanted) => {
            let resource = here.resource(&wanted.resource)?;
            views::queue(&mut Look::at(&here).await?, resource).await
        }
        Verb::Why(wanted) => {
            let resource = here.resource(&wanted.resource)?;
            why::why(&mut Look::at(&here).await?, &here, resource).await
        }
        Verb::Graph(wanted) => views::graph(&mut Look::at(&here).await?, &here, wanted).await,
        Verb::Audit(wanted) => {
            let resource = wanted.resource.as_deref().map(|text| here.resource(text));
            history::audit(&mut Look::at(&here).await?, &here, wanted, resource.transpose()?).await
        }
        Verb::Stats(wanted) => history::stats(&mut Look::at(&here).await?, &here, wanted).await,
        Verb::ForceUnlock(wanted) => {
            let resource = here.resource(&wanted.resource)?;
            admin::force_unlock(&mut Desk::open(here).await?, wanted, resource).await
        }
        Verb::Capacity(wanted) => {
            let resource = here.resource(&wanted.resource)?;
            admin::capacity(&mut Desk::open(here).await?, wanted, resource).await
        }
        Verb::Task(wanted) => match &wanted.verb {
            TaskVerb::List(wanted) => tasks::list(&mut Look::at(&here).await?, &here, wanted).await,
            verb => tasks::change(&mut Desk::open(here).await?, verb).await,
        },
        Verb::Stop(_) => care::stop(&here).await,
        Verb::Doctor(_) => Ok(doctor::doctor(&here).await),
        other => unreachable!("{other:?} is about no project"),
    }
}
