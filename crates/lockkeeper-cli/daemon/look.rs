//! Looks at a project: through the daemon if one runs, else at the store as it is written. Starts
//! nothing and changes nothing, not a byte.

use super::link;
use crate::{
    output::words,
    places::Here,
    trouble::{Asker, Trouble, Wanted},
};
use lockkeeper::{
    AuditFilter, AuditRow, CallError, LockTable, Question, Reign, Snapshot, StoreError,
    TableConfig, Timestamp, remote::Client, wire,
};

/// Somebody who only looks.
pub(crate) struct Look {
    here: Here,
    at: At,
}

enum At {
    /// A daemon.
    Running(Client),
    /// A store nobody serves.
    Rest(Box<Snapshot>),
    /// Nothing was ever locked.
    Nowhere,
}

impl Look {
    pub(crate) async fn at(here: &Here) -> Result<Look, Trouble> {
        let running = match link::running(here).await {
            // A daemon of another version cannot be asked, but what it has written can be read.
            Err(trouble) if trouble.code == link::OTHER_PROTOCOL => None,
            running => running?,
        };
        let at = match running {
            Some(client) => At::Running(client),
            None => match Snapshot::of(&here.store) {
                Ok(snapshot) => At::Rest(Box::new(snapshot)),
                Err(StoreError::Missing { .. }) => At::Nowhere,
                Err(error) => return Err(Trouble::store(&error)),
            },
        };
        Ok(Look { here: here.clone(), at })
    }

    /// Through a daemon that was found already.
    pub(crate) fn through(here: &Here, client: Client) -> Look {
        Look { here: here.clone(), at: At::Running(client) }
    }

    /// The clock that goes with the answers.
    pub(crate) fn now(&self) -> Timestamp {
        match &self.at {
            At::Running(client) => client.now(),
            At::Rest(_) | At::Nowhere => words::now(),
        }
    }

    /// Asks about the project.
    pub(crate) async fn see<Q: Question>(&mut self, question: Q) -> Result<Q::Answer, Trouble> {
        let project = self.here.project.clone();
        self.see_in(&project, question).await
    }

    /// Asks about any project.
    pub(crate) async fn see_in<Q: Question>(
        &mut self,
        project: &str,
        question: Q,
    ) -> Result<Q::Answer, Trouble> {
        match &mut self.at {
            At::Running(client) => {
                let answer = client.see(project, question).await;
                answer.map_err(|error| self.told(&error))
            }
            At::Rest(snapshot) => {
                snapshot.see(project, &question).map_err(|error| Trouble::store(&error))
            }
            At::Nowhere => {
                let empty = LockTable::new(TableConfig::default(), Reign::first(0));
                Ok(question.see(&empty, words::now()))
            }
        }
    }

    /// The projects of the store.
    pub(crate) async fn projects(&mut self) -> Result<Vec<String>, Trouble> {
        match &mut self.at {
            At::Running(client) => {
                let answer = client.projects().await;
                answer.map_err(|error| self.told(&error))
            }
            At::Rest(snapshot) => {
                let projects = snapshot.projects().map_err(|error| Trouble::store(&error))?;
                Ok(projects.iter().map(ToString::to_string).collect())
            }
            At::Nowhere => Ok(Vec::new()),
        }
    }

    /// The audit log.
    pub(crate) async fn audit(&mut self, filter: &AuditFilter) -> Result<Vec<AuditRow>, Trouble> {
        match &mut self.at {
            At::Running(client) => {
                let answer = client.audit(filter).await;
                answer.map_err(|error| self.told(&error))
            }
            At::Rest(snapshot) => snapshot.audit(filter).map_err(|error| Trouble::store(&error)),
            At::Nowhere => Ok(Vec::new()),
        }
    }

    /// How the daemon is, if one runs.
    pub(crate) async fn daemon(&self) -> Result<Option<wire::Status>, Trouble> {
        match &self.at {
            At::Running(client) => {
                client.status().await.map(Some).map_err(|error| self.told(&error))
            }
            At::Rest(_) | At::Nowhere => Ok(None),
        }
    }

    /// Whether a daemon answers.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.at, At::Running(_))
    }

    fn told(&self, error: &CallError) -> Trouble {
        let Here { agent, is_named, .. } = &self.here;
        let (is_named, now) = (*is_named, self.now());
        Trouble::call(error, &Asker { agent, is_named, wanted: Wanted::Admin, now })
    }
}
