//! Hears the warnings of the whole test binary. Tests tell theirs apart by the project.

use std::{
    fmt::Debug,
    sync::{Mutex, Once},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// One warning, as it was logged.
#[derive(Clone, Debug, Default)]
pub struct Warning {
    pub message: String,
    pub project: String,
    pub fields: Vec<(String, String)>,
}

impl Warning {
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value)
    }
}

static HEARD: Mutex<Vec<Warning>> = Mutex::new(Vec::new());
static START: Once = Once::new();

/// Begins to listen, for all tests of the process.
pub fn listen() {
    START.call_once(|| tracing::subscriber::set_global_default(Ear).unwrap());
}

/// The warnings of a project, so far.
pub fn warnings_of(project: &str) -> Vec<Warning> {
    HEARD.lock().unwrap().iter().filter(|one| one.project == project).cloned().collect()
}

struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut warning = Warning::default();
        event.record(&mut warning);
        HEARD.lock().unwrap().push(warning);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Warning {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            "project" => self.project = text,
            name => self.fields.push((name.to_owned(), text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
